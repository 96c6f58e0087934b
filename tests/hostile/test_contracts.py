from __future__ import annotations

import json
from collections.abc import Callable
from typing import Any

import pytest

from lavit_edge.contract import InputContract

GOOD = InputContract(size=64, labels=("cat", "dog"))
TEXT = GOOD.to_json()
DEEP = 100_000


def raw(field: str, value: str) -> str:
    """The contract with JSON text in place of a field's value."""
    fields = {name: json.dumps(content) for name, content in GOOD.to_dict().items()} | {field: value}
    return "{" + ",".join(f"{json.dumps(name)}:{content}" for name, content in fields.items()) + "}"


def changed(**fields: Any) -> str:
    return json.dumps(GOOD.to_dict() | fields)


TEXTS = {
    "empty": "",
    "white space": " \n\t",
    "cut before the end": TEXT[:-1],
    "cut in a name": TEXT[: TEXT.index("size") + 2],
    "cut after a colon": TEXT[: TEXT.index(":") + 1],
    "cut in a list": TEXT[: TEXT.index("[") + 1],
    "cut in a string": TEXT[: TEXT.index("cat") + 1],
    "cut in a number": TEXT[: TEXT.index("0.4") + 2],
    "two documents": TEXT + TEXT,
    "rubbish behind": TEXT + "\x00",
    "rubbish before": "\x00" + TEXT,
    "byte order mark": "\ufeff" + TEXT,
    "comment": "// mine\n" + TEXT,
    "single quotes": TEXT.replace('"', "'"),
    "a list of it": f"[{TEXT}]",
    "a string of it": json.dumps(TEXT),
    "nested lists": "[" * DEEP,
    "nested lists, closed": "[" * DEEP + "]" * DEEP,
    "nested objects": '{"a":' * DEEP + "1" + "}" * DEEP,
    "nested in a field": raw("labels", "[" * DEEP + "]" * DEEP),
    "a field twice": TEXT[:-1] + ',"size":96}',
    "NaN": raw("std", "[NaN,1,1]"),
    "Infinity": raw("mean", "[Infinity,0,0]"),
    "minus Infinity": raw("crop_fraction", "-Infinity"),
    "a number that overflows": raw("mean", "[1e999,0,0]"),
    "5000 digits": raw("size", "9" * 5000),
    "400 digits": raw("size", str(32 * 10**400)),
    "400 digits in the mean": raw("mean", f"[{10**400},0,0]"),
    "400 digits of the crop": raw("crop_fraction", str(10**400)),
    "a size of gigapixels": changed(size=2**31),
    "size true": changed(size=True),
    "a std that float32 cannot invert": changed(std=[1e-320, 1, 1]),
    "a std that erases": changed(std=[1e308, 1, 1]),
    "a label of two lines": changed(labels=["cat", "dog\nerror: none"]),
    "a label that colours": changed(labels=["cat", "\x1b[31mdog"]),
    "a label with a NUL": changed(labels=["cat", "d\x00g"]),
    "half a surrogate pair": raw("labels", '["cat","\\ud800"]'),
    "a name of half a pair": TEXT[:-1] + ',"\\udfff":1}',
    "labels in an object": changed(labels={"cat": 0, "dog": 1}),
    "labels in lists": changed(labels=[["cat"], ["dog"]]),
    "labels of numbers": changed(labels=[0, 1]),
    "a long list with one name twice": changed(labels=[*map(str, range(200_000)), "199999"]),
    "a long name of a field": changed(**{"x" * 1_000_000: 1}),
    "a name of a field in two lines": changed(**{"a\nb\x1b[0m": 1}),
    "format of two lines": changed(format="lavit_edge.contract/1\n"),
    "mean of strings": changed(mean=["0.5", "0.5", "0.5"]),
    "mean of lists": changed(mean=[[0.5], [0.5], [0.5]]),
    "a long value": changed(resize="x" * 1_000_000),
}


@pytest.mark.parametrize("text", TEXTS.values(), ids=TEXTS)
def test_a_contract(text: str, refused: Callable[[Callable[[], Any]], str]) -> None:
    assert "contract: " in refused(lambda: InputContract.from_json(text))


def test_the_healthy_one_is_taken() -> None:
    assert InputContract.from_json(TEXT) == GOOD == InputContract.from_json(changed())
