"""``python -m lavit_edge.predict``: what a model says to pictures, with probabilities.

Exit codes: 0 every picture was answered; 1 some could not be read, the others were answered; 2 a mistake that one line on stderr
explains; 130 interrupted.

The module can be called: it is :func:`predict`.
"""

from __future__ import annotations

import argparse
import csv
import json
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from lavit_edge.cli import Parser, add_options, config_from, new_console, option, run_command, trust_option
from lavit_edge.errors import UserError
from lavit_edge.verbs import silent, verb

if TYPE_CHECKING:
    from rich.console import Console

    from lavit_edge.see.answers import Predicted

verb(__name__)


@dataclass(frozen=True)
class PredictConfig:
    """The options of ``python -m lavit_edge.predict``, whose ``--help`` says what each is.

    Raises:
        UserError: a value is out of range.
    """

    top: int = option(5, "how many labels of each picture", "N")
    trust_builder: bool = trust_option()

    def __post_init__(self) -> None:
        if self.top < 1:
            raise UserError(f"--top must be at least 1, not {self.top}")


def predict(
    model: Path | str,
    pictures: Path | str | Sequence[Path | str],
    config: PredictConfig | None = None,
    *,
    console: Console | None = None,
) -> Predicted:
    """Asks a model what pictures show: the command ``python -m lavit_edge.predict``.

    Args:
        model: an artifact, a bundle's folder, a checkpoint's folder or the name of a bundled one; ``NAME@float`` is the fp32 form
            of a checkpoint that has one in int8.
        pictures: a file, a folder with pictures in it or below it, or several of them.
        console: shows progress; None: nothing is shown.

    Returns:
        The answers, and which pictures could not be read.

    Raises:
        UserError: no such model or picture, or what runs the model is not installed.
    """
    from lavit_edge.see.answers import answer, find_pictures
    from lavit_edge.see.source import open_source

    config, console = config or PredictConfig(), console or silent()
    found = find_pictures([pictures] if isinstance(pictures, Path | str) else pictures)
    source = open_source(model, config.trust_builder)
    if source.note:
        console.print(source.note, highlight=False, soft_wrap=True)
    return answer(source, found, config.top, console)


def parser() -> argparse.ArgumentParser:
    p = Parser(prog="lavit_edge.predict", description="Say what a model sees in pictures, with probabilities.")
    p.add_argument("model", help="an artifact, a bundle, a checkpoint, or a bundled checkpoint's name; NAME@float: its fp32 form")
    p.add_argument("pictures", type=Path, nargs="+", help="pictures, or folders of them")
    add_options(p, PredictConfig)
    form = p.add_mutually_exclusive_group()
    form.add_argument("--json", action="store_true", help="print the answers as JSON")
    form.add_argument("--csv", action="store_true", help="print them as CSV: picture, rank, label, probability, sure")
    p.add_argument("--html", type=Path, help="also write a page with the pictures to this file")
    return p


def main(argv: list[str] | None = None) -> int:
    args = parser().parse_args(argv)
    stderr = new_console(stderr=True)
    found = predict(args.model, args.pictures, config_from(PredictConfig, args), console=stderr)
    if args.html:
        from lavit_edge.files import staged
        from lavit_edge.see.page import answers_page

        with staged(args.html) as file:
            file.write_text(answers_page(found), encoding="utf-8")
    if args.json:
        print(json.dumps(found.to_dict(), indent=1))
    elif args.csv:
        rows = csv.writer(sys.stdout, lineterminator="\n")
        rows.writerow(("picture", "rank", "label", "probability", "sure"))
        rows.writerows((*row[:3], f"{row[3]:.6f}", "yes" if row[4] else "no") for row in found.rows())
    else:
        from lavit_edge.see.render import print_answers

        print_answers(found, new_console())
    for line in found.unreadable:
        stderr.print(f"not read: {line}", highlight=False, soft_wrap=True)
    if args.html:
        stderr.print(f"page: {args.html}", highlight=False, soft_wrap=True)
    return 0 if found.passed else 1


if __name__ == "__main__":
    from lavit_edge.selftest import leave_out_what_reading_needs_not

    leave_out_what_reading_needs_not(*sys.argv[1:2])
    run_command(main)
