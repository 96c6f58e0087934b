"""What "less attention" buys on a device: the phone-sized architectures beside each other, trained alike, in one run.

    python -m lavit_edge.train --recipe less_attention --model NAME --data IMAGENETTE --out runs/NAME --precision fp32
    python -m lavit_edge.quantize --checkpoint runs/NAME/checkpoint --data IMAGENETTE --out int8/NAME --max-steps 60 \
        --batch-size 32
    python -m lavit_edge.export --checkpoint int8/NAME --data IMAGENETTE --out bundles/NAME-int8
    python -m lavit_edge.export --checkpoint int8/NAME --data IMAGENETTE --out bundles/NAME-float --precision float
    python benchmarks/less_attention.py --bundles bundles --out docs/less_attention

for every NAME_nano of lavit_edge.list_models(). Three tables, each with a plot: the trained models, from their bundles; cost by
resolution; and blocks of less attention beside the vanilla attention that they replace. The last two have random weights.
Artifacts are timed in turns (artifacts.py): medians, and on one thread processor time. Needs lavit-edge[all,bench].
"""

from __future__ import annotations

import argparse
import gc
import importlib.util
import math
import os
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import torch
from artifacts import SUFFIXES, Row, measure
from attention_cost import FORMS, PRECISIONS, REPEATED, RUNTIMES, SIZES, STAGES, by_block, by_resolution
from int8_vs_fp32 import file_bytes
from less_attention_plots import plot_blocks, plot_models, plot_resolution
from rich.console import Console
from tables import Lines, markdown, show

from lavit_edge import create_model, list_models
from lavit_edge.cli import run_command
from lavit_edge.errors import UserError
from lavit_edge.files import read_json
from lavit_edge.metrics import wilson
from lavit_edge.parity.agreement import PROGRAM

NANO = [name for name in list_models() if name.endswith("_nano")]


@dataclass
class Trained:
    """A model's int8 bundle and, beside it, its float bundle.

    Attributes:
        top1: ``fp32`` and ``int8`` -> share right, and the Wilson interval's ends.
        agreement, sqnr: the least of all artifacts' with the int8 program, on labelled pictures; same top-1, dB of the logits.
        int8_sqnr: of the int8 program's logits against fp32, in dB.
        delegated, breaks: of the ``.pte``: share of the multiply-adds in the delegate, and how often execution leaves it.
        megabytes: suffix -> of the int8 artifact, and of the float one.
        rows: the artifacts to time.
    """

    name: str
    pixels: int
    parameters: int
    macs: int
    top1: dict[str, tuple[float, float, float]]
    agreement: float
    sqnr: float
    int8_sqnr: float
    gates: bool
    delegated: float
    breaks: int
    megabytes: dict[str, tuple[float, float]]
    rows: list[Row]


def read_bundles(folder: Path) -> list[Trained]:
    """All models of ``folder`` that have a bundle of each precision.

    Raises:
        UserError: none has.
    """
    found: dict[str, dict[str, Path]] = {}
    for manifest in sorted(folder.glob("*/manifest.json")):
        facts = read_json(manifest)
        found.setdefault(facts["model"]["name"], {})[facts["precision"]] = manifest.parent
    models = [read_pair(name, pair["int8"], pair["float"]) for name, pair in found.items() if len(pair) == 2]
    if not models:
        raise UserError(
            f"{folder} has no model with a bundle of each precision; the first lines of this script say how to make them"
        )
    return models


def read_pair(name: str, int8: Path, floating: Path) -> Trained:
    manifest, parity, verdict = (read_json(int8 / f"{part}.json") for part in ("manifest", "parity", "verdict"))
    pixels, classes = manifest["contract"]["size"], len(manifest["contract"]["labels"])
    with torch.device("meta"):
        model = create_model(name, num_classes=classes, image_size=pixels, **manifest["model"].get("options", {}))
    judged = next((part for part in parity["sets"].values() if part["labelled"]), None)
    if judged is None or "model.pte" not in verdict:
        raise UserError(f"{int8} lacks a target or labelled pictures; export it with --data and all targets")
    pairs = [pair for pair in judged["pairs"] if pair["row"] == PROGRAM and pair["column"].startswith("model.")]
    quantised = manifest["quantization"]
    kept, pictures = quantised["metrics"][quantised["kept"]], quantised["val_pictures"]
    delegate = next(iter(verdict["model.pte"].values()))
    rows = []
    for runtime, precision in ((runtime, precision) for runtime in RUNTIMES for precision in PRECISIONS):
        path = (int8 if precision == "int8" else floating) / f"model{SUFFIXES[runtime]}"
        rows.append(Row(name, pixels, precision, runtime, path=path, megabytes=megabytes(path)))
    return Trained(
        name,
        pixels,
        sum(parameter.numel() for parameter in model.parameters()),
        delegate["macs"],
        {key: interval(figures["top1"], pictures) for key, figures in (("fp32", quantised["metrics"]["fp32"]), ("int8", kept))},
        min(pair["agreement"] for pair in pairs),
        min((pair["sqnr_db"] for pair in pairs if pair["sqnr_db"] is not None), default=math.inf),  # None: equal to the bit
        kept["sqnr_db"],
        parity["passed"],
        delegate["delegated_macs"],
        delegate["breaks"],
        {
            suffix: (megabytes(int8 / f"model{suffix}"), megabytes(floating / f"model{suffix}"))
            for suffix in (".pte", ".onnx", ".mlpackage")
        },
        rows,
    )


