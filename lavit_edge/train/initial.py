"""Weights to start from: other checkpoints of the same architecture, at any size and with any classes."""

from __future__ import annotations

import unicodedata
from collections.abc import Sequence
from dataclasses import replace

import torch
from torch import Tensor

from lavit_edge.checkpoint import Checkpoint, fill
from lavit_edge.contract import InputContract
from lavit_edge.contract.contract import Resize
from lavit_edge.errors import UserError
from lavit_edge.models.classifier import Classifier
from lavit_edge.traced.model import Adapted


def fill_from(checkpoints: Sequence[Checkpoint], model: Classifier, name: str, contract: InputContract) -> list[str]:
    """Fills ``model`` with the mean of the checkpoints' weights (a uniform "model soup", Wortsman et al., ICML 2022).

    A class has the head's row of its name, in whatever order the checkpoints have their classes; a new class keeps the row that
    ``model`` has. One line says which.

    Returns:
        What was kept and what is different, a line each.

    Raises:
        UserError: one of them is another architecture, or has other options; or several have other classes or another input than
            each other, so that their mean would be that of different things.
    """
    first = checkpoints[0]
    for other in checkpoints[1:]:
        if set(_normal(first.contract.labels)) != set(_normal(other.contract.labels)):
            raise UserError(
                f"--init {first.path} and {other.path} have other classes; only weights for the same ones can be averaged"
            )
        if (first.contract.mean, first.contract.std) != (other.contract.mean, other.contract.std):
            raise UserError(f"--init {first.path} and {other.path} have another mean or std; their weights cannot be averaged")
    fresh = {key: value.clone() for key, value in model.state_dict().items()}
    total = {key: torch.zeros_like(value, dtype=torch.float64) for key, value in fresh.items()}
    for checkpoint in checkpoints:
        fill(model, weights_from(checkpoint, name, fresh, contract), str(checkpoint.path), name)
        for key, value in model.state_dict().items():
            total[key] += value
    model.load_state_dict({key: value / len(checkpoints) for key, value in total.items()})
    return [_what_was_kept(first.contract, contract), *_differences(first.contract, contract)]


def weights_from(checkpoint: Checkpoint, model: str, fresh: dict[str, Tensor], contract: InputContract) -> dict[str, Tensor]:
    """The checkpoint's tensors for ``model`` at the contract's size; the head's rows follow the labels, and stay ``fresh`` for
    those that the checkpoint does not have."""
    if isinstance(checkpoint.model, Adapted):
        raise UserError(f"--init {checkpoint.path} is a model of another package; only those of this package are trained here")
    source = checkpoint.config["model"]["name"]
    if source != model:
        raise UserError(f"--init holds a {source}, --model asks for a {model}; they must be the same architecture")
    tensors = dict(checkpoint.model.state_dict())
    if checkpoint.contract.size != contract.size:
        tensors = checkpoint.model.resized(fresh)
    before = {label: row for row, label in enumerate(_normal(checkpoint.contract.labels))}
    rows = [(row, before[label]) for row, label in enumerate(_normal(contract.labels)) if label in before]
    new, old = [row for row, _ in rows], [row for _, row in rows]
    for name in [name for name in fresh if name.startswith("head.")]:
        kept = tensors[name][old]
        tensors[name] = fresh[name].clone()
        if kept.shape[1:] == fresh[name].shape[1:]:  # else the options differ, which whoever fills the model says
            tensors[name][new] = kept
    return tensors


def carried(start: InputContract, size: int, labels: tuple[str, ...], resize: Resize) -> InputContract:
    """A contract with the mean, std and filter, and the crop's share, that the start was trained with, and always an answer."""
    return replace(start, size=size, labels=labels, resize=resize, temperature=1.0, threshold=0.0)


def _normal(labels: Sequence[str]) -> list[str]:
    return [unicodedata.normalize("NFC", label) for label in labels]


def _what_was_kept(start: InputContract, now: InputContract) -> str:
    known = set(_normal(start.labels))
    new = [label for label in _normal(now.labels) if label not in known]
    if not new:
        return f"--init: the head's rows of all {len(now.labels)} classes are kept, by their names"
    names = ", ".join(new[:8]) + (f" and {len(new) - 8} more" if len(new) > 8 else "")
    kept = len(now.labels) - len(new)
    return f"--init: the head's rows of {kept} of {len(now.labels)} classes are kept, by their names; new: {names}"


def _differences(start: InputContract, now: InputContract) -> list[str]:
    """Of what a picture goes through; mean, std, filter and the crop's share are always the start's."""
    return [
        f"--init: the start was trained with {name} {getattr(start, name)}, this run with {getattr(now, name)}"
        for name in ("size", "resize")
        if getattr(start, name) != getattr(now, name)
    ]
