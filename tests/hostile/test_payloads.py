"""Artifacts with a digest that fits and a payload that does not: the self-test must fail, in words, and never pass or crash."""

from __future__ import annotations

import base64
import json
import struct
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
from safetensors.numpy import load, save

from lavit_edge.artifact.payload import KEY
from lavit_edge.artifact.seal import BLANK, FIELD, MARK, UNSEALED, seal
from lavit_edge.selftest import main

KINDS = ("pte", "onnx", "ort", "mlpackage")
Entries = dict[str, Any]
Change = Callable[[Entries], object]


def resealed(source: Path, file: Path, change: Change) -> Path:
    """A copy of an ``.onnx`` whose entries are changed (``golden`` is bytes while they are), and whose digest fits again."""
    model = onnx.load(source)
    entries: Entries = {prop.key.removeprefix(KEY): prop.value for prop in model.metadata_props}
    entries |= {"golden": base64.b64decode(entries["golden"]), "digest": UNSEALED}
    change(entries)
    texts = {name: base64.b64encode(value).decode() if isinstance(value, bytes) else value for name, value in entries.items()}
    onnx.helper.set_model_props(model, {KEY + name: value for name, value in texts.items()})
    onnx.save(model, file)
    seal(file)
    return file


def header(entries: Entries) -> dict[str, Any]:
    return json.loads(entries["golden"][8 : 8 + int.from_bytes(entries["golden"][:8], "little")])


def with_header(entries: Entries, change: Callable[[dict[str, Any]], object]) -> None:
    """The header changed and written again, whatever it then says."""
    length, fields = int.from_bytes(entries["golden"][:8], "little"), header(entries)
    change(fields)
    text = json.dumps(fields).encode()
    entries["golden"] = struct.pack("<Q", len(text)) + text + entries["golden"][8 + length :]


def edit_header(change: Callable[[dict[str, Any]], object]) -> Change:
    return lambda entries: with_header(entries, change)


def facts(**changed: Any) -> Change:
    def change(fields: dict[str, Any]) -> None:
        fields["__metadata__"]["golden"] = json.dumps(json.loads(fields["__metadata__"]["golden"]) | changed)

    return edit_header(change)


def edit_tensor(name: str, change: Callable[[np.ndarray], np.ndarray]) -> Change:
    def apply(entries: Entries) -> None:
        tensors = load(entries["golden"])
        tensors[name] = np.ascontiguousarray(change(tensors[name]))
        entries["golden"] = save(tensors, header(entries)["__metadata__"])

    return apply


def cut(count: int) -> Change:
    return lambda entries: entries.update(golden=entries["golden"][:count])


def at_data(entries: Entries) -> None:
    cut(8 + int.from_bytes(entries["golden"][:8], "little"))(entries)


def contract(**changed: Any) -> Change:
    return lambda entries: entries.update(contract=json.dumps(json.loads(entries["contract"]) | changed))


