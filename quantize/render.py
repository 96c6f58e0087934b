"""What quantising found, as tables on the terminal and as the model card's section; both read ``config["quantization"]``."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from rich.console import Console

from lavit_edge.checkpoint import CARD, Checkpoint
from lavit_edge.cli import new_console, new_table
from lavit_edge.contract.decision import Decision

ROWS = {"fp32": "fp32", "int8": "int8, default float layers", "ptq": "int8, PTQ", "qat": "int8, QAT"}
ALONE = "alone in int8, all else in float"


def card(checkpoint: Checkpoint, facts: dict[str, Any]) -> str:
    """The fp32 model card with a section on the int8 form."""
    file = checkpoint.path / CARD
    text = file.read_text(encoding="utf-8").split("\n## int8\n")[0].rstrip() if file.is_file() else "# Model card"
    origin = "of the free ones that ship with lavit-edge, whose classes are not the model's " if facts["free_pictures"] else ""
    lines = [
        "",
        "## int8",
        "",
        f"Kept: **{facts['kept'].upper()}**. Judged on {facts['val_pictures']} validation pictures; calibrated on "
        f"{len(facts['calibration'])} training pictures {origin}(`config.json` lists them). "
        "SQNR is that of the logits against fp32.",
        "",
        *_markdown(("model", "top-1", "SQNR"), _rows(facts["metrics"])),
        "",
        *([Decision(**facts["decision"]).sentence(), ""] if facts["decision"] else []),
        *[f"- {name}: {value}" for name, value in facts["scheme"].items()],
        "",
        *_markdown(("in float", "", "why"), _in_float(facts)),
        "",
    ]
    if found := facts["sensitivity"]:
        lines += ["### Sensitivity", "", verdict(found, facts["kept"]), ""]
        lines += [*_markdown(("on those pictures", "top-1", "SQNR"), _rows(found["metrics"])), ""]
        for kind in ("blocks", "layers"):
            if found[kind]:
                lines += [*_markdown((f"{kind[:-1]} {ALONE}", "top-1", "SQNR", "kept in float"), _sensitivity(found, kind)), ""]
    return text + "\n" + "\n".join(lines)


def verdict(found: dict[str, Any], row: str) -> str:
    """What ``--max-drop`` came to, in a sentence or two: of the form that was kept, ``row`` of the metrics."""
    pictures, allowed = found["pictures"], found["allowed"]
    limit = f"`--max-drop {found['max_drop']:g}` allows a loss of {allowed} of {pictures} held-out training pictures"
    if found["min_sqnr"] is not None:
        limit += f", `--min-sqnr {found['min_sqnr']:g}` wants that many dB"
    top1 = {row: figures["top1"] for row, figures in found["metrics"].items()}
    lost = {row: max(0, round((top1["fp32"] - top1[row]) * pictures)) for row in top1}
    if not found["kept"]:
        return f"{limit}; {ROWS[row]}, loses {lost[row]}: no further layer becomes float."
    layers = ", ".join(f"`{path}`" for path in found["kept"])
    more = f"{len(found['kept'])} more layers in float: {layers}"
    return f"{limit}; int8 loses {lost['int8']}, and what is kept, {ROWS[row]}, {lost[row]} with {more}."


def show(result: dict[str, Any]) -> None:
    """The tables, and what was kept."""
    console = new_console()
    if found := result["sensitivity"]:
        for kind in ("blocks", "layers"):
            if found[kind]:
                columns = (kind[:-1], "top-1", "SQNR of the logits", "kept in float")
                _print(console, f"{ALONE}, on {found['pictures']} training pictures", columns, _sensitivity(found, kind))
        _print(console, "on the same", ("model", "top-1", "SQNR of the logits"), _rows(found["metrics"]))
        console.print(verdict(found, result["kept"]).replace("`", ""), soft_wrap=True)
    _print(console, "computed in float", ("layer or operator", "", "why"), _in_float(result))
    title = f"{result['val_pictures']} validation pictures"
    _print(console, title, ("model", "top-1", "SQNR of the logits"), _rows(result["metrics"]))
    if found:
        drop = 100 * (result["metrics"]["fp32"]["top1"] - result["metrics"][result["kept"]]["top1"])
        relation = "within" if drop <= found["max_drop"] else "MORE than"
        console.print(f"drop on val, which had no say: {drop:.2f} points, {relation} the limit of {found['max_drop']:g}")
    if "qat" in result["metrics"]:
        word = "beats PTQ and is kept" if result["kept"] == "qat" else "does not beat PTQ: PTQ is kept"
        console.print(f"QAT {word}{', judged on the held-out training pictures' if found else ''}")
    if result["decision"]:
        console.print(Decision(**result["decision"]).sentence(), soft_wrap=True)
    console.print(f"saved {result['out']}", soft_wrap=True)


def _in_float(facts: dict[str, Any]) -> Iterator[tuple[str, str, str]]:
    for each in facts["in_float"]:
        yield each["what"], f"{each['count']} times" if each["count"] > 1 else "", each["reason"]


def _rows(metrics: dict[str, dict[str, Any]]) -> Iterator[tuple[str, str, str]]:
    for row, figures in metrics.items():
        yield ROWS[row], *_figures(figures)


def _sensitivity(found: dict[str, Any], kind: str) -> Iterator[tuple[str, str, str, str]]:
    for path, figures in found[kind].items():
        kept = [layer for layer in found["kept"] if f"{layer}.".startswith(f"{path}.")]
        yield path, *_figures(figures), "" if not kept else "yes" if kept == [path] else f"{len(kept)} layers"


def _figures(figures: dict[str, Any]) -> tuple[str, str]:
    sqnr, top1 = figures["sqnr_db"], figures["top1"]
    return "not measured" if top1 is None else f"{100 * top1:.2f} %", "" if sqnr is None else f"{sqnr:.1f} dB"


def _markdown(columns: tuple[str, ...], rows: Iterator[tuple[str, ...]]) -> list[str]:
    return [f"| {' | '.join(row)} |" for row in (columns, ("---",) * len(columns), *rows)]


def _print(console: Console, title: str, columns: tuple[str, ...], rows: Iterator[tuple[str, ...]]) -> None:
    table = new_table(*columns, title=title)
    for column in table.columns[1:3]:
        column.justify = "right"
    for row in rows:
        table.add_row(*row)
    console.print(table)
