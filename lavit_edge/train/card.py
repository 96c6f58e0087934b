"""The model card of a freshly trained checkpoint, from what the run recorded."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from lavit_edge.contract import InputContract


def training_card(name: str, contract: InputContract, training: dict[str, Any], metrics: dict[str, Any]) -> str:
    """Markdown."""
    recipe = training["recipe"]
    teacher = _teacher(training) or "none"
    if before := sorted({*_teachers_before(training["started_from"])}):
        teacher += f"; that of the start: {'; '.join(before)}"
    elif not training["started_from"] and teacher == "none":
        teacher = "none: trained from scratch"
    judged = "not judged" if metrics["val_top1"] is None else f"{100 * metrics['val_top1']:.2f} %"
    weights = "the average of the weights" if metrics["weights"] == "average" else "the weights of the last step"
    top1 = f"{judged} ({weights}, epoch {metrics['epoch']} of {recipe['epochs']})"
    device = f"{training['processes']} x {training['device']}, {training['precision']}, {metrics['seconds'] / 60:.0f} min"
    shape = f"{contract.resize} to {contract.size} x {contract.size}, {contract.interpolation}"
    return f"""# {name}, {len(contract.labels)} classes, {contract.size} pixels

| | |
|---|---|
| top-1 on {metrics["val_pictures"]} val pictures | {top1} |
| teacher | {teacher} |
| started from | {_history(training["started_from"])} |
| processes x device, precision, time | {device} |
| classes | {", ".join(contract.labels)} |
| preprocessing | {shape}; normalisation is in the exported graph |
"""


def _teacher(training: dict[str, Any]) -> str | None:
    name = training.get("recipe", {}).get("teacher")
    return f"{name}, which has been trained on: {training.get('teacher_exposure')}" if name else None


def _teachers_before(start: list[dict[str, Any]] | dict[str, Any] | None) -> Iterator[str]:
    """Those of all runs before this one."""
    for one in start if isinstance(start, list) else [start]:
        if training := one and one["training"]:
            if teacher := _teacher(training):
                yield teacher
            yield from _teachers_before(training.get("started_from"))


def _history(start: list[dict[str, Any]] | dict[str, Any] | None) -> str:
    """The runs before this one, latest first; each of several. Older checkpoints have one without a list, or None."""
    before = [_run(one) for one in (start if isinstance(start, list) else [start]) if one]
    if len(before) > 1:
        return f"the mean weights of {len(before)} runs: " + "; ".join(f"({i}) {run}" for i, run in enumerate(before, 1))
    return before[0] if before else "random weights"


def _run(start: dict[str, Any]) -> str:
    metrics, training = start["metrics"] or {}, start["training"] or {}
    epochs, minutes = metrics.get("epoch", "an unknown number of"), metrics.get("seconds", 0) / 60
    before = _history(training.get("started_from"))
    name = f"{start['name']}, " if start.get("name") else ""
    return f"{name}{epochs} epochs at {start['image_size']} pixels ({minutes:.0f} min), before them: {before}"
