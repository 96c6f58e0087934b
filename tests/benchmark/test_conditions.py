"""Every condition of the schema, before and after the run: what differs in it is refused or marked, and never pooled."""

from __future__ import annotations

import json
import uuid
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from lavit_edge import compare as command
from lavit_edge.benchmark.comparison import compare, load
from lavit_edge.benchmark.conditions import conditions, fields
from lavit_edge.benchmark.report import Report, at, finish, write_report
from lavit_edge.errors import UserError

Make = Callable[..., Report]
STATE = {
    "power": "mains",
    "battery_permille": 900,
    "low_power": False,
    "thermal": "nominal",
    "temperature_millicelsius": 40_000,
    "governor": "performance",
    "load_permille": 100,
}
FIELDS = {path: field for path, _, field in fields()}
CONDITIONS = {each.path: each for each in conditions() if not each.path.startswith("device.emulat")}  # those: test_comparison.py
NULLABLE = [path for path in CONDITIONS if None in FIELDS[path].get("enum", ()) or "null" in FIELDS[path].get("type", ())]
MEASURED = [path for path, each in CONDITIONS.items() if each.tolerance]


def changed(report: Report, path: str, value: Any) -> Report:
    """A sound report like another, but for one field."""
    copy = json.loads(json.dumps({name: field for name, field in report.items() if name not in ("id", "lacks", "sha256")}))
    *folders, name = path.split(".")
    place = copy
    for folder in folders:
        place = place.setdefault(folder, {"session": str(uuid.uuid4())})  # settings.turns may be absent
    place[name] = value
    return finish(copy)


def another(path: str, value: Any, by: float = 1.5) -> Any:
    """A value of a condition that differs, for a number by so many tolerances."""
    if tolerance := CONDITIONS[path].tolerance:
        return value + (-1 if path.endswith("battery_permille") else 1) * round(by * tolerance)
    if options := FIELDS[path].get("enum"):
        return next(option for option in options if option not in (value, None))
    if isinstance(value, bool):
        return not value
    if isinstance(value, int):
        return value + 1
    return value[1:] if isinstance(value, list) else value.replace("c", "d") if path.endswith("sha256") else f"{value} b"


@pytest.fixture
def known(make_report: Make) -> Report:
    """A report that knows every condition."""
    return make_report(conditions={"before": STATE, "after": STATE})


def test_every_field_says_what_a_comparison_makes_of_it() -> None:
    words = {role for _, role, _ in fields()}
    assert words == {"refused", "marked", "subject", "found"}
    assert len(FIELDS) > 80


def test_the_conditions_before_and_after_the_run_are_conditions() -> None:
    assert {f"conditions.{when}.{name}" for when in ("before", "after") for name in STATE} <= set(CONDITIONS)
    assert len(MEASURED) == 6
    assert len(NULLABLE) > 20


@pytest.mark.parametrize("path", CONDITIONS)
def test_what_differs_is_refused_or_marked_and_not_pooled(path: str, tmp_path: Path, known: Report) -> None:
    other = another(path, CONDITIONS[path].of(known))
    write_report(known, tmp_path / "a.json")
    write_report(changed(known, path, other), tmp_path / "b.json")
    groups, _ = load([tmp_path])
    assert [len(group.paths) for group in groups] == [1, 1]
    rows = compare(groups, groups[0], anyway=True)
    marks = [mark for mark in rows[1].marks if path in mark]
    assert len(marks) == 1
    if CONDITIONS[path].refused:
        with pytest.raises(UserError, match=rf"cannot be compared: {path} is .* in a\.json and .* in b\.json"):
            compare(groups, groups[0])
    else:
        assert marks[0].startswith("not measured alike: ")
        assert compare(groups, groups[0])[1].comparison is not None


@pytest.mark.parametrize("path", NULLABLE)
def test_what_one_side_does_not_know_is_marked_and_not_pooled(path: str, tmp_path: Path, known: Report) -> None:
    write_report(known, tmp_path / "a.json")
    write_report(changed(known, path, None), tmp_path / "b.json")
    groups, _ = load([tmp_path])
    assert len(groups) == 2
    assert any(mark.startswith("not known to agree: ") and path in mark for mark in compare(groups, groups[0])[1].marks)


