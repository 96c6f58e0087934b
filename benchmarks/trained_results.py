"""The lines that benchmarks/trained_alike.py and trained_int8.py write."""

from __future__ import annotations

import json
import os
import statistics
import subprocess
from collections.abc import Iterable
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TypeVar, get_type_hints

from lavit_edge.errors import UserError
from lavit_edge.files import check_shape, parse_json


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


@dataclass(frozen=True)
class Int8Result:
    """The int8 artifact of a finished run.

    Attributes:
        int8_by: whose tool quantised it.
        top1: share of the ``pictures`` of the val split, as the artifact computes them.
        float_top1: the same of the run's fp32 artifact.
    """

    model: str
    seed: int
    runtime: str
    int8_by: str
    top1: float
    float_top1: float
    pictures: int
    recipe: str
    commit: str


AnyResult = TypeVar("AnyResult", Result, Int8Result)


def read_results(file: Path, kind: type[AnyResult]) -> list[AnyResult]:
    """All results of a file; none where there is no file.

    Raises:
        UserError: a line is no such result, or it is of another recipe than the first.
    """
    if not file.exists():
        return []
    results, shape = [], get_type_hints(kind)
    for number, line in enumerate(file.read_text(encoding="utf-8").splitlines(), 1):
        source = f"{file}, line {number}"
        value = parse_json(line, source)
        check_shape(value, shape, source)
        if unknown := set(value) - set(shape):
            raise UserError(f"{source}: unknown field {min(unknown)!r}")
        results.append(kind(**value))
        if results[-1].recipe != results[0].recipe:
            raise UserError(f"{source} is of another recipe than the lines before it")
    return results


def append(file: Path, result: Result | Int8Result) -> None:
    """A line, in one write, so that several processes can share the file."""
    file.parent.mkdir(parents=True, exist_ok=True)
    with file.open("ab", buffering=0) as stream:
        stream.write((json.dumps(asdict(result)) + "\n").encode())
        os.fsync(stream.fileno())


def top1_by_model(results: Iterable[Result | Int8Result]) -> dict[str, list[float]]:
    """Model -> top-1 of its seeds, best mean first."""
    found: dict[str, list[float]] = {}
    for result in results:
        found.setdefault(result.model, []).append(result.top1)
    return dict(sorted(found.items(), key=lambda item: -statistics.fmean(item[1])))


def current_commit() -> str:
    """Of the sources, with a plus where they were changed since."""
    root = Path(__file__).resolve().parents[1]

    def git(*arguments: str) -> str:
        return subprocess.run(["git", "-C", root, *arguments], check=True, capture_output=True, text=True).stdout.strip()

    try:
        return git("rev-parse", "--short=12", "HEAD") + "+" * bool(git("status", "--porcelain", "lavit_edge", "benchmarks"))
    except (OSError, subprocess.CalledProcessError) as error:
        raise UserError(f"results name the commit they are of, and git does not say it ({error})") from error
