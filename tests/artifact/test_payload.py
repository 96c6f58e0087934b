"""The payload: what is written is read back, and what is not a payload of this format is refused in one line."""

from __future__ import annotations

import base64
import json
import math
import subprocess
import sys
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from safetensors.numpy import load, save

from lavit_edge.artifact.payload import Golden, Payload, read_payload, sample_of
from lavit_edge.contract import InputContract
from lavit_edge.errors import UserError

CONTRACT = InputContract(64, ("Käse", "b", "c"))


@pytest.fixture
def payload() -> Payload:
    rng = np.random.default_rng(0)

    def golden(index: int) -> Golden:
        picture = rng.integers(0, 256, (10 + index, 20, 3), dtype=np.uint8)
        sample = rng.integers(0, 256, (16, 16, 3), dtype=np.uint8)
        return Golden(f"picture {index}", picture, sample, rng.normal(size=3).astype(np.float32), 8.0 + index)

    return Payload(CONTRACT, {"checkpoint": {"name": "x"}}, tuple(golden(index) for index in range(4)), 0.25, 0.5, 2)


def same(one: Payload, other: Payload) -> bool:
    arrays = [(getattr(a, k), getattr(b, k)) for a, b in zip(one.golden, other.golden, strict=True) for k in vars(a)]
    facts = replace(one, golden=()) == replace(other, golden=())
    return facts and all(np.array_equal(a, b) for a, b in arrays)


def test_entries_and_metadata_read_back(payload: Payload) -> None:
    assert same(read_payload(payload.entries()), payload)
    metadata = {key.removeprefix("org.lavit_edge."): value for key, value in payload.metadata().items()}
    assert all(isinstance(value, str) for value in metadata.values())
    assert same(read_payload(metadata), payload)


def test_text_may_come_as_bytes(payload: Payload) -> None:
    entries = {name: value.encode() if isinstance(value, str) else value for name, value in payload.entries().items()}
    assert same(read_payload(entries), payload)
    for name in ("contract", "provenance"):
        with pytest.raises(UserError, match=name):
            read_payload({**entries, name: b"\xff"})


def test_format_1_has_one_tolerance_and_a_step_of_the_logits_range(payload: Payload) -> None:
    entries: dict[str, Any] = dict(payload.entries())
    golden_facts(lambda f: [f.pop(name) for name in ("step", "close_steps", "close_pictures")])(entries)
    golden_facts(lambda f: f.update(format="lavit_edge.golden/1", tolerance_steps=3))(entries)
    expected = np.stack([golden.logits for golden in payload.golden])
    old = tuple(replace(golden, tolerance=3.0) for golden in payload.golden)
    assert same(read_payload(entries), Payload(CONTRACT, payload.provenance, old, float(np.ptp(expected)) / 255))


@pytest.mark.parametrize("close_pictures", [0, 4])
@pytest.mark.parametrize("shape", [(1, 4096, 3), (4096, 1, 3)])
def test_the_least_and_the_most_are_taken(close_pictures: int, shape: tuple[int, int, int], payload: Payload) -> None:
    """Also logits that differ by little."""
    golden = [replace(each, picture=np.zeros(shape, np.uint8), logits=each.logits * 1e-3) for each in payload.golden]
    edge = replace(payload, golden=tuple(golden), close_pictures=close_pictures)
    assert same(read_payload(edge.entries()), edge)


def test_facts_are_json_in_one_spelling(payload: Payload) -> None:
    """What the digest of an export depends on: keys in order, no spaces, letters as they are."""
    entries = replace(payload, provenance={"b": {"d": 1, "c": "é"}, "a": [1, 2]}).entries()
    assert entries["provenance"] == '{"a":[1,2],"b":{"c":"é","d":1},"format":"lavit_edge.provenance/1"}'


def test_the_blob_is_a_safetensors_file_with_the_documented_tensors(payload: Payload) -> None:
    tensors = load(payload.entries()["golden"])  # type: ignore[arg-type]
    assert set(tensors) == {f"{part}.{index}" for part in ("picture", "sample", "logits") for index in range(4)}
    assert tensors["picture.2"].shape == (12, 20, 3)


def test_the_same_payload_is_the_same_bytes_in_every_process(payload: Payload) -> None:
    code = (
        "import numpy as np; from lavit_edge.artifact.payload import *; from lavit_edge.contract import InputContract\n"
        "g = tuple(Golden(str(i), np.full((2, 3, 3), i, np.uint8), np.zeros((16, 16, 3), np.uint8),"
        " np.arange(i, i + 3, dtype=np.float32), 8.0) for i in range(4))\n"
        "print(Payload(InputContract(64, ('a', 'b', 'c')), {'z': 1, 'a': {'y': 2, 'b': 3}}, g, 1.0).metadata())\n"
    )
    outputs = {
        subprocess.run([sys.executable, "-c", code], env={"PYTHONHASHSEED": seed, "PYTHONPATH": ":".join(sys.path)},
                       capture_output=True, text=True, check=True).stdout
        for seed in "123"
    }  # fmt: skip
    assert len(outputs) == 1