@pytest.mark.parametrize("path", MEASURED)
def test_numbers_within_the_tolerance_are_the_same_condition(path: str, tmp_path: Path, known: Report) -> None:
    for index, by in enumerate((0.0, 0.9, 1.8)):
        write_report(changed(known, path, another(path, at(known, path), by)), tmp_path / f"{index}.json")
    groups, _ = load([tmp_path])
    assert [len(group.paths) for group in groups] == [2, 1]  # no two of a row lie further apart than the tolerance
    near, _ = load([tmp_path / "0.json", tmp_path / "1.json"])
    assert compare(near, near[0])[1].marks == ()


def test_cool_hot_and_busy_runs_are_not_repeats_but_with_anyway(tmp_path: Path, known: Report) -> None:
    write_report(known, tmp_path / "cool.json")
    write_report(changed(known, "conditions.after.temperature_millicelsius", 95_000), tmp_path / "hot.json")
    write_report(changed(known, "conditions.before.load_permille", 9_000), tmp_path / "busy.json")
    write_report(changed(known, "conditions.after.thermal", "critical"), tmp_path / "throttled.json")
    assert len(load([tmp_path])[0]) == 4
    groups, _ = load([tmp_path], anyway=True)
    assert [len(group.paths) for group in groups] == [3, 1]
    (mark,) = groups[0].marks
    assert mark == (
        "repeated runs that were not measured alike: conditions.before.load_permille, conditions.after.temperature_millicelsius"
    )


def test_a_device_that_changed_during_the_run_is_marked(tmp_path: Path, make_report: Make) -> None:
    after = {**STATE, "power": "battery", "thermal": "critical", "load_permille": 5_000}
    write_report(make_report(conditions={"before": STATE, "after": after}), tmp_path / "a.json")
    groups, _ = load([tmp_path])
    assert groups[0].marks == ("changed during the run: power from mains to battery, thermal from nominal to critical",)


@pytest.fixture
def sessions(tmp_path: Path, known: Report) -> list[Path]:
    """Folders of two sides that took turns in three sessions, in which the load rose by 4 a core."""
    folders = [tmp_path / "old", tmp_path / "new"]
    for number in range(3):
        session = str(uuid.uuid4())
        for folder in folders:
            report = changed(known, "settings.turns", {"session": session, "sides": 2})
            write_report(changed(report, "conditions.before.load_permille", 100 + 2_000 * number), folder / f"{number}.json")
    return folders


def test_sessions_of_turns_are_repeats_although_the_load_rose(sessions: list[Path]) -> None:
    groups, _ = load(sessions)
    assert [len(group.paths) for group in groups] == [3, 3]
    row = compare(groups, groups[0])[1]
    assert row.comparison is not None
    assert row.comparison.by == "time in turns"
    assert row.marks == ()


def test_turns_of_other_sessions_are_compared_as_any_runs_are(sessions: list[Path], tmp_path: Path, known: Report) -> None:
    report = changed(known, "settings.turns", {"session": str(uuid.uuid4()), "sides": 2})
    write_report(changed(report, "conditions.before.load_permille", 9_000), tmp_path / "other.json")
    groups, _ = load([sessions[0], tmp_path / "other.json"])
    assert compare(groups, groups[0])[1].marks == ("not measured alike: conditions.before.load_permille 2100 against 9000",)


def test_a_summary_says_why_nothing_was_compared(
    tmp_path: Path, known: Report, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("COLUMNS", "300")
    for name, load_permille in (("a", 100), ("b", 4_000)):
        write_report(changed(known, "conditions.before.load_permille", load_permille), tmp_path / "old" / f"{name}.json")
    write_report(known, tmp_path / "new" / "c.json")
    assert command.main([str(tmp_path / "old"), str(tmp_path / "new")]) == 0
    told = "nothing was compared: these are 3 different things (conditions.before.load_permille 100 against 4000)"
    assert told in capsys.readouterr().out