def interval(share: float, pictures: int) -> tuple[float, float, float]:
    return (share, *wilson(round(share * pictures), pictures))


def megabytes(path: Path) -> float:
    return file_bytes(path) / 1e6


def model_tables(models: Sequence[Trained], threads: Sequence[int]) -> Iterator[tuple[str, Lines]]:
    """What each is worth, and what it costs."""
    head = ["model", "top-1 fp32, %", "top-1 int8, %", "SQNR of int8, dB", "artifacts: same top-1, %", "SQNR, dB", "gates"]
    lines = [head]
    for model in models:
        top1 = [f"{100 * s:.1f} ({100 * low:.1f} to {100 * high:.1f})" for s, low, high in model.top1.values()]
        artifacts = [f"{100 * model.agreement:.1f}", f"{model.sqnr:.1f}", "passed" if model.gates else "failed"]
        lines.append([model.name, *top1, f"{model.int8_sqnr:.1f}", *artifacts])
    yield "Trained alike", lines
    head = ["model", "params, M", "MMAC", *(f"{s}, MB int8/float" for s in models[0].megabytes), "delegated, %", "breaks"]
    lines = [head]
    for model in models:
        sizes = [f"{a:.2f}/{b:.2f}" for a, b in model.megabytes.values()]
        shares = [f"{100 * model.delegated:.1f}", str(model.breaks)]
        lines.append([model.name, f"{model.parameters / 1e6:.2f}", f"{model.macs / 1e6:.0f}", *sizes, *shares])
    yield f"Size, at {models[0].pixels} pixels; share of the int8 .pte that is delegated", lines
    cases = [(runtime, precision, count) for runtime in RUNTIMES for count in threads for precision in PRECISIONS]
    lines = [["model", *(f"{runtime} {precision}, {count} thr." for runtime, precision, count in cases)]]
    for model in models:
        times = {(row.runtime, row.precision): row for row in model.rows}
        lines.append([model.name, *(milliseconds(times[runtime, precision], count) for runtime, precision, count in cases)])
    yield f"Latency at {models[0].pixels} pixels, ms", lines


def resolution_table(rows: dict[int, list[Row]], threads: Sequence[int]) -> tuple[str, Lines]:
    sizes = list(rows)
    lines = [["model", "", *(f"{pixels} px" for pixels in sizes)]]
    for name in dict.fromkeys(row.model for row in rows[sizes[0]]):
        ours = {pixels: [row for row in rows[pixels] if row.model == name] for pixels in sizes}
        macs = [next((row.macs for row in ours[pixels] if row.macs), None) for pixels in sizes]
        lines.append([name, "MMAC", *(f"{count / 1e6:.0f}" if count else "-" for count in macs)])
        for index, first in enumerate(ours[sizes[0]]):
            for count in threads:
                times = [milliseconds(ours[pixels][index], count) for pixels in sizes]
                lines.append([name, f"{first.runtime} {first.precision}, {count} thr., ms", *times])
    return "Cost by resolution, 1000 classes", lines


Blocks = list[tuple[int, str, str, list[Row], list[Row]]]


def block_times(blocks: Blocks, threads: int) -> dict[tuple[int, str, str], dict[str, tuple[float, float]]]:
    """(size, stage, form) -> runtime and precision -> million multiply-adds and milliseconds of one block."""
    found: dict[tuple[int, str, str], dict[str, tuple[float, float]]] = {}
    for pixels, title, form, short, long in blocks:
        for one, many in zip(short, long, strict=True):
            if one.ms and many.ms and one.macs and many.macs:
                each = ((many.macs - one.macs) / 1e6 / REPEATED, (many.ms[threads] - one.ms[threads]) / REPEATED)
                found.setdefault((pixels, title, form), {})[f"{one.runtime} {one.precision}"] = each
    return found


