from __future__ import annotations

import dataclasses
import json
import subprocess
import sys
from typing import Any

import pytest

from lavit_edge.contract import InputContract
from lavit_edge.contract.contract import FORMATS
from lavit_edge.errors import UserError

CONTRACT = InputContract(size=160, labels=("tench", "château", "犬"), resize="crop", crop_fraction=0.875)
GOLDEN = (
    '{"crop_fraction":0.875,"format":"lavit_edge.contract/1","interpolation":"bicubic","labels":["tench","château","犬"],'
    '"mean":[0.485,0.456,0.406],"resize":"crop","size":160,"std":[0.229,0.224,0.225]}'
)
SHA256 = "97cc4d87c7c4965fa32644e3644eedea12e93e780f0e80d792f662e33c4ef130"


def test_canonical_json_and_its_hash_are_pinned() -> None:
    assert CONTRACT.to_json() == GOLDEN
    assert CONTRACT.sha256 == SHA256


def test_round_trip() -> None:
    again = InputContract.from_json(CONTRACT.to_json())
    assert again == CONTRACT
    assert again.to_json() == CONTRACT.to_json()
    assert InputContract.from_dict(CONTRACT.to_dict()) == CONTRACT


def test_escaped_and_reordered_json_is_the_same_contract() -> None:
    fields = dict(reversed(json.loads(GOLDEN).items()))
    assert InputContract.from_json(json.dumps(fields, indent=2, ensure_ascii=True)).sha256 == CONTRACT.sha256


def test_equal_contracts_give_equal_json() -> None:
    whole: Any = dict(mean=[0, 0, 0], std=[1, 1, 1], crop_fraction=1)
    floats: Any = dict(mean=(0.0, 0.0, 0.0), std=(1.0, 1.0, 1.0), crop_fraction=1.0)
    a, b = (InputContract(size=64, labels=("a",), **numbers) for numbers in (whole, floats))
    assert a == b
    assert a.to_json() == b.to_json()


def test_every_field_changes_the_hash() -> None:
    other: dict[str, Any] = dict(
        size=192,
        labels=("a",),
        resize="squash",
        interpolation="bilinear",
        crop_fraction=0.9,
        mean=(0, 0, 0),
        std=(1, 1, 1),
        temperature=0.5,
        threshold=0.5,
    )
    assert set(other) == {field.name for field in dataclasses.fields(InputContract)}
    hashes = {dataclasses.replace(CONTRACT, **{name: value}).sha256 for name, value in other.items()}
    assert len(hashes | {CONTRACT.sha256}) == len(other) + 1


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("size", 0),
        ("size", -32),
        ("size", "160"),
        ("size", 160.0),
        ("size", True),
        ("size", 4097),
        ("size", None),
        ("labels", []),
        ("labels", ["a", ""]),
        ("labels", ["a", " "]),
        ("labels", ["a", 3]),
        ("labels", ["a", "b", "a"]),
        ("labels", "cat"),
        ("labels", None),
        ("resize", "stretch"),
        ("interpolation", "nearest"),
        ("crop_fraction", 0),
        ("crop_fraction", 1.5),
        ("crop_fraction", float("nan")),
        ("crop_fraction", "0.9"),
        ("mean", [0.5, 0.5]),
        ("mean", [0.5, 0.5, float("inf")]),
        ("mean", 0.5),
        ("mean", ["a", "b", "c"]),
        ("std", [0.2, 0.2, 0]),
        ("std", [0.2, 0.2, -0.1]),
        ("std", [True, True, True]),
        ("format", "lavit_edge.contract/0"),
        ("extra", 1),
    ],
)
def test_a_bad_field_is_a_one_line_error(field: str, value: Any) -> None:
    text = json.dumps({**CONTRACT.to_dict(), field: value})
    with pytest.raises(UserError, match=r"^contract: ") as caught:
        InputContract.from_json(text)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("size", [1, 28, 300, 336, 518, 4096])
def test_any_whole_size_will_do(size: int) -> None:
    contract = dataclasses.replace(CONTRACT, size=size)
    assert InputContract.from_json(contract.to_json()) == contract


@pytest.mark.parametrize("field", ["size", "labels", "format"])
def test_a_missing_field_is_named(field: str) -> None:
    fields = CONTRACT.to_dict()
    del fields[field]
    with pytest.raises(UserError, match=field):
        InputContract.from_dict(fields)


@pytest.mark.parametrize("text", ["", "{", "[]", "null", '"contract"', *(json.dumps({"format": name}) for name in FORMATS)])
def test_what_is_no_contract_is_refused_on_one_line(text: str) -> None:
    with pytest.raises(UserError, match=r"^contract: ") as caught:
        InputContract.from_json(text)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("modules", ["lavit_edge", "lavit_edge.contract, lavit_edge.contract.pictures, lavit_edge.cli"])
def test_import_loads_no_toolchain(modules: str) -> None:
    heavy = "torch", "torchvision", "executorch", "coremltools", "onnx", "onnxruntime", "nncf"
    code = f"import sys, {modules}; print([name for name in {heavy!r} if name in sys.modules])"
    assert subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout == "[]\n"


def test_the_package_hands_out_its_main_names() -> None:
    import lavit_edge

    assert lavit_edge.InputContract is InputContract
    assert all(getattr(lavit_edge, name) is not None for name in lavit_edge.__all__)
    with pytest.raises(AttributeError, match="no attribute 'lavit'"):
        _ = lavit_edge.lavit
