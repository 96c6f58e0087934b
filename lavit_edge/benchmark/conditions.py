"""What a measurement was taken under, and in what of it two reports differ.

``report.schema.json`` has the say: each of its fields has, itself or from the object that it is in, the word ``compare``. So a
field that the report gets one day is a condition from then on, or says that it is none.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from typing import Any

from lavit_edge.benchmark.report import Report, at, schema


@dataclass(frozen=True)
class Condition:
    """A field that must not differ, or of which a reader must know if it does.

    Attributes:
        path: of the field in the report, with dots.
        refused: whether reports that differ in it are not compared.
        tolerance: two numbers that lie no further apart are the same condition; None where values are equal or differ.
        default: what an absent field means.
    """

    path: str
    refused: bool
    tolerance: int | None = None
    default: Any = None

    def of(self, report: Report) -> Any:
        """Its value in a report; None where the report does not know."""
        value = at(report, self.path)
        return self.default if value is None else value

    def differs(self, left: Any, right: Any) -> bool:
        """Of two values that are known."""
        return left != right if self.tolerance is None else abs(left - right) > self.tolerance


@dataclass(frozen=True)
class Difference:
    """A condition that two sides have not in common, and what each has."""

    condition: Condition
    left: Any
    right: Any


@cache
def conditions() -> tuple[Condition, ...]:
    """Those fields that are refused or marked, in the order of the schema."""
    return tuple(
        Condition(path, role == "refused", field.get("tolerance"), field.get("default"))
        for path, role, field in fields()
        if role in ("refused", "marked")
    )


def measured() -> tuple[Condition, ...]:
    """Those that are numbers which rise and fall on a device: load, temperature, charge."""
    return tuple(each for each in conditions() if each.tolerance is not None)


def differences(a: Mapping[str, Any], b: Mapping[str, Any], *, together: bool = False) -> list[Difference]:
    """Conditions of which both sides know a value, and not the same.

    Args:
        a, b: values by path.
        together: the sides took turns, so that what rises and falls on a device rose and fell for both.
    """
    pairs = [Difference(each, a[each.path], b[each.path]) for each in conditions() if not (together and each in measured())]
    return [
        pair
        for pair in pairs
        if pair.left is not None and pair.right is not None and pair.condition.differs(pair.left, pair.right)
    ]


def unknown(a: Mapping[str, Any], b: Mapping[str, Any]) -> list[str]:
    """Paths of conditions that one side knows and the other does not, or that both should know (``lacks``) and do not."""
    should = schema()["properties"]["lacks"]["items"]["enum"]
    none = {each.path: (a[each.path] is None) + (b[each.path] is None) for each in conditions()}
    return [path for path, count in none.items() if count == 1 or (count == 2 and path in should)]


def changes(report: Report) -> list[str]:
    """What became of the device during the run, in words; numbers move in every run."""
    before, after = report["conditions"]["before"], report["conditions"]["after"]
    exact = {
        each.path.rpartition(".")[2] for each in conditions() if each.path.startswith("conditions.") and each.tolerance is None
    }
    known = [name for name in before if name in exact and None not in (before[name], after[name])]
    return [f"{name} from {before[name]} to {after[name]}" for name in known if before[name] != after[name]]


class Spread:
    """How far apart the :func:`measured` conditions of repeated runs lie. Args: those of the first run, all known."""

    def __init__(self, values: Sequence[int]) -> None:
        self.lows = self.highs = tuple(values)

    def takes(self, values: Sequence[int]) -> bool:
        """Whether another run agrees with all that are there; it is one of them then."""
        lows, highs = tuple(map(min, self.lows, values)), tuple(map(max, self.highs, values))
        if any(each.differs(low, high) for each, low, high in zip(measured(), lows, highs, strict=True)):
            return False
        self.lows, self.highs = lows, highs
        return True


def fields() -> list[tuple[str, str, Mapping[str, Any]]]:
    """Path, role (``refused``, ``marked``, ``subject`` or ``found``) and schema of each field of a report that is no object."""
    return list(_fields(schema(), "", ""))


def _fields(node: Mapping[str, Any], path: str, role: str) -> Iterator[tuple[str, str, Mapping[str, Any]]]:
    node = {**schema()["$defs"][node["$ref"].rpartition("/")[2]], **node} if "$ref" in node else node
    role = node.get("compare", role)
    if "properties" not in node:
        yield path, role, node
    for name, inner in node.get("properties", {}).items():
        yield from _fields(inner, f"{path}.{name}".lstrip("."), role)
