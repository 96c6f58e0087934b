"""Top-1 in int8 of the runs of benchmarks/trained_alike.py, as both runtimes compute it from their artifacts.

    OMP_NUM_THREADS=1 python benchmarks/trained_int8.py --runs runs --data IMAGENETTE

Post-training quantisation alone, by the tools that benchmarks/pareto.py names, calibrated on training pictures. A line for each
run and runtime, as there; what is in --results is not judged again.
"""

from __future__ import annotations

import argparse
from pathlib import Path

import numpy as np
import torch
from artifacts import SUFFIXES, Row
from entrants import register_entrants
from pareto import artifacts_of
from trained_alike import recipe_digest
from trained_results import Int8Result, append, current_commit, read_results

from lavit_edge.artifact.runners import open_runtime, to_tensor
from lavit_edge.checkpoint import CONFIG, Checkpoint, load_checkpoint
from lavit_edge.cli import run_command
from lavit_edge.data.folder import PictureFolder
from lavit_edge.errors import UserError
from lavit_edge.models.deployed import Deployed
from lavit_edge.train.loop import CHECKPOINT
from lavit_edge.train.recipe import Recipe

CALIBRATION = 64  # training pictures


def judge(row: Row, pictures: list[tuple[np.ndarray, int]]) -> float:
    """Share of the pictures that an artifact gets right."""
    if row.path is None:
        raise UserError(f"{row.model}, {row.runtime} {row.precision}: {row.failure}")
    compute = open_runtime(row.path, 1, trusted=True)
    return sum(int(np.argmax(compute(to_tensor(picture)))) == target for picture, target in pictures) / len(pictures)


def judge_run(checkpoint: Checkpoint, data: Path, commit: str) -> list[Int8Result]:
    """One run in both runtimes; the artifacts stay beside its checkpoint."""
    recipe, contract = Recipe(**checkpoint.config["training"]["recipe"]), checkpoint.contract
    seen = PictureFolder(data, "train", contract.labels).spread(CALIBRATION).inputs(contract)
    work = checkpoint.path.parent / "artifacts"
    work.mkdir(exist_ok=True)
    rows = artifacts_of(
        recipe.model,
        contract.size,
        work,
        lambda name, pixels: Deployed(checkpoint.model, contract).eval(),
        [torch.from_numpy(to_tensor(picture)) for picture, _ in seen],
    )
    found = {(row.runtime, row.precision): row for row in rows}
    pictures = list(PictureFolder(data, "val", contract.labels).inputs(contract))
    top1 = {key: judge(row, pictures) for key, row in found.items()}
    return [
        Int8Result(
            model=recipe.model,
            seed=recipe.seed,
            runtime=runtime,
            int8_by=found[runtime, "int8"].int8_by,
            top1=top1[runtime, "int8"],
            float_top1=top1[runtime, "fp32"],
            pictures=len(pictures),
            recipe=recipe_digest(recipe),
            commit=commit,
        )
        for runtime in SUFFIXES
    ]


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--runs", type=Path, default=Path("runs"), help="the --out of trained_alike.py; default: %(default)s")
    parser.add_argument("--data", type=Path, required=True, help="folder with train/<class>/ and val/<class>/")
    parser.add_argument("--results", type=Path, default=Path("docs/trained_alike_int8.jsonl"), help="default: %(default)s")
    arguments = parser.parse_args()
    register_entrants()
    torch.set_num_threads(1)
    commit = current_commit()
    failed: list[str] = []
    folders = sorted(file.parent for file in arguments.runs.glob(f"*/{CHECKPOINT}/{CONFIG}"))
    if not folders:
        raise UserError(f"{arguments.runs} holds no runs; benchmarks/trained_alike.py makes them")
    for folder in folders:
        checkpoint = load_checkpoint(folder)
        recipe = Recipe(**checkpoint.config["training"]["recipe"])
        done = {(result.model, result.seed) for result in read_results(arguments.results, Int8Result)}
        if checkpoint.config["metrics"]["epoch"] < recipe.epochs:
            print(f"{recipe.model}, seed {recipe.seed}: is not trained to its end", flush=True)
        elif (recipe.model, recipe.seed) in done:
            print(f"{recipe.model}, seed {recipe.seed}: is in {arguments.results}", flush=True)
        else:
            try:
                results = judge_run(checkpoint, arguments.data, commit)
            except UserError as error:
                failed.append(str(error))
                continue
            for result in results:
                append(arguments.results, result)
                shares = f"int8 {100 * result.top1:.2f} %, fp32 {100 * result.float_top1:.2f} %"
                print(f"{result.model}, seed {result.seed}, {result.runtime}: {shares}", flush=True)
    if failed:
        raise UserError(f"not judged: {'; '.join(failed)}")
    return 0


if __name__ == "__main__":
    run_command(main)
