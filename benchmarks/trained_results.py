"""The lines that benchmarks/trained_alike.py writes."""

from __future__ import annotations

import statistics
from collections.abc import Iterable
from dataclasses import dataclass, fields
from pathlib import Path
from typing import get_type_hints

from lavit_edge.documents import check_shape, parse_json
from lavit_edge.errors import UserError


@dataclass(frozen=True)
class Result:
    """A finished run.

    Attributes:
        top1: share of the ``pictures`` of the val split, fp32 (bf16 autocast), weights averaged.
        params: as deployed.
        seconds: of training and judging.
        recipe: digest of the recipe less model and seed.
        commit: of the sources, with a plus where they were changed since.
    """

    model: str
    seed: int
    top1: float
    pictures: int
    params: int
    epochs: int
    pixels: int
    seconds: int
    device: str
    recipe: str
    commit: str


def read_results(file: Path) -> list[Result]:
    """All results of a file; none where there is no file.

    Raises:
        UserError: a line is no result.
    """
    if not file.exists():
        return []
    results, shape = [], get_type_hints(Result)
    for number, line in enumerate(file.read_text(encoding="utf-8").splitlines(), 1):
        source = f"{file}, line {number}"
        value = parse_json(line, source)
        check_shape(value, shape, source)
        if unknown := set(value) - {field.name for field in fields(Result)}:
            raise UserError(f"{source}: unknown field {min(unknown)!r}")
        results.append(Result(**value))
    return results


def top1_by_model(results: Iterable[Result]) -> dict[str, list[float]]:
    """Model -> top-1 of its seeds, best mean first."""
    found: dict[str, list[float]] = {}
    for result in results:
        found.setdefault(result.model, []).append(result.top1)
    return dict(sorted(found.items(), key=lambda item: -statistics.fmean(item[1])))
