"""What every command shares: one line per user's mistake, and documented exit codes.

Exit codes: 0 done, 1 a gate failed, 2 the user can mend it (one line on stderr says how), 130 interrupted.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Callable
from typing import NoReturn

from lavit_edge.errors import UserError, one_line


class Parser(argparse.ArgumentParser):
    """argparse with defaults in the help and one line, not the whole usage, on a mistake."""

    def __init__(self, *, prog: str, description: str) -> None:
        super().__init__(
            prog=f"python -m {prog}", description=description, formatter_class=argparse.ArgumentDefaultsHelpFormatter
        )

    def error(self, message: str) -> NoReturn:
        print(f"error: {one_line(message)} (--help lists the options)", file=sys.stderr)
        raise SystemExit(2)


def add_trust(parser: argparse.ArgumentParser) -> None:
    """The option of every command that loads a checkpoint."""
    parser.add_argument(
        "--trust-builder",
        action="store_true",
        help="let the checkpoint of another package's model import the function that builds it, which runs code",
    )


def run_command(main: Callable[[], int]) -> NoReturn:
    """Runs a command and exits with its code."""
    try:
        code = main()
    except UserError as error:
        print(f"error: {error}", file=sys.stderr)
        code = 2
    except KeyboardInterrupt:
        print("interrupted", file=sys.stderr)
        code = 130
    except BrokenPipeError:
        code = 0
    except (OSError, MemoryError) as error:  # a full disk, a folder without permission
        print(f"error: {one_line(str(error)) or 'out of memory'}", file=sys.stderr)
        code = 2
    raise SystemExit(code)
