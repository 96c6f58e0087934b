"""``python -m lavit_edge.evaluate``: how often a model is right on labelled pictures, where it errs, and how well it knows.

Exit codes: 0 judged on every picture; 1 some could not be read, and it was judged on the others; 2 a mistake that one line on
stderr explains; 130 interrupted.

The module can be called: it is :func:`evaluate`.
"""

from __future__ import annotations

import argparse
import json
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from lavit_edge.cli import Parser, add_options, config_from, new_console, option, run_command, trust_option
from lavit_edge.errors import UserError
from lavit_edge.verbs import silent, verb

if TYPE_CHECKING:
    from rich.console import Console

    from lavit_edge.see.judge import Compared, Judged

verb(__name__)


@dataclass(frozen=True)
class EvaluateConfig:
    """The options of ``python -m lavit_edge.evaluate``, whose ``--help`` says what each is.

    Raises:
        UserError: a value is out of range.
    """

    split: str = option("val", "folder of DATA that has the classes' folders")
    pictures: int | None = option(None, "judge on N pictures, evenly over the classes, instead of all", "N")
    worst: int = option(12, "how many of the worst mistakes, and of the pictures on which two models differ, are shown", "N")
    strict: bool = option(False, "refuse a picture that cannot be decoded instead of leaving it out")
    trust_builder: bool = trust_option()

    def __post_init__(self) -> None:
        if self.pictures is not None and self.pictures < 1:
            raise UserError(f"--pictures must be at least 1, not {self.pictures}")
        if self.worst < 0:
            raise UserError(f"--worst must be at least 0, not {self.worst}")


@dataclass(frozen=True)
class Evaluated:
    """
    Attributes:
        models: one or two, judged on the same pictures.
        compared: the two; None where there is one.
        unreadable: a line for each picture that could not be decoded; it names the file.
    """

    models: tuple[Judged, ...]
    compared: Compared | None
    unreadable: tuple[str, ...]

    @property
    def passed(self) -> bool:
        """Whether every picture could be read."""
        return not self.unreadable

    def to_dict(self, worst: int = 12) -> dict[str, Any]:
        """Plain JSON values, with so many of the worst mistakes, and all pictures on which two models differ."""
        differing = (
            [] if self.compared is None else [[each.mistake(row) for each in self.models] for row in self.compared.differing]
        )
        return {
            "pictures": len(self.models[0].pictures),
            "models": [each.to_dict(worst) for each in self.models],
            "compared": self.compared and {**self.compared.to_dict(), "differing": differing},
            "unreadable": list(self.unreadable),
        }


def evaluate(
    model: Path | str,
    data: Path | str,
    config: EvaluateConfig | None = None,
    *,
    second: Path | str | None = None,
    console: Console | None = None,
) -> Evaluated:
    """Judges a model on labelled pictures: the command ``python -m lavit_edge.evaluate``.

    Args:
        model: an artifact, a bundle's folder, a checkpoint's folder or the name of a bundled one; ``NAME@float`` is the fp32 form
            of a checkpoint that has one in int8.
        data: a folder with ``val/<class>/``.
        second: another with the same labels, to set beside it.
        console: shows progress; None: nothing is shown.

    Raises:
        UserError: no such model or pictures, classes that are not the model's, or what runs the model is not installed.
    """
    from lavit_edge.data.folder import PictureFolder
    from lavit_edge.see.judge import compare, judge
    from lavit_edge.see.source import open_source

    config, console = config or EvaluateConfig(), console or silent()
    sources = [open_source(each, config.trust_builder) for each in (model, second) if each is not None]
    folder = PictureFolder(data, config.split, sources[0].contract.labels)
    if config.pictures is not None:
        folder.spread(config.pictures)
    for source in sources:
        if source.note:
            console.print(source.note, highlight=False, soft_wrap=True)
    judged, unreadable = judge(sources, folder, config.strict, console)
    return Evaluated(tuple(judged), compare(*judged) if second is not None else None, unreadable)


def parser() -> argparse.ArgumentParser:
    p = Parser(prog="lavit_edge.evaluate", description="Judge a model, or two side by side, on labelled pictures.")
    kinds = "an artifact, a bundle, a checkpoint, or a bundled checkpoint's name; NAME@float: its fp32 form"
    p.add_argument("model", help=kinds)
    p.add_argument("second", nargs="?", help="another one, to set beside it")
    p.add_argument("--data", type=Path, required=True, metavar="DIR", help="folder with val/<class>/")
    add_options(p, EvaluateConfig)
    p.add_argument("--html", type=Path, help="also write a page with plots and the worst mistakes to this file")
    p.add_argument("--json", action="store_true", help="print the result as JSON")
    return p


def main(argv: list[str] | None = None) -> int:
    args = parser().parse_args(argv)
    config, stderr = config_from(EvaluateConfig, args), new_console(stderr=True)
    found = evaluate(args.model, args.data, config, second=args.second, console=stderr)
    if args.html:
        from lavit_edge.files import staged
        from lavit_edge.see.page import judged_page

        with staged(args.html) as file:
            file.write_text(judged_page(found.models, found.compared, found.unreadable, config.worst), encoding="utf-8")
    if args.json:
        print(json.dumps(found.to_dict(config.worst), indent=1))
    else:
        from lavit_edge.see.render import print_judged

        print_judged(found.models, found.compared, config.worst, new_console())
    for line in found.unreadable:
        stderr.print(f"not read: {line}", highlight=False, soft_wrap=True)
    if args.html:
        stderr.print(f"page: {args.html}", highlight=False, soft_wrap=True)
    return 0 if found.passed else 1


if __name__ == "__main__":
    run_command(main)
