"""The gates as options of a command."""

from __future__ import annotations

import argparse
import dataclasses

from lavit_edge.parity.agreement import Gates


def add_gates(parser: argparse.ArgumentParser) -> None:
    """One option per field of :class:`lavit_edge.parity.agreement.Gates`."""
    for field in dataclasses.fields(Gates):
        parser.add_argument(
            f"--{field.name.replace('_', '-')}", type=float, default=field.default, help="gate, see docs/parity.md"
        )


def gates_from(args: argparse.Namespace) -> Gates:
    """The gates that the options of :func:`add_gates` ask for."""
    return Gates(**{field.name: getattr(args, field.name) for field in dataclasses.fields(Gates)})
