"""What is exported and how it is checked, as data: the options of the command."""

from __future__ import annotations

import math
from dataclasses import dataclass, field, fields
from pathlib import Path
from typing import Literal

from lavit_edge.cli import check_choices, option, trust_option
from lavit_edge.errors import UserError
from lavit_edge.export.targets import ALL, TARGETS, Options, Target, find_target
from lavit_edge.parity.agreement import Gates


@dataclass(frozen=True)
class ExportConfig:
    """The options of ``python -m lavit_edge.export``, whose ``--help`` says what each is; and what it makes of several of them:

    Attributes:
        targets: names, ``--target``.
        options: of targets that shall not have their default ones, at most one for each, such as ``ExecutorchOptions("coreml")``.
        sign: an EC private key (PEM), see :mod:`lavit_edge.artifact.signing`.
        gates: what the artifacts must reach.

    Raises:
        UserError: no target or an unknown one, an option of a target that is left out, or a value out of range.
    """

    targets: tuple[str, ...] = ALL
    options: tuple[Options, ...] = ()
    precision: Literal["int8", "float"] = option("int8", "float: fp32, and fp16 for Core ML")
    data: Path | None = option(None, "also compare on DATA/val/<class>/ pictures")
    pictures: int = option(500, "how many of them")
    strict: bool = option(False, "refuse a picture that cannot be decoded instead of skipping it")
    tolerance_steps: float | None = option(
        None, "that the artifacts' self-test allows on every picture, instead of what is measured for each"
    )
    trust_builder: bool = trust_option()
    sign: Path | None = option(None, "sign the bundle with this EC private key (PEM)", "KEY")
    gates: Gates = field(default_factory=Gates)

    def __post_init__(self) -> None:
        check_choices(self)
        if not self.targets:
            raise UserError(f"no target; targets: {', '.join(TARGETS)}")
        names = [find_target(name).name for name in self.targets]
        for target in TARGETS.values():
            for options in self.options:
                if type(options) is target.options and target.name not in names:
                    key = f"--{fields(options)[0].name.replace('_', '-')}" if fields(options) else type(options).__name__
                    left_out = f"--target {' '.join(names)} leaves out"
                    raise UserError(f"{key} belongs to target {target.name}, which {left_out}")
        if self.pictures < 1:
            raise UserError(f"--pictures must be at least 1, not {self.pictures}")
        if self.tolerance_steps is not None and not 0 < self.tolerance_steps < math.inf:
            raise UserError(f"--tolerance-steps must be positive, not {self.tolerance_steps}")

    def of(self, target: Target) -> Options:
        """The options of a target."""
        return next((each for each in self.options if type(each) is target.options), target.options())
