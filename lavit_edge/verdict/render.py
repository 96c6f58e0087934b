"""The verdict as tables for the terminal."""

from __future__ import annotations

from rich.console import Console
from rich.text import Text

from lavit_edge.cli import new_table
from lavit_edge.verdict.judge import Verdict

COLOURS = {"faster": "green", "about equal": "yellow", "slower": "red"}
SHOWN = 0.005  # groups with a smaller share of everything are left out of the table


def print_verdict(name: str, verdict: Verdict, console: Console) -> None:
    """One table of figures, one of operators, and the sentence."""
    title = f"{name}: {verdict.precision}, {verdict.runtime}, {verdict.device}"
    figures = new_table("", figures=("",), title=title, show_header=False)
    for label, value in rows(verdict):
        figures.add_row(label, value)
    console.print(figures)
    heads = ("calls", "MACs %", "traffic %", "predicted time %")
    operators = new_table("operator", "runs in", figures=heads, title="operators")
    for group in verdict.groups:
        if max(group.macs, group.traffic, group.time) >= SHOWN:
            shares = (f"{100 * share:.1f}" for share in (group.macs, group.traffic, group.time))
            operators.add_row(group.name, group.place, str(group.calls), *shares)
    console.print(operators)
    for note in verdict.notes:
        console.print(note, highlight=False)
    console.print(verdict.sentence, style=COLOURS[verdict.expectation], highlight=False)


def print_summary(verdicts: dict[str, dict[str, Verdict]], console: Console) -> None:
    """One row for each distinct sentence of ``verdicts[artifact][device]``: the artifacts and devices that it holds for."""
    table = new_table("what to expect, what to change", title="int8 against float, predicted from the files (docs/verdict.md)")
    table.add_column("int8 /\nfloat", justify="right", no_wrap=True)
    for same in distinct(verdicts):
        told = Text.assemble((where(same), "bold"), "\n", same[0][2].sentence)
        table.add_row(told, Text(f"{same[0][2].ratio:.2f}", COLOURS[same[0][2].expectation]), end_section=True)
    console.print(table)
    if any(not verdict.verified for devices in verdicts.values() for verdict in devices.values()):
        console.print("*: never verified on such a device")


def distinct(verdicts: dict[str, dict[str, Verdict]]) -> list[list[tuple[str, str, Verdict]]]:
    """Artifact, device and verdict of ``verdicts[artifact][device]``, those with the same sentence together."""
    found: dict[str, list[tuple[str, str, Verdict]]] = {}
    for name, devices in verdicts.items():
        for device, verdict in devices.items():
            found.setdefault(verdict.sentence, []).append((name, device, verdict))
    return list(found.values())


def where(same: list[tuple[str, str, Verdict]]) -> str:
    """Artifacts with the same devices together; a star where that was never verified."""
    devices: dict[str, list[str]] = {}
    for name, device, verdict in same:
        devices.setdefault(name, []).append(device + "*" * (not verdict.verified))
    artifacts: dict[str, list[str]] = {}
    for name, each in devices.items():
        artifacts.setdefault(", ".join(each), []).append(name)
    return "; ".join(f"{', '.join(names)} on {each}" for each, names in artifacts.items())


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