def block_table(blocks: Blocks, threads: int) -> tuple[str, Lines]:
    times = block_times(blocks, threads)
    cases = [f"{runtime} {precision}" for runtime in RUNTIMES for precision in PRECISIONS]
    lines = [["stage", "px", "attention", "MMAC", *(f"{case}, ms" for case in cases)]]
    for (pixels, title, form), each in times.items():
        vanilla = times.get((pixels, title, FORMS[0]), {})
        cells = [f"{each[c][1]:.3f} ({each[c][1] / vanilla[c][1]:.2f})" if c in each and c in vanilla else "-" for c in cases]
        lines.append([title, str(pixels), form, f"{next(iter(each.values()))[0]:.1f}", *cells])
    return "One block, attention and FFN; in brackets to vanilla attention", lines


def milliseconds(row: Row, threads: int) -> str:
    return f"{row.ms[threads]:.2f}" if row.ms and threads in row.ms else "-"


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--bundles", type=Path, help="folder of the trained models' bundles; without, no table of them")
    parser.add_argument("--models", nargs="+", default=NANO, choices=NANO, help="of the cost by resolution; default: all")
    parser.add_argument(
        "--sizes", nargs="*", type=int, default=list(SIZES), help="of the cost by resolution; default: %(default)s"
    )
    parser.add_argument("--block-sizes", nargs="*", type=int, default=[160, 224], help="of the blocks; default: %(default)s")
    parser.add_argument("--precisions", nargs="+", default=PRECISIONS, choices=PRECISIONS, help="of the cost by resolution")
    parser.add_argument("--work", type=Path, default=Path("less_attention"), help="folder of the artifacts; default: %(default)s")
    parser.add_argument("--threads", nargs="+", type=int, default=[1, 2], help="default: %(default)s")
    parser.add_argument("--rounds", type=int, default=20, help="blocks of 5 calls per artifact; default: %(default)s")
    parser.add_argument("--out", type=Path, help="folder for the plots and tables.md")
    arguments = parser.parse_args()
    if arguments.out and not importlib.util.find_spec("matplotlib"):
        raise UserError("--out draws with matplotlib, which is not installed; pip install matplotlib")
    if min(arguments.threads) < 1 or arguments.rounds < 1:
        raise UserError("--threads and --rounds are numbers from 1")
    console, threads = Console(width=170), arguments.threads
    torch.set_num_threads(1)
    models = read_bundles(arguments.bundles) if arguments.bundles else []
    arguments.work.mkdir(parents=True, exist_ok=True)
    gc.disable()  # lowering makes many objects and keeps them: a sixth of the doctor's time
    resolution = by_resolution(arguments.models, arguments.sizes, arguments.precisions, arguments.work, console)
    blocks = by_block(arguments.block_sizes, arguments.work, console)
    gc.enable()
    load = os.getloadavg()[0]
    tables: list[tuple[str, Lines]] = []
    if models:
        measure([row for model in models for row in model.rows], threads, arguments.rounds, console)
        tables += model_tables(models, threads)
    for same_size in resolution.values():
        measure(same_size, threads, arguments.rounds, console)
    if resolution:
        tables.append(resolution_table(resolution, threads))
    for pixels in arguments.block_sizes:  # all that are compared take turns with each other
        turns = {id(row): row for size, _, _, short, long in blocks if size == pixels for row in (*short, *long)}
        measure(list(turns.values()), threads[:1], arguments.rounds, console)
    if blocks:
        tables.append(block_table(blocks, threads[0]))
    for title, lines in tables:
        show(title, lines, console)
    rows = [row for row in everything(models, resolution, blocks) if row.failure]
    failed = {f"{row.model}, {row.pixels} px, {row.runtime} {row.precision}: {row.failure}" for row in rows}
    for line in sorted(failed):
        console.print(line, style="yellow", markup=False, highlight=False)
    console.print(f"load average {load:.1f} before, {os.getloadavg()[0]:.1f} after, on {os.cpu_count()} cores")
    if arguments.out:
        arguments.out.mkdir(parents=True, exist_ok=True)
        (arguments.out / "tables.md").write_text("\n".join(markdown(*table) for table in tables), encoding="utf-8")
        if models:
            plot_models(models, threads[0], arguments.out / "models.png")
        if resolution:
            plot_resolution(resolution, threads[0], arguments.out / "resolution.png")
        if blocks:
            plot_blocks(block_times(blocks, threads[0]), STAGES, arguments.out / "blocks.png")
    return 0


def everything(models: Sequence[Trained], resolution: dict[int, list[Row]], blocks: Blocks) -> Iterator[Row]:
    for model in models:
        yield from model.rows
    for rows in resolution.values():
        yield from rows
    for _, _, _, short, long in blocks:
        yield from (*short, *long)


if __name__ == "__main__":
    run_command(main)
