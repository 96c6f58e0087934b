"""What a layer kept in float costs inside an int8 model, and what a conversion between int8 and float costs beside it.

    python benchmarks/float_layers.py

The model is lavit_mobile_s with random weights, 224 pixels, batch 1, one thread. In every FFN the first layer, the second or both
are kept in float; after the second the addition is in float, too. Times are processor time, which other processes disturb least,
medians of calls in turns. With E, C and B for what each adds:

    E = first layers + 2 conversions each
    C = second layers and additions + 3 conversions each
    B = all of these + 2 conversions each

so that E + C - B is the time of three conversions in each FFN; the rest of B is that of two layers. The price of a conversion in
lavit_edge.quantize.cost, in layers, is from here.
"""

from __future__ import annotations

import argparse
import tempfile
import time
from pathlib import Path

import numpy as np
from int8_vs_fp32 import RUNTIMES, Artifacts, quantised_checkpoint, time_all
from rich.console import Console
from rich.table import Table

from lavit_edge.checkpoint import INT8, Checkpoint, load_checkpoint, load_tensors, save_checkpoint
from lavit_edge.cli import run_command
from lavit_edge.export.golden import make_payload
from lavit_edge.export.targets import find_target
from lavit_edge.models.deployed import Deployed
from lavit_edge.quantize.cost import Cost
from lavit_edge.quantize.program import float_program, int8_program
from lavit_edge.quantize.scheme import default_float_layers, quantizable

MODEL = "lavit_mobile_s"
VARIANTS = {
    "none": (),
    "expand": ("expand",),
    "contract": ("contract",),
    "expand, contract": ("expand", "contract"),
}


def with_float(checkpoint: Checkpoint, deployed: Deployed, layers: list[str], folder: Path) -> Checkpoint:
    """The quantised checkpoint with ``layers``, too, in float."""
    tensors = load_tensors(checkpoint.path / INT8, checkpoint.config)
    for layer in layers:
        tensors = {name: value for name, value in tensors.items() if not name.startswith(f"{layer}.")}
        tensors |= {f"{layer}.{name}": value for name, value in deployed.model.get_submodule(layer).state_dict().items()}
    facts = {"quantization": {"float_layers": [*default_float_layers(deployed.model), *layers]}}
    state, model = checkpoint.model.state_dict(), checkpoint.config["model"]
    save_checkpoint(folder, state, model=model, contract=checkpoint.contract, card="", facts=facts, int8=tensors)
    return load_checkpoint(folder)


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=30, help="blocks of calls per artifact; default: %(default)s")
    arguments = parser.parse_args()
    console = Console()
    with tempfile.TemporaryDirectory() as folder, Console(stderr=True).status("quantising") as status:
        checkpoint = quantised_checkpoint(MODEL, 10, Path(folder) / "checkpoint")
        deployed = Deployed(checkpoint.model, checkpoint.contract).eval()
        default = default_float_layers(deployed.model)
        cost = Cost(float_program(checkpoint), default)
        artifacts: Artifacts = {}
        chosen = {}
        for name, kinds in VARIANTS.items():
            status.update(f"exporting: {name}")
            ends = tuple(f".ffn.{kind}.conv" for kind in kinds)
            chosen[name] = [path for path in quantizable(deployed.model, default) if path.endswith(ends)]
            program = int8_program(with_float(checkpoint, deployed, chosen[name], Path(folder) / name))
            for suffix, target in ((".pte", "executorch"), (".onnx", "onnx")):
                artifacts[suffix, name] = Path(folder) / f"{len(artifacts)}{suffix}"
                payload = make_payload(program, checkpoint.contract, {}, 8.0)
                find_target(target).export(program, payload, artifacts[suffix, name])
        status.update("timing")
        times = {
            key: float(np.median(values)) for key, values in time_all(artifacts, 1, arguments.rounds, time.process_time).items()
        }
    table = Table(title=f"{MODEL}, 224 px, batch 1, 1 thread: in float in every FFN")
    for column in ("", "layers", "conversions", *(f"{title}, ms" for title in RUNTIMES.values())):
        table.add_column(column, justify="right" if column else "left")
    for name, layers in chosen.items():
        conversions = cost.conversions(layers) - cost.fewest
        table.add_row(name, str(len(layers)), f"{conversions:+}", *(f"{times[suffix, name]:.2f}" for suffix in RUNTIMES))
    console.print(table)
    for suffix, title in RUNTIMES.items():
        added = {name: times[suffix, name] - times[suffix, "none"] for name in VARIANTS}
        blocks = len(chosen["expand"])
        conversion = (added["expand"] + added["contract"] - added["expand, contract"]) / 3 / blocks
        layer = added["expand, contract"] / 2 / blocks - conversion
        console.print(f"{title}: a layer in float +{1e3 * layer:.0f} us, a conversion +{1e3 * conversion:.0f} us")
        console.print(f"  so a conversion costs {conversion / layer:.2f} layers")
    return 0


if __name__ == "__main__":
    run_command(main)
