"""Where an artifact parts from its program, for the terminal."""

from __future__ import annotations

import math

from rich.console import Console
from rich.table import Table

from lavit_edge.cli import new_table
from lavit_edge.parity.locate import Layer, Located


def sentence(result: Located, reference: str) -> str:
    """What was found, in one sentence.

    Args:
        reference: what the artifact was compared with, such as ``int8 program``.
    """
    if not result.layers:
        return f"{result.artifact}: not looked into"
    first = result.first
    if first is None:
        return f"{result.artifact} ({result.runtime}): none of {len(result.layers)} layers parts from the {reference}"
    bad = sum(layer.bad for layer in result.layers)
    more = f", and {bad - 1} more of {len(result.layers)} layers do" if bad > 1 else ""
    return (
        f"{result.artifact} ({result.runtime}): parts from the {reference} in block {first.block}, "
        f"at {first.op} of {first.layer}: {decibels(first.sqnr_db)} dB, up to {first.steps:.4g} steps{scales(first)}{more}"
    )


def print_located(results: list[Located], reference: str, console: Console) -> None:
    """Each artifact's blocks, the layers of its first bad block, and the sentences."""
    for result in results:
        if result.blocks:
            console.print(_blocks(result))
        if result.first:
            console.print(_layers(result, result.first.block))
    for result in results:
        colour = "green" if result.layers and not result.first else "red" if result.first else "yellow"
        console.print(sentence(result, reference), style=colour, highlight=False)
        for note in result.notes:
            console.print(f"  {result.artifact}: {note}", highlight=False)


def decibels(value: float) -> str:
    return "equal" if value == math.inf else f"{value:.1f}"


def scales(layer: Layer) -> str:
    """Says so where the stored scale is another."""
    if layer.scale is None or layer.stored_scale is None or abs(layer.stored_scale / layer.scale - 1) < 1e-3:
        return ""
    return f" (scale {layer.stored_scale:.6g}, in the program {layer.scale:.6g})"


def _blocks(result: Located) -> Table:
    caption = "dB alone: what the block adds by itself; so far: with all that has gathered; steps: int8 steps of the worst layer"
    title = f"{result.artifact}, {result.runtime}: {result.pictures} pictures"
    table = new_table("block", figures=("alone", "so far", "steps"), title=title, caption=caption)
    table.add_column("worst layer", overflow="fold")
    for block in result.blocks:
        inside = [layer for layer in result.layers if layer.block == block.block]
        worst = max(inside, key=lambda layer: (layer.bad, layer.rms_steps))
        name = f"{worst.op} {worst.layer.removeprefix(block.block).removeprefix('.')}".strip()
        cells = (decibels(block.alone_db), decibels(block.so_far_db), f"{worst.steps:.2f}", name)
        table.add_row(block.block, *cells, style="red" if block.bad else "")
    return table


def _layers(result: Located, block: str) -> Table:
    title = f"{result.artifact}: layers of {block}, each given what the artifact's was given"
    table = new_table("layer", "operator", figures=("dB", "steps", "rms"), title=title)
    for layer in (layer for layer in result.layers if layer.block == block):
        name = layer.layer.removeprefix(block).removeprefix(".")
        cells = (layer.op + scales(layer), decibels(layer.sqnr_db), f"{layer.steps:.2f}", f"{layer.rms_steps:.2f}")
        table.add_row(name, *cells, style="red" if layer.bad else "")
    return table
