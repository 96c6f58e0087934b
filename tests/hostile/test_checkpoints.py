from __future__ import annotations

import json
import os
import shutil
import struct
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file

from lavit_edge.checkpoint import CONFIG, INT8, WEIGHTS
from lavit_edge.export.__main__ import main as export
from lavit_edge.files import file_sha256

Damage = Callable[[Path], object]


def edit(path: Path, change: Callable[[Any], object]) -> None:
    config = json.loads((path / CONFIG).read_text())
    change(config)
    (path / CONFIG).write_text(json.dumps(config))


def rehash(path: Path) -> None:
    """As one who wants the damage to be believed."""
    for name in (WEIGHTS, INT8):
        if (path / name).is_file():
            edit(path, lambda config, name=name: config["sha256"].update({name: file_sha256(path / name)}))


def cut(name: str, where: Callable[[bytes], int]) -> Damage:
    def damage(path: Path) -> None:
        data = (path / name).read_bytes()
        (path / name).write_bytes(data[: where(data)])
        rehash(path)

    return damage


def header_end(data: bytes) -> int:
    return 8 + struct.unpack("<Q", data[:8])[0]


def length(value: int) -> Damage:
    """The length that a safetensors file gives for its header."""

    def damage(path: Path) -> None:
        data = (path / WEIGHTS).read_bytes()
        (path / WEIGHTS).write_bytes(struct.pack("<Q", value) + data[8:])
        rehash(path)

    return damage


def header(change: Callable[[str], str]) -> Damage:
    def damage(path: Path) -> None:
        data = (path / WEIGHTS).read_bytes()
        end = header_end(data)
        text = change(data[8:end].decode()).encode()
        (path / WEIGHTS).write_bytes(struct.pack("<Q", len(text)) + text + data[end:])
        rehash(path)

    return damage


def twice(text: str) -> str:
    """A second entry of a tensor, with the place of another; one with its own place would change nothing, and is taken."""
    return text.rstrip()[:-1] + ',"norm.bias":' + json.dumps(json.loads(text)["norm.weight"]) + "}"


def fields(change: Callable[[Any], object]) -> Damage:
    def on(text: str) -> str:
        parsed = json.loads(text)
        change(parsed)
        return json.dumps(parsed)

    return header(on)


def flip(name: str, where: Callable[[bytes], int], hashed: bool = True) -> Damage:
    def damage(path: Path) -> None:
        data = bytearray((path / name).read_bytes())
        data[where(data)] ^= 0x80
        (path / name).write_bytes(data)
        if hashed:
            rehash(path)

    return damage


def tensors(name: str, change: Callable[[dict[str, torch.Tensor]], object]) -> Damage:
    def damage(path: Path) -> None:
        found = load_file(path / name)
        change(found)
        save_file(found, path / name)
        rehash(path)

    return damage


def to(dtype: torch.dtype) -> Damage:
    return tensors(WEIGHTS, lambda found: found.update({"norm.bias": found["norm.bias"].to(dtype)}))


def bad(key: str, value: float | int) -> Damage:
    """A number of the int8 form."""

    def change(found: dict[str, torch.Tensor]) -> None:
        name = next(name for name in sorted(found) if name.endswith(key))
        found[name] = torch.full_like(found[name], value)

    return tensors(INT8, change)


def first(found: dict[str, torch.Tensor], key: str) -> str:
    return next(name for name in sorted(found) if name.endswith(key))


def text(content: str | bytes) -> Damage:
    return lambda path: (path / CONFIG).write_bytes(content if isinstance(content, bytes) else content.encode())


def config(**changes: Any) -> Damage:
    return lambda path: edit(path, lambda found: found.update(changes))


def options(**changes: Any) -> Damage:
    return lambda path: edit(path, lambda found: found["model"]["options"].update(changes))


def becomes(name: str, make: Callable[[Path], object]) -> Damage:
    """Another kind of thing at the place of a file."""

    def damage(path: Path) -> None:
        (path / name).unlink()
        make(path / name)

    return damage


