"""What every command shares: options from a config dataclass, one line per user's mistake, names as they are, and exit codes.

Exit codes: 0 done, 1 a gate failed, 2 the user can mend it (one line on stderr says how), 70 a fault of ours (sysexits.h's
EX_SOFTWARE; with a traceback), 130 interrupted, 141 nobody reads the output any more (as of SIGPIPE).
"""

from __future__ import annotations

import argparse
import dataclasses
import io
import os
import sys
import traceback
from collections.abc import Callable, Sequence
from types import NoneType, UnionType
from typing import TYPE_CHECKING, Any, Literal, NoReturn, TypeVar, get_args, get_origin, get_type_hints

from lavit_edge.errors import UserError, not_installed, one_line

if TYPE_CHECKING:
    from rich.console import Console
    from rich.table import Table

T = TypeVar("T")
NARROW: dict[str, Any] = {"padding": (0, 1, 0, 0), "pad_edge": False, "show_edge": False}  # of a table with many figures


class Parser(argparse.ArgumentParser):
    """argparse with defaults in the help and one line, not the whole usage, on a mistake."""

    def __init__(self, *, prog: str, description: str) -> None:
        super().__init__(
            prog=f"python -m {prog}", description=description, formatter_class=argparse.ArgumentDefaultsHelpFormatter
        )

    def error(self, message: str) -> NoReturn:
        print(f"error: {one_line(message)} (--help lists the options)", file=sys.stderr)
        raise SystemExit(2)


def option(default: Any, help: str, metavar: str | None = None) -> Any:
    """A field of a config dataclass that is an option of a command, too."""
    return dataclasses.field(default=default, metadata={"help": help, "metavar": metavar})


def trust_option() -> Any:
    """The field of every config whose verb loads a checkpoint."""
    return option(False, "let the checkpoint of another package's model import the function that builds it, which runs code")


def add_options(parser: argparse.ArgumentParser, config: type, help: str | None = None) -> None:
    """``--its-name`` for each field that :func:`option` made; or for every field of ``config``, with the one ``help`` for all."""
    hints = get_type_hints(config)
    for field in dataclasses.fields(config):
        if field.metadata or help:
            parser.add_argument(
                f"--{field.name.replace('_', '-')}",
                default=field.default,
                help=field.metadata.get("help", help),
                **_kind(hints[field.name], field.metadata.get("metavar")),
            )


def _kind(hint: Any, metavar: str | None) -> dict[str, Any]:
    """What argparse calls a field's type."""
    if isinstance(hint, UnionType):
        (hint,) = (part for part in get_args(hint) if part is not NoneType)
    if hint is bool:
        return {"action": "store_true"}
    if get_origin(hint) is Literal:
        return {"choices": get_args(hint)}
    if get_origin(hint) is tuple:
        (of_each, *_) = get_args(hint)
        kind = get_args(of_each)[0] if isinstance(of_each, UnionType) else of_each
        return {"nargs": "+", "type": kind, "metavar": metavar}
    return {"type": hint, "metavar": metavar}


def check_choices(config: Any) -> None:
    """Raises :class:`UserError` unless each ``Literal`` field of a config has one of its values."""
    for name, hint in get_type_hints(type(config)).items():
        if get_origin(hint) is Literal and getattr(config, name) not in get_args(hint):
            raise UserError(f"--{name.replace('_', '-')} must be {' or '.join(get_args(hint))}, not {getattr(config, name)!r}")


def config_from(config: type[T], args: argparse.Namespace, **others: Any) -> T:
    """The config that the options of :func:`add_options` ask for; ``others`` are fields that are no such option.

    Raises:
        UserError: the config refuses a value.
    """
    names = [field.name for field in dataclasses.fields(config) if field.name not in others]  # type: ignore[arg-type]
    values = {name: getattr(args, name) for name in names}
    return config(**{name: tuple(value) if isinstance(value, list) else value for name, value in values.items()}, **others)


def new_console(*, stderr: bool = False, quiet: bool = False) -> Console:
    """A console of Rich's to which names are text: a folder ``[red]`` or ``:bug:`` is no markup. Colours come from styles."""
    from rich.console import Console

    return Console(stderr=stderr, quiet=quiet, markup=False, emoji=False)


def new_table(*names: str, figures: Sequence[str] = (), title: str = "", **options: Any) -> Table:
    """A table of Rich's in which nothing that tells rows apart is cut: names fold over lines, and figures, to their right, stay
    whole; the heads of those break at their first space. ``options`` are Rich's; ``**NARROW`` leaves room for many figures."""
    from rich.table import Table

    table = Table(title=title or None, **options)
    for name in names:
        table.add_column(name, overflow="fold")
    for figure in figures:
        table.add_column(figure.replace(" ", "\n", 1), justify="right", no_wrap=True)
    return table


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
    except Exception as error:
        absent = not_installed(error) if isinstance(error, ModuleNotFoundError) else None
        if absent:
            print(f"error: {absent}", file=sys.stderr)
        else:
            traceback.print_exc()
        code = 2 if absent else 70
    raise SystemExit(code)
