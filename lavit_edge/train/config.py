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
    precision: Literal["bf16", "fp32"] = option("bf16", "autocast type")
    compile: bool = option(False, "compile the model with torch.compile: minutes at the start, then faster")
    workers: int = option(2, "processes that decode and augment, for each training process")
    threads: int | None = option(None, "of each process on a CPU (default: OMP_NUM_THREADS, else what is fastest here)")
    cache: Path | None = option(None, "decode the training pictures once, into this .npy file (in a folder: train.npy); faster")
    save_minutes: float | None = option(None, "also save in the middle of an epoch, this often")
    strict: bool = option(False, "refuse a picture that cannot be decoded instead of skipping it")
    resume: bool = option(False, "continue the run in --out")
    trust_builder: bool = trust_option()

    def __post_init__(self) -> None:
        check_choices(self)
        if self.workers < 0:
            raise UserError(f"--workers must be at least 0, not {self.workers}")
        if self.threads is not None and self.threads < 1:
            raise UserError(f"--threads must be at least 1, not {self.threads}")
