"""One training of ``scripts/gpu_job.py``: as many epochs as the clock allows, then the checkpoint as a ZIP to take home.

Before each epoch the number of epochs is set anew from the pace so far, so that the cosine ends in time. So the learning rates
depend a little on the machine's moods (the log has them), and a repeat with as many epochs is near and not equal. With ``--set
epochs=N`` there are N, whatever the clock says.
"""

from __future__ import annotations

import argparse
import os
import sys
import tempfile
import time
import zipfile
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[1]))

import torch
from torch._dynamo.exc import TorchDynamoException

from lavit_edge.checkpoint import load_checkpoint, save_checkpoint
from lavit_edge.cli import run_command
from lavit_edge.contract import InputContract
from lavit_edge.data.folder import Pictures, batches
from lavit_edge.errors import UserError, one_line
from lavit_edge.models import create_model
from lavit_edge.models.deployed import Deployed
from lavit_edge.train.card import training_card
from lavit_edge.train.config import TrainConfig
from lavit_edge.train.journal import LOG
from lavit_edge.train.loop import Run
from lavit_edge.train.parts import CHECKPOINT, Parts
from lavit_edge.train.recipe import find_recipe
from lavit_edge.train.resident import ResidentSource
from lavit_edge.train.sheets import read_package, read_sheets
from lavit_edge.train.teacher import Forward, Teacher
from lavit_edge.train.world import join

RECIPE = "imagenette_mobile"
DISTILLED = ["mix_probability=0.3"]
VIEWS = "teacher.safetensors"
ROUNDED = "kernels and matrices are rounded to bfloat16, and kept as float32"


class Clock:
    """Sets the number of epochs so that a run ends in time, by the mean pace of up to 20 epochs.

    Args:
        until: ``time.time()`` at which it shall have ended.
        warmup: epochs of the recipe; the learning rate there does not depend on how many follow.
    """

    def __init__(self, until: float, warmup: int) -> None:
        self.until, self.warmup = until, warmup
        self.starts: list[float] = []

    def __call__(self, epoch: int) -> int:
        self.starts.append(time.time())
        least = max(epoch + 1, self.warmup + 2)
        timed = self.starts[1:][-21:]  # the first epoch compiles
        if len(timed) < 2:
            return least
        pace = max((timed[-1] - timed[0]) / (len(timed) - 1), 1e-3)
        return max(least, epoch + int((self.until - timed[-1]) / pace))


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--package", type=Path, required=True, help="as scripts/gpu_pack.py makes it")
    parser.add_argument("--out", type=Path, required=True, help="the ZIP")
    parser.add_argument("--model", required=True)
    parser.add_argument("--distilled", action="store_true", help="from the package's teacher; else from scratch")
    parser.add_argument("--until", type=float, required=True, help="seconds since 1970")
    parser.add_argument("--device", default="auto")
    parser.add_argument("--workers", type=int, default=2)
    parser.add_argument("--set", nargs="+", action="extend", default=[], metavar="KEY=VALUE", help=f"beside those of {RECIPE}")
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory() as work:
        try:
            run = train(arguments, Path(work) / "compiled", compiled=True)
        except TorchDynamoException as error:  # no C compiler, or what this torch cannot compile
            print(f"not compiled, trained eager: {one_line(str(error))[:300]}", flush=True)
            run = train(arguments, Path(work) / "eager", compiled=False)
        top1 = finish(run)
        temporary = arguments.out.with_suffix(".part")  # who is killed here leaves no half ZIP
        with zipfile.ZipFile(temporary, "w", zipfile.ZIP_LZMA) as file:
            for path in (run.out / LOG, *sorted((run.out / CHECKPOINT).iterdir())):
                file.write(path, Path(arguments.out.stem) / path.relative_to(run.out))
        os.replace(temporary, arguments.out)
    print(f"{run.recipe.epochs} epochs, val top-1 {100 * top1:.2f} % on {run.val_pictures} pictures of the package, fp32")
    return 0


def train(arguments: argparse.Namespace, out: Path, compiled: bool) -> Run:
    run = prepare(arguments, out, compiled)
    fixed = any(setting.startswith("epochs=") for setting in arguments.set)
    run.fit(None if fixed else Clock(arguments.until, run.recipe.warmup_epochs))
    return run


def prepare(arguments: argparse.Namespace, out: Path, compiled: bool) -> Run:
    package = read_package(arguments.package)
    settings = [setting for setting in package["settings"] if arguments.distilled or not setting.startswith("teacher=")]
    recipe = find_recipe(RECIPE).changed([f"model={arguments.model}", *settings, *(DISTILLED if arguments.distilled else [])])
    recipe = recipe.changed(arguments.set)
    world = join(arguments.device)
    train, val = (read_sheets(arguments.package, package, split) for split in ("train", "val"))
    labels = tuple(package["labels"])
    torch.manual_seed(recipe.seed)
    model = create_model(recipe.model, num_classes=len(labels), image_size=recipe.image_size, drop_path=recipe.drop_path)
    out.mkdir()
    config = TrainConfig(compile=compiled)
    facts = {
        "data": f"{len(train)} pictures in sheets (scripts/gpu_pack.py)",
        "device": torch.cuda.get_device_name(world.device) if world.device.type == "cuda" else "CPU",
        "processes": 1,
        "precision": config.computes_in(world.device.type),
        "compiled": compiled,
        "started_from": [],
    }
    source = ResidentSource(train, recipe, world, arguments.workers)
    teacher = Teacher(**package["teacher"], load=refuse) if arguments.distilled else None
    contract = InputContract(recipe.image_size, labels)
    parts = Parts(model, contract, source, val, teacher, facts, teacher_file=arguments.package / VIEWS)
    return Run(recipe, parts, out, world, config)


def refuse() -> Forward:
    raise UserError("the package's teacher saw other crops (seed, min_scale, teacher_views, pictures); make it again")


def finish(run: Run) -> float:
    """Rounds the weights of the checkpoint, so that they pack to 1.5 bytes each, and judges it as it is then, in fp32."""
    folder = run.out / CHECKPOINT
    checkpoint = load_checkpoint(folder)
    model, contract = checkpoint.model, checkpoint.contract
    rounded = {name: value.bfloat16().float() if value.ndim > 1 else value for name, value in model.state_dict().items()}
    model.load_state_dict(rounded)
    top1 = judge(Deployed(model, contract).eval().to(run.device), run.val_set, contract, run.device)
    training, metrics = checkpoint.config["training"], {**checkpoint.config["metrics"], "val_top1": round(top1, 5)}
    card = training_card(run.recipe.model, contract, training, metrics) + f"\nAfter training, {ROUNDED}; judged so.\n"
    facts = {"training": training, "metrics": metrics, "rounded": ROUNDED}
    save_checkpoint(folder, rounded, model=checkpoint.config["model"], contract=contract, card=card, facts=facts)
    return top1


@torch.inference_mode()
def judge(model: torch.nn.Module, pictures: Pictures, contract: InputContract, device: torch.device) -> float:
    """Top-1 in fp32."""
    torch.backends.cudnn.allow_tf32 = False
    hits = 0
    for pixels, targets in batches(pictures, contract, 64):
        predicted = model(torch.from_numpy(pixels).to(device).permute(0, 3, 1, 2).float()).argmax(1)
        hits += int((predicted.cpu() == torch.from_numpy(targets)).sum())
    return hits / len(pictures)


if __name__ == "__main__":
    run_command(main)