PAYLOADS: dict[str, Change] = {
    "no contract": lambda e: e.pop("contract"),
    "no provenance": lambda e: e.pop("provenance"),
    "no golden": lambda e: e.pop("golden"),
    "contract empty": lambda e: e.update(contract=""),
    "contract nested": lambda e: e.update(contract="[" * 100_000),
    "contract NaN": contract(crop_fraction=float("nan")),
    "contract of one label more": lambda e: contract(labels=[*json.loads(e["contract"])["labels"], "more"])(e),
    "contract of one label fewer": lambda e: contract(labels=json.loads(e["contract"])["labels"][1:])(e),
    "contract of another size": contract(size=96),
    "contract of a huge size": contract(size=32_000_000),
    "contract of another format": contract(format="lavit_edge.contract/9"),
    "label of two lines": lambda e: contract(labels=["a\nb\x1b[31m", *json.loads(e["contract"])["labels"][1:], "x"])(e),
    "provenance a list": lambda e: e.update(provenance="[]"),
    "provenance nested": lambda e: e.update(provenance='{"a":' * 50_000),
    "provenance of another format": lambda e: e.update(provenance='{"format":"lavit_edge.provenance/2"}'),
    "golden no base64": lambda e: e.update(golden="%%%"),
    "golden empty": cut(0),
    "golden cut in the length": cut(5),
    "golden cut behind the length": cut(8),
    "golden cut in the header": cut(60),
    "golden cut before the data": at_data,
    "golden cut by a byte": cut(-1),
    "golden with a huge header": lambda e: e.update(golden=struct.pack("<Q", 2**63) + e["golden"][8:]),
    "golden with a header beyond the end": lambda e: e.update(golden=struct.pack("<Q", len(e["golden"])) + e["golden"][8:]),
    "golden with a byte more": lambda e: e.update(golden=e["golden"] + b"\0"),
    "golden without metadata": edit_header(lambda h: h.pop("__metadata__")),
    "golden metadata null": edit_header(lambda h: h.update(__metadata__=None)),
    "golden with other metadata": edit_header(lambda h: h.update(__metadata__={"golden": "{"})),
    "golden metadata no text": edit_header(lambda h: h.update(__metadata__={"golden": 1})),
    "golden of another format": facts(format="lavit_edge.golden/3"),
    "golden without names": facts(names=None),
    "three names": facts(names=["a", "b", "c"]),
    "five names": facts(names=["a", "b", "c", "d", "e"]),
    "names that are numbers": facts(names=[1, 2, 3, 4]),
    "tolerance zero": facts(tolerance_steps=0),
    "tolerances too few": facts(tolerance_steps=[8]),
    "step zero": facts(step=0),
    "close pictures more than there are": facts(close_pictures=1000),
    "close pictures text": facts(close_pictures="2"),
    "tolerance negative": facts(tolerance_steps=-8),
    "tolerance text": facts(tolerance_steps="8"),
    "tolerance infinite": facts(tolerance_steps=float("inf")),
    "offsets beyond the end": edit_header(lambda h: h["logits.0"].update(data_offsets=[0, 1 << 60])),
    "offsets reversed": edit_header(lambda h: h["logits.0"].update(data_offsets=h["logits.0"]["data_offsets"][::-1])),
    "offsets negative": edit_header(lambda h: h["logits.0"].update(data_offsets=[-8, 32])),
    "shape beyond the data": edit_header(lambda h: h["picture.0"].update(shape=[1 << 40, 1 << 40, 3])),
    "dtype unknown": edit_header(lambda h: h["picture.0"].update(dtype="U7")),
    "dtype of another width": edit_header(lambda h: h["logits.0"].update(dtype="F64")),
    "tensor missing": edit_header(lambda h: h.pop("sample.2")),
    "picture grey": edit_tensor("picture.0", lambda x: x[..., :1]),
    "picture signed": edit_tensor("picture.0", lambda x: x.astype(np.int8)),
    "picture with channels swapped": edit_tensor("picture.0", lambda x: x[..., ::-1]),
    "picture upside down": edit_tensor("picture.2", lambda x: x[::-1]),
    "sample of another grid": edit_tensor("sample.1", lambda x: x[:8, :8]),
    "sample off by 2": edit_tensor("sample.1", lambda x: np.where(x < 128, x + 2, x - 2).astype(np.uint8)),
    "logits NaN": edit_tensor("logits.0", lambda x: x * np.float32("nan")),
    "logits infinite": edit_tensor("logits.0", lambda x: x + np.float32("inf")),
    "logits of another order": edit_tensor("logits.3", lambda x: np.roll(x, 1)),
    "logits of another sign": edit_tensor("logits.3", lambda x: -x),
    "logits half": edit_tensor("logits.1", lambda x: x / 2),
}


@pytest.mark.parametrize("change", PAYLOADS.values(), ids=PAYLOADS)
def test_a_payload_that_does_not_fit_fails(change: Change, base: Any, tmp_path: Path, elsewhere: Any, capfd: Any) -> None:
    file = resealed(base.bundle / "model.onnx", tmp_path / "model.onnx", change)
    code, stderr = elsewhere.run(lambda: main([str(file), "--json"]))
    assert code in (1, 2), stderr
    assert "Traceback" not in stderr
    assert stderr.count("\n") <= 1


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("share", [0.0, 0.001, 0.1, 0.5, 0.9, 0.9999])
def test_a_changed_bit_anywhere_fails(share: float, kind: str, base: Any, tmp_path: Path, capsys: Any) -> None:
    source = base.bundle / f"model.{kind}"
    for part in [path for path in [source, *source.rglob("*")] if path.is_file()]:
        copy = tmp_path / f"model.{kind}"
        if source.is_dir():
            import shutil

            shutil.copytree(source, copy, dirs_exist_ok=True)
        target = copy / part.relative_to(source) if source.is_dir() else copy
        data = bytearray(part.read_bytes())
        data[int(share * (len(data) - 1))] ^= 16
        target.write_bytes(data)
        assert main([str(copy), "--json"]) == 1
        (check,) = json.loads(capsys.readouterr().out)["checks"]
        assert check["name"] == "bytes"


def test_a_digest_of_zeros_or_two_of_them_fail(base: Any, tmp_path: Path, capsys: Any) -> None:
    data = (base.bundle / "model.onnx").read_bytes()
    for content in (FIELD.sub(MARK + BLANK, data), data + MARK + b"a" * 64, data.replace(MARK, MARK.upper())):
        (tmp_path / "model.onnx").write_bytes(content)
        assert main([str(tmp_path / "model.onnx"), "--json"]) == 1
        assert len(json.loads(capsys.readouterr().out)["checks"]) == 1


def test_an_artifact_of_another_model_under_its_name_is_told_by_its_provenance(base: Any, tmp_path: Path, capsys: Any) -> None:
    """A whole artifact passes under any name; what it was made from is part of what it says."""
    (tmp_path / "cat.onnx").write_bytes((base.bundle / "model.onnx").read_bytes())
    assert main([str(tmp_path / "cat.onnx"), "--json"]) == 0
    result = json.loads(capsys.readouterr().out)
    assert result["provenance"]["checkpoint"]["sha256"] == json.loads((base.checkpoint / "config.json").read_text())["sha256"]
