"""How a checkpoint is quantised, as data: the options of the command, and their limits."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from lavit_edge.cli import check_choices, option, trust_option
from lavit_edge.errors import UserError


@dataclass(frozen=True)
class QuantizeConfig:
    """The options of ``python -m lavit_edge.quantize``, by the same names; its ``--help`` says what each is.

    Raises:
        UserError: a value is out of range.
    """

    epochs: int = option(1, "of quantisation-aware training; 0 stops after calibration")
    max_steps: int | None = option(None, "end that training after N batches at the latest", "N")
    batch_size: int = option(8, "pictures a batch in training", "N")
    lr: float = option(1e-5, "learning rate of the weights")
    range_lr: float = option(1e-3, "of each range, as a share of the range", "LR")
    freeze_ranges: float = option(1.0, "of the training, after which ranges stay", "SHARE")
    no_teacher: bool = option(False, "train for the labels instead of the fp32 model's logits")
    calibration_pictures: int = option(128, "of train/, evenly over the classes", "N")
    float_layers: tuple[str, ...] = option((), "stay float too, such as '*.attention.query'", "PATTERN")
    max_drop: float | None = option(None, "of top-1 against fp32: keep in float what it takes", "POINTS")
    min_sqnr: float | None = option(None, "of the logits, before QAT: the same, besides --max-drop", "DB")
    judging_pictures: int = option(512, "of train/, held out, that judge --max-drop", "N")
    limit_val: int | None = option(None, "judge on N pictures of val/, evenly over the classes", "N")
    device: Literal["cpu", "cuda"] = option("cpu", "to train and judge on; calibration is on the CPU")
    answers_right: float = option(95.0, "in per cent, of those at the threshold below which the model is not sure", "PERCENT")
    seed: int = option(0, "of the order and mirroring of training pictures")
    trust_builder: bool = trust_option()

    def __post_init__(self) -> None:
        check_choices(self)
        for name in ("calibration_pictures", "judging_pictures", "batch_size", "limit_val", "max_steps"):
            if getattr(self, name) is not None and getattr(self, name) < 1:
                raise UserError(f"--{name.replace('_', '-')} must be at least 1")
        if self.epochs < 0 or not (self.lr > 0 and self.range_lr > 0):
            raise UserError("--epochs must not be negative, --lr and --range-lr must be positive")
        if not 0 <= self.freeze_ranges <= 1:
            raise UserError("--freeze-ranges is a share of the training, from 0 to 1")
        if not 0 < self.answers_right <= 100:
            raise UserError("--answers-right is in per cent, over 0 and at most 100")
        if self.max_drop is not None and not 0 <= self.max_drop <= 100:
            raise UserError("--max-drop is in points of top-1, from 0 to 100")
        if self.min_sqnr is not None and (self.max_drop is None or not self.min_sqnr <= 200):
            raise UserError("--min-sqnr is in dB, at most 200, and goes with --max-drop")
