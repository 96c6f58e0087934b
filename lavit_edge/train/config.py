"""How a training is run, as data: what does not decide its result. What does is the recipe."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from lavit_edge.cli import check_choices, option, trust_option
from lavit_edge.errors import UserError


@dataclass(frozen=True)
class TrainConfig:
    """The options of ``python -m lavit_edge.train``, by the same names; its ``--help`` says what each is.

    Raises:
        UserError: a value is out of range.
    """

    init: tuple[str | Path, ...] = option(
        (), "start from this (a folder, or a bundled one's name), or from the mean weights of several; another size or other "
        "classes are fine", "CHECKPOINT",
    )  # fmt: skip
    device: str = option("auto", "auto, cpu, cuda")
    precision: Literal["auto", "bf16", "fp32"] = option("auto", "autocast type; auto: bf16 where the device has kernels for it")
    compile: bool = option(False, "compile the model with torch.compile: minutes at the start, then faster")
    workers: int = option(2, "processes that decode and augment, for each training process")
    threads: int | None = option(None, "of each process on a CPU (default: OMP_NUM_THREADS, else what is fastest here)")
    cache: Path | None = option(None, "decode the training pictures once, into this .npy file (in a folder: train.npy); faster")
    answers_right: float = option(95.0, "in per cent, of those at the threshold below which the model is not sure", "PERCENT")
    save_minutes: float | None = option(None, "also save in the middle of an epoch, this often")
    tensorboard: bool = option(False, "also write the figures of each epoch for TensorBoard, into OUT/tensorboard")
    strict: bool = option(False, "refuse a picture that cannot be decoded instead of skipping it")
    resume: bool = option(False, "continue the run in --out")
    trust_builder: bool = trust_option()

    def computes_in(self, kind: str) -> Literal["bf16", "fp32"]:
        """On a device of ``torch.device.type`` ``kind``."""
        if self.precision != "auto":
            return self.precision
        from lavit_edge.train.bf16 import quick_in_bf16  # here, so that --help needs no torch

        return "bf16" if quick_in_bf16(kind) else "fp32"

    def __post_init__(self) -> None:
        check_choices(self)
        if self.workers < 0:
            raise UserError(f"--workers must be at least 0, not {self.workers}")
        if not 0 < self.answers_right <= 100:
            raise UserError(f"--answers-right is in per cent, over 0 and at most 100, not {self.answers_right:g}")
        if self.threads is not None and self.threads < 1:
            raise UserError(f"--threads must be at least 1, not {self.threads}")
