"""What every command shares: one line per user's mistake, names as they are, and documented exit codes.

Exit codes: 0 done, 1 a gate failed, 2 the user can mend it (one line on stderr says how), 70 a fault of ours (sysexits.h's
EX_SOFTWARE; with a traceback), 130 interrupted, 141 nobody reads the output any more (as of SIGPIPE).
"""

from __future__ import annotations

import argparse
import io
import os
import sys
import traceback
from collections.abc import Callable
from typing import TYPE_CHECKING, NoReturn

from lavit_edge.errors import UserError, one_line

if TYPE_CHECKING:
    from rich.console import Console


class Parser(argparse.ArgumentParser):
    """argparse with defaults in the help and one line, not the whole usage, on a mistake."""

    def __init__(self, *, prog: str, description: str) -> None:
        super().__init__(
            prog=f"python -m {prog}", description=description, formatter_class=argparse.ArgumentDefaultsHelpFormatter
        )

    def error(self, message: str) -> NoReturn:
        print(f"error: {one_line(message)} (--help lists the options)", file=sys.stderr)
        raise SystemExit(2)


def new_console(*, stderr: bool = False, quiet: bool = False) -> Console:
    """A console of Rich's to which names are text: a folder ``[red]`` or ``:bug:`` is no markup. Colours come from styles."""
    from rich.console import Console

    return Console(stderr=stderr, quiet=quiet, markup=False, emoji=False)


def run_command(main: Callable[[], int]) -> NoReturn:
    """Runs a command and exits with its code."""
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):  # names that the terminal's encoding lacks are escaped
            stream.reconfigure(errors="backslashreplace")
    try:
        code = main()
        sys.stdout.flush()  # here, where a full disk or a closed pipe has an exit code
    except UserError as error:
        print(f"error: {error}", file=sys.stderr)
        code = 2
    except KeyboardInterrupt:
        print("interrupted", file=sys.stderr)
        code = 130
    except BrokenPipeError:
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())  # or Python flushes into it once more at its end
        code = 141
    except (OSError, MemoryError) as error:  # a full disk, a folder without permission
        print(f"error: {one_line(str(error)) or 'out of memory'}", file=sys.stderr)
        code = 2
    except Exception:
        traceback.print_exc()
        code = 70
    raise SystemExit(code)
