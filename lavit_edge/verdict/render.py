"""The verdict as tables for the terminal."""

from __future__ import annotations

from rich.console import Console
from rich.table import Table
from rich.text import Text

from lavit_edge.verdict.judge import Verdict

COLOURS = {"faster": "green", "about equal": "yellow", "slower": "red"}
SHOWN = 0.005  # groups with a smaller share of everything are left out of the table


def print_verdict(name: str, verdict: Verdict, console: Console) -> None:
    """One table of figures, one of operators, and the sentence."""
    figures = Table(title=f"{name}: {verdict.precision}, {verdict.runtime}, {verdict.device}", show_header=False)
    figures.add_column()
    figures.add_column(justify="right")
    for label, value in rows(verdict):
        figures.add_row(label, value)
    console.print(figures)
    operators = Table("operator", "runs in", title="operators")
    for column in ("calls", "MACs %", "traffic %", "predicted time %"):
        operators.add_column(column, justify="right")
    for group in verdict.groups:
        if max(group.macs, group.traffic, group.time) >= SHOWN:
            shares = (f"{100 * share:.1f}" for share in (group.macs, group.traffic, group.time))
            operators.add_row(group.name, group.place, str(group.calls), *shares)
    console.print(operators)
    for note in verdict.notes:
        console.print(note, highlight=False)
    console.print(verdict.sentence, style=COLOURS[verdict.expectation], highlight=False)


def print_summary(verdicts: dict[str, dict[str, Verdict]], console: Console) -> None:
    """One row for each artifact and device: ``verdicts[artifact][device]``."""
    table = Table("artifact", "device", title="int8 against float, predicted from the files (docs/verdict.md)")
    table.add_column("int8 / float", justify="right")
    table.add_column("what to expect, what to change")
    for name, devices in verdicts.items():
        for device, verdict in devices.items():
            known = device if verdict.verified else f"{device}, never verified"
            ratio = Text(f"{verdict.ratio:.2f}", COLOURS[verdict.expectation])
            table.add_row(name, known, ratio, verdict.sentence)
        table.add_section()
    console.print(table)


def rows(verdict: Verdict) -> list[tuple[str, str]]:
    """Label and value of each figure."""
    table = [("multiply-adds of one picture", f"{verdict.macs / 1e6:.1f} M")]
    if verdict.delegated_macs is not None:
        table.append(("of them in the delegate", f"{100 * verdict.delegated_macs:.1f} %"))
        table.append(("times execution leaves and re-enters the delegate", str(verdict.breaks)))
    table.append(("multiply-adds in int8 kernels", f"{100 * verdict.int8_macs:.1f} %"))
    if verdict.precision == "int8":
        table.append(("float islands between int8 products", str(verdict.islands)))
        table += [(f"  {kinds}", str(count)) for kinds, count in list(verdict.island_kinds.items())[:4]]
    table.append(("predicted time that waits for memory", f"{100 * verdict.memory_bound:.0f} %"))
    table.append(("int8 / float, predicted", f"{verdict.ratio:.2f}"))
    return table
