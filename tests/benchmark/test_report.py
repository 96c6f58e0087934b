"""The report: what its reader accepts, what it refuses, and with which words."""

from __future__ import annotations

import copy
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from lavit_edge.benchmark.__main__ import print_reports
from lavit_edge.benchmark.report import (
    canonical,
    edited,
    finish,
    latency,
    parse_report,
    quantile,
    read_report,
    schema,
    write_report,
)
from lavit_edge.cli import new_console
from lavit_edge.errors import UserError

Make = Callable[..., dict[str, Any]]


def put(report: dict[str, Any], path: str, value: Any) -> dict[str, Any]:
    """A copy with another value at a dotted path."""
    report = copy.deepcopy(report)
    *folders, name = path.split(".")
    inner = report
    for folder in folders:
        inner = inner[folder]
    inner[name] = value
    return report


def test_a_report_survives_the_disk(make_report: Make, tmp_path: Path) -> None:
    report = make_report()
    write_report(report, tmp_path / "new folder" / "report.json")
    assert read_report(tmp_path / "new folder" / "report.json") == report
    assert not edited(report)
    assert [file.name for file in (tmp_path / "new folder").iterdir()] == ["report.json"]


def test_canonical_json_is_that_of_rfc_8785() -> None:
    value = {"b": [1, None, True], "a": '"\\\b\f\n\r\t\x01\u007f\u2028é😀', "€": 2}
    assert canonical(value).decode() == '{"a":"\\"\\\\\\b\\f\\n\\r\\t\\u0001\u007f\u2028é😀","b":[1,null,true],"€":2}'


@pytest.mark.parametrize(
    ("path", "value", "words"),
    [
        ("format", "lavit_edge.report/2", "update it"),
        ("format", None, "not a benchmark report"),
        ("device.emulated", None, "device.emulated"),
        ("latency.p50_ns", 1.5, "latency.p50_ns"),
        ("device.cpu_features", ["mmx"], "device.cpu_features"),
        ("harness.extra", 1, "harness"),
        ("created", "yesterday", "created"),
        ("latency.runs", 3, "samples of 3 runs"),
        ("latency.samples_ns", None, "exactly one of"),
        ("latency", None, "missing though the self-test passed"),
        ("latency.duration_ns", 1, "less than the runs together"),
        ("device.cpu", None, "lacks: must name"),
        ("self_test.passed", False, "nobody forced it"),
    ],
)
def test_what_is_no_sound_report_is_one_line(make_report: Make, path: str, value: Any, words: str) -> None:
    with pytest.raises(UserError, match=words) as caught:
        parse_report(json.dumps(put(make_report(), path, value)), "r.json")
    assert str(caught.value).startswith("r.json")
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(("factor", "unit"), [(1000, "microseconds"), (1_000_000, "milliseconds")])
def test_mixed_units_are_named(make_report: Make, factor: int, unit: str) -> None:
    report = make_report()
    one = put(report, "latency.p50_ns", report["latency"]["p50_ns"] // factor)
    with pytest.raises(UserError, match=rf"mixed units, \d+ looks like {unit}"):
        parse_report(json.dumps(one), "r.json")
    runs = put(report, "latency.samples_ns", [sample // factor for sample in report["latency"]["samples_ns"]])
    with pytest.raises(UserError, match=f"mixed units, the runs look like {unit}"):
        parse_report(json.dumps(runs), "r.json")


def test_a_report_edited_by_hand_is_read_and_shown_as_such(make_report: Make) -> None:
    report = put(make_report(), "device.name", "Another phone")
    assert edited(parse_report(json.dumps(report), "r.json"))


@pytest.mark.parametrize("share", [0.0, 0.2, 0.5, 0.99])
def test_a_truncated_report(make_report: Make, tmp_path: Path, share: float) -> None:
    whole = json.dumps(make_report())
    (tmp_path / "r.json").write_text(whole[: int(share * len(whole))])
    with pytest.raises(UserError, match="is not JSON"):
        read_report(tmp_path / "r.json")


def test_finish_refuses_what_the_reader_would(make_report: Make) -> None:
    report = put(make_report(), "settings.threads", 0)
    with pytest.raises(ValueError, match=r"settings\.threads"):
        finish({name: value for name, value in report.items() if name not in ("id", "sha256", "lacks")})


def test_quantiles_by_nearest_rank() -> None:
    assert [quantile([10, 20, 30, 40], permille) for permille in (0, 250, 251, 500, 900, 1000)] == [10, 10, 20, 20, 40, 40]


def test_many_runs_become_quantiles_and_whole_minutes_medians() -> None:
    samples = [5_000_000 + index % 7 for index in range(30_000)]  # 150 s
    starts = [index * 5_000_010 for index in range(30_000)]
    field = latency(samples, starts)
    assert field["samples_ns"] is None
    assert (len(field["quantiles_ns"]), field["quantiles_ns"][0], field["quantiles_ns"][1000]) == (1001, 5_000_000, 5_000_006)
    assert field["p50_ns"] == field["quantiles_ns"][500] == 5_000_003
    assert field["minutes_p50_ns"] == [5_000_003, 5_000_003]
    assert latency(samples[:100], starts[:100])["samples_ns"] == samples[:100]


def test_every_field_is_described() -> None:
    def undescribed(node: dict[str, Any], path: str) -> list[str]:
        inner = {f"{path}.{name}": field for name, field in node.get("properties", {}).items()}
        here = [
            name for name, field in inner.items() if not field.get("description") and "condition" not in field.get("$ref", "")
        ]
        return here + [missing for name, field in inner.items() for missing in undescribed(field, name)]

    assert undescribed(schema(), "report") + undescribed(schema()["$defs"]["condition"], "condition") == []


def test_eighty_columns_tell_all_artifacts_apart(make_report: Make, capsys: pytest.CaptureFixture[str]) -> None:
    names = [f"lavit_mobile_{letter}.onnx" for letter in "ml"]
    long = {"load__cold_ns": 1_234_567_890, "load__first_inference_ns": 234_567_890}
    reports = [make_report([123_456_789] * 60, artifact__file=name, **long) for name in names]
    console = new_console()
    console.width = 80
    print_reports(reports, [Path("a.json"), Path("b.json")], console)
    shown = capsys.readouterr().out
    assert "…" not in shown
    assert "".join(line.partition("│")[0].strip() for line in shown.splitlines() if "│" in line) == "".join(names)
    assert max(map(len, shown.splitlines())) <= 80