def test_a_sample_takes_the_centres_of_a_grid() -> None:
    picture = np.zeros((64, 64, 3), np.uint8)
    picture[..., 0], picture[..., 1] = np.arange(64)[:, None], np.arange(64)
    sample = sample_of(picture)
    assert sample.shape == (16, 16, 3)
    assert sample[:, 0, 0].tolist() == sample[0, :, 1].tolist() == list(range(2, 64, 4))


def golden_facts(change: Callable[[dict[str, Any]], None]) -> Callable[[dict[str, Any]], None]:
    def apply(entries: dict[str, Any]) -> None:
        blob = entries["golden"]
        header = json.loads(blob[8 : 8 + int.from_bytes(blob[:8], "little")])
        facts = json.loads(header["__metadata__"]["golden"])
        change(facts)
        text = json.dumps(facts).replace("Infinity", "1e999")  # which is how it can be said in JSON
        entries["golden"] = save(load(blob), {"golden": text})

    return apply


def tensors(change: Callable[[dict[str, Any]], None]) -> Callable[[dict[str, Any]], None]:
    def apply(entries: dict[str, Any]) -> None:
        blob = entries["golden"]
        header = json.loads(blob[8 : 8 + int.from_bytes(blob[:8], "little")])
        values = load(blob)
        change(values)
        entries["golden"] = save(values, header["__metadata__"])

    return apply


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda e: e.pop("contract"), "'contract' is missing"),
        (lambda e: e.pop("golden"), "'golden' is missing"),
        (lambda e: e.update(contract="{}"), "contract: expected"),
        (lambda e: e.update(provenance="[]"), "provenance must be"),
        (lambda e: e.update(provenance="[" * 100_000), "provenance is not JSON"),
        (lambda e: e.update(golden="not base64!"), "not base64"),
        (lambda e: e.update(golden="*" + base64.b64encode(e["golden"]).decode()), "not base64"),
        (lambda e: e.update(golden=base64.b64encode(b"x" * 40).decode()), "golden is damaged"),
        (lambda e: e.update(golden=e["golden"][:-1]), "golden is damaged"),
        (lambda e: e.update(golden=b"\xff" * 7 + b"\x7f" + e["golden"][8:]), "golden is damaged"),
        (lambda e: e.update(golden=save(load(e["golden"]))), "golden is not JSON"),
        (golden_facts(lambda f: f.update(format="lavit_edge.golden/3")), "lavit_edge.golden/2"),
        (golden_facts(lambda f: f.pop("format")), "payload: golden must be"),
        (golden_facts(lambda f: f.update(names=f["names"][:3])), "at least 4"),
        (golden_facts(lambda f: f.update(tolerance_steps=8)), "positive"),
        (golden_facts(lambda f: f.update(tolerance_steps=[8, 8, 8])), "positive"),
        (golden_facts(lambda f: f.update(tolerance_steps=[8, 8, -1, 8])), "positive"),
        (golden_facts(lambda f: f.update(tolerance_steps=[8, 8, True, 8])), "positive"),
        (golden_facts(lambda f: f.update(tolerance_steps=float("nan"))), "NaN is not a number"),
        (golden_facts(lambda f: f.update(tolerance_steps=[8, 8, math.inf, 8])), "positive"),
        (golden_facts(lambda f: f.update(step=0)), "step and close_steps must be positive"),
        (golden_facts(lambda f: f.pop("close_steps")), "step and close_steps must be positive"),
        (golden_facts(lambda f: f.update(close_pictures=5)), "close_pictures must be"),
        (golden_facts(lambda f: f.update(close_pictures=True)), "close_pictures must be"),
        (golden_facts(lambda f: f.update(format="lavit_edge.golden/1", tolerance_steps=0)), "positive"),
        (tensors(lambda t: t.pop("picture.0")), "picture 0"),
        (tensors(lambda t: t.update({"picture.1": t["picture.1"].astype(np.int8)})), "picture 1 must be uint8"),
        (tensors(lambda t: t.update({"picture.1": np.zeros((5000, 1, 3), np.uint8)})), "picture 1 must be"),
        (tensors(lambda t: t.update({"picture.1": np.zeros((0, 1, 3), np.uint8)})), "picture 1 must be"),
        (tensors(lambda t: t.update({"sample.3": t["sample.3"][:8]})), "sample 3"),
        (tensors(lambda t: t.update({"logits.2": np.zeros(4, np.float32)})), "logits 2 must be 3 finite"),
        (tensors(lambda t: t.update({"logits.2": np.full(3, np.nan, np.float32)})), "logits 2 must be 3 finite"),
        (
            tensors(lambda t: t.update({f"logits.{i}": np.ones(3, np.float32) for i in range(4)})),
            "^payload: the expected logits are all equal, which",
        ),
        (tensors(lambda t: t.update({"logits.9": np.zeros(3, np.float32)})), "'logits.9' is unknown"),
    ],
)
def test_what_is_not_a_payload_is_refused(payload: Payload, change: Callable[[dict[str, Any]], None], message: str) -> None:
    entries = dict(payload.entries())
    change(entries)
    with pytest.raises(UserError, match=message) as error:
        read_payload(entries)
    assert "\n" not in str(error.value)
