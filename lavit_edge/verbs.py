"""The verbs: packages and files that can be called, each the function of its own name.

``lavit_edge.quantize`` is a package that others import from, and a function that quantises. An import of the package sets it as
an attribute of ``lavit_edge``, over whatever was there; so the module itself is made callable, whoever came first.
"""

from __future__ import annotations

import io
import sys
from importlib import import_module
from types import ModuleType
from typing import TYPE_CHECKING, Any

from lavit_edge.errors import not_installed

if TYPE_CHECKING:
    from rich.console import Console


class Verb(ModuleType):
    """A module that hands a call on to the function of its name, whose file is imported by the first call."""

    home: str

    def __call__(self, *arguments: Any, **options: Any) -> Any:
        try:
            function = getattr(import_module(self.home), self.__name__.rpartition(".")[2])
            return function(*arguments, **options)
        except ModuleNotFoundError as error:
            if absent := not_installed(error):
                raise absent from error
            raise


def verb(module: str, home: str | None = None) -> None:
    """Makes a module, while it is imported, callable.

    Args:
        home: the module that has the function; None: itself.
    """
    found = sys.modules[module]
    found.__class__ = Verb
    found.home = home or module  # type: ignore[attr-defined]


def silent() -> Console:
    """The console of a verb that was given none: it shows nothing."""
    from rich.console import Console

    return Console(file=io.StringIO(), quiet=True)