def loop(file: Path) -> None:
    file.symlink_to(file)


def sparse(file: Path) -> None:
    with file.open("wb") as stream:
        stream.truncate(1 << 40)


def zipped(file: Path) -> None:
    with zipfile.ZipFile(file, "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("data.pkl", bytes(10_000_000))


def to_float(found: dict[str, torch.Tensor]) -> None:
    found.update({name: value.float() for name, value in found.items() if value.dtype == torch.int8})


DEEP = "[" * 100_000
DAMAGES: dict[str, Damage] = {
    "weights empty": cut(WEIGHTS, lambda data: 0),
    "cut in the length": cut(WEIGHTS, lambda data: 4),
    "cut behind the length": cut(WEIGHTS, lambda data: 8),
    "cut in the header": cut(WEIGHTS, lambda data: 8 + 50),
    "cut before the header ends": cut(WEIGHTS, lambda data: header_end(data) - 1),
    "cut behind the header": cut(WEIGHTS, header_end),
    "cut in the first tensor": cut(WEIGHTS, lambda data: header_end(data) + 3),
    "cut before the end": cut(WEIGHTS, lambda data: len(data) - 1),
    "length 0": length(0),
    "length one off": length(17),
    "length 2^31": length(2**31),
    "length 2^63": length(2**63),
    "length 2^64 - 1": length(2**64 - 1),
    "header no JSON": header(lambda text: "}" + text[1:]),
    "header nested": header(lambda text: DEEP),
    "header with NaN": header(lambda text: text.rstrip()[:-1] + ',"x":NaN}'),  # it is padded with spaces
    "header names a tensor twice": header(twice),
    "a dtype that is none": fields(lambda found: found["norm.bias"].update(dtype="F7")),
    "offsets beyond the end": fields(lambda found: found["norm.bias"].update(data_offsets=[0, 1 << 40])),
    "offsets backwards": fields(lambda found: found["norm.bias"].update(data_offsets=[64, 0])),
    "offsets that overlap": fields(lambda found: found["norm.bias"].update(data_offsets=found["norm.weight"]["data_offsets"])),
    "a shape that overflows": fields(lambda found: found["norm.bias"].update(shape=[2**62, 2**62])),
    "a negative shape": fields(lambda found: found["norm.bias"].update(shape=[-16])),
    "a flipped bit in the length": flip(WEIGHTS, lambda data: 7),
    "a flipped bit in the header": flip(WEIGHTS, lambda data: 9),
    "a flipped bit in the data": flip(WEIGHTS, lambda data: len(data) - 9, hashed=False),
    "half precision": to(torch.float16),
    "double precision": to(torch.float64),
    "integers": to(torch.int32),
    "booleans": to(torch.bool),
    "NaN": tensors(WEIGHTS, lambda found: found["norm.bias"].fill_(float("nan"))),
    "one inf": tensors(WEIGHTS, lambda found: found["norm.bias"][:1].fill_(float("-inf"))),
    "a tensor is missing": tensors(WEIGHTS, lambda found: found.pop("norm.bias")),
    "a tensor too many, of two lines": tensors(WEIGHTS, lambda found: found.update({"a\nb\x1b[2J": torch.zeros(1)})),
    "a tensor without entries": tensors(WEIGHTS, lambda found: found.update({"norm.bias": torch.zeros(0)})),
    "weights are a folder": becomes(WEIGHTS, Path.mkdir),
    "weights are a pipe": becomes(WEIGHTS, os.mkfifo),
    "weights are a link to themselves": becomes(WEIGHTS, loop),
    "weights are a terabyte of nothing": becomes(WEIGHTS, sparse),
    "weights are a zip": becomes(WEIGHTS, zipped),
    "int8 cut": cut(INT8, lambda data: len(data) // 2),
    "int8 with a flipped bit": flip(INT8, lambda data: len(data) - 9, hashed=False),
    "int8 without a tensor": tensors(INT8, lambda found: found.pop(first(found, "input_scale"))),
    "int8 with a tensor too many": tensors(INT8, lambda found: found.update(extra=torch.zeros(1))),
    "int8 scale 0": bad("input_scale", 0.0),
    "int8 scale negative": bad("output_scale", -1.0),
    "int8 scale NaN": bad("weight_scale", float("nan")),
    "int8 scale inf": bad("input_scale", float("inf")),
    "int8 zero point beyond": bad("input_zero_point", 2**30),
    "int8 weights in float": tensors(INT8, to_float),
    "int8 is a folder": becomes(INT8, Path.mkdir),
    "int8 is a pipe": becomes(INT8, os.mkfifo),
    "config empty": text(""),
    "config cut": lambda path: (path / CONFIG).write_bytes((path / CONFIG).read_bytes()[:-20]),
    "config nested": text(DEEP),
    "config not UTF-8": text(b"\xff\xfe\x00"),
    "config in UTF-16": lambda path: (path / CONFIG).write_text((path / CONFIG).read_text(), "utf-16"),
    "config with a field twice": lambda path: (path / CONFIG).write_text('{"format":"x",' + (path / CONFIG).read_text()[1:]),
    "config with NaN": text('{"format": NaN}'),
    "config of 20 MB": text(json.dumps("x" * 20_000_000)),
    "config a terabyte of nothing": becomes(CONFIG, sparse),
    "config a folder": becomes(CONFIG, Path.mkdir),
    "config a pipe": becomes(CONFIG, os.mkfifo),
    "config a link to itself": becomes(CONFIG, loop),
    "hashes in a list": config(sha256=[1]),
    "hashes of numbers": config(sha256={WEIGHTS: 0}),
    "no contract": config(contract=None),
    "model of two lines": config(model={"name": "lavit\nmobile\x07"}),
    "model in a list": config(model=["lavit_mobile_s"]),
    "options in a list": config(model={"name": "lavit_mobile_s", "options": []}),
    "widths of terabytes": options(dims=[2**20, 2**20, 2**20, 2**20]),
    "widths beyond int64": options(dims=[2**70] * 4),
    "depth of a thousand million": options(depths=[10**9, 1, 1, 1]),
    "depth 1.5": options(depths=[1.5, 1, 1, 1]),
    "heads -1": options(heads=[0, 0, 2, -1]),
    "heads in strings": options(heads=["1", "1", "1", "1"]),
    "keys 0": options(key_dim=0),
    "values that heads do not divide": options(value_ratio=0.2),
    "no values": options(value_ratio=0),
    "no hidden channels": options(ratio=0),
    "hidden channels of terabytes": options(ratio=2**40),
    "three stages": options(dims=[16, 16, 16]),
    "drop path NaN": options(drop_path="NaN"),
    "an option that is none": options(**{"no\nsuch": 1}),
    "another size": lambda path: edit(path, lambda found: found["contract"].update(size=4096)),
    "a label more": lambda path: edit(path, lambda found: found["contract"]["labels"].append("one more")),
}  # fmt: skip


@pytest.mark.parametrize("damage", DAMAGES.values(), ids=DAMAGES)
def test_a_checkpoint(damage: Damage, checkpoint: Path, tmp_path: Path, elsewhere: Any) -> None:
    damage(checkpoint)
    elsewhere.refused(lambda: export(["--checkpoint", str(checkpoint), "--target", "onnx", "--out", str(tmp_path / "out")]))
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize("suffix", [".pt2", ".pt", ".pkl", ".zip", ""])
def test_a_file_for_a_checkpoint(suffix: str, checkpoint: Path, tmp_path: Path, elsewhere: Any) -> None:
    file = tmp_path / f"program{suffix}"
    shutil.make_archive(str(tmp_path / "archive"), "zip", checkpoint)
    os.rename(tmp_path / "archive.zip", file)
    elsewhere.refused(lambda: export(["--checkpoint", str(file), "--out", str(tmp_path / "out")]))
