"""What the benchmark harness adds to the time it reports: its loop against a bare one around the runtime's own call.

    python benchmarks/harness_overhead.py bundle/lavit_mobile_s_imagenette160-int8/model.onnx

Both run the same artifact in one process, call by call in turns, so that another process on the machine slows both. The figure
to reach: p50 within 2 %. Needs lavit-edge with the artifact's runtime.
"""

from __future__ import annotations

import argparse
import json
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
from rich.console import Console
from rich.table import Table

from lavit_edge.artifact.payload import read_payload
from lavit_edge.artifact.runners import executorch_method, onnx_session, open_runtime, read_entries
from lavit_edge.benchmark.host import timed_runs
from lavit_edge.benchmark.report import quantile
from lavit_edge.cli import run_command

TARGET = 0.02


def bare_call(artifact: Path, threads: int, tensor: np.ndarray) -> Callable[[], object]:
    """The runtime's own call, with nothing of ours around it."""
    if artifact.suffix == ".pte":
        import torch

        method, inputs = executorch_method(artifact, threads), [torch.from_numpy(tensor)]
        return lambda: method.execute(inputs)
    session = onnx_session(artifact, threads)
    return lambda: session.run(None, {"image": tensor})


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("artifacts", nargs="+", type=Path)
    parser.add_argument("--threads", type=int, default=1, help="default: %(default)s")
    parser.add_argument("--calls", type=int, default=1000, help="of each; default: %(default)s")
    parser.add_argument("--json", action="store_true", help="print the figures as JSON")
    arguments = parser.parse_args()
    figures = {}
    for artifact in arguments.artifacts:
        size = read_payload(read_entries(artifact)).contract.size
        tensor = np.random.default_rng(0).integers(0, 256, (1, 3, size, size)).astype(np.float32)
        run = open_runtime(artifact, arguments.threads)
        bare = bare_call(artifact, arguments.threads, tensor)
        times: dict[str, list[int]] = {"bare": [], "harness": []}
        for _ in range(arguments.calls):
            start = time.perf_counter_ns()
            bare()
            times["bare"].append(time.perf_counter_ns() - start)
            times["harness"] += timed_runs(lambda: run(tensor), 0.0, 1)[1]  # noqa: B023 called before the next artifact
        p50 = {name: quantile(sorted(samples), 500) for name, samples in times.items()}
        figures[str(artifact)] = {**p50, "ratio": p50["harness"] / p50["bare"]}
    if arguments.json:
        print(json.dumps(figures, indent=1))
        return 0
    table = Table(title=f"p50, {arguments.threads} thread(s), ms")
    for column in ("artifact", "bare loop", "harness", "harness / bare", f"within {TARGET:.0%}"):
        table.add_column(column, justify="right" if column != "artifact" else "left")
    for name, figure in figures.items():
        reached = "yes" if abs(figure["ratio"] - 1) <= TARGET else "NO"
        cells = [f"{figure['bare'] / 1e6:.3f}", f"{figure['harness'] / 1e6:.3f}"]
        table.add_row(Path(name).name, *cells, f"{figure['ratio']:.4f}", reached)
    Console().print(table)
    return 0


if __name__ == "__main__":
    run_command(main)
