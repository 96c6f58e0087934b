"""Model registry: a name and its arguments become a :class:`Classifier`."""

from __future__ import annotations

import difflib
from collections.abc import Callable
from typing import Any

from lavit_edge.errors import UserError
from lavit_edge.models.classifier import Classifier

_BUILDERS: dict[str, Callable[..., Classifier]] = {}
REMOVED = {"lavit_nano": "0.1.0"}  # model -> the last version of lavit-edge that has it


def register(builder: Callable[..., Classifier]) -> Callable[..., Classifier]:
    """Registers ``builder`` under its function name."""
    _BUILDERS[builder.__name__] = builder
    return builder


def list_models() -> list[str]:
    """Names accepted by :func:`create_model`, sorted."""
    return sorted(_BUILDERS)


def create_model(name: str, *, num_classes: int = 1000, image_size: int = 224, **options: Any) -> Classifier:
    """Builds a randomly initialised model.

    Args:
        name: one of :func:`list_models`.
        num_classes: width of the classifier head.
        image_size: side of the square input in pixels; a multiple of 32. It is fixed for the life of the model, because
            position embeddings, windows, masks and LaViT's Theta and Psi belong to the grid of tokens.
        options: overrides of the variant's own numbers (``sr_ratios``, ``num_vanilla``, ``attention_residual``, ...).

    Returns:
        A module that maps ``(B, 3, image_size, image_size)`` normalised RGB to ``(B, num_classes)`` logits.

    Raises:
        UserError: the name, the size or an option is not known or does not fit.
    """
    if name in REMOVED:
        raise UserError(f"this version has no {name!r} any more; lavit-edge {REMOVED[name]} reads its checkpoints")
    if name not in _BUILDERS:
        near = difflib.get_close_matches(name, _BUILDERS, n=1)
        hint = f"did you mean {near[0]!r}?" if near else f"known models: {', '.join(list_models())}"
        raise UserError(f"unknown model {name!r}; {hint}")
    if num_classes < 1:
        raise UserError(f"num_classes must be at least 1, not {num_classes}")
    if image_size < 32 or image_size % 32:
        raise UserError(f"image_size must be a positive multiple of 32, not {image_size}")
    try:
        return _BUILDERS[name](num_classes=num_classes, image_size=image_size, **options)
    except (TypeError, ValueError, RuntimeError, OverflowError, ZeroDivisionError) as error:
        raise UserError(f"{name}: {error}") from error
