"""A GPU for some minutes: throughput, parity and trainings in one command, and checkpoints to take home.

    python scripts/gpu_job.py --package data/gpu_job --out OUT

Wants Python 3.11 or 3.12, torch 2.11 or later, numpy, Pillow with AVIF, safetensors, rich and packaging, and neither installs the
project nor needs an exporter, NNCF or a network. pytest and timm are used where they are. Wheels in ``PACKAGE/wheels/`` come
first, for what a machine lacks.

First the throughput is timed, alone on the device. Then the models train, each from scratch and distilled from the package's
teacher, all at once, as so small a net leaves a GPU idle between its launches; beside them run the tests of
``tests/cuda/test_parity.py``. Each training sets its epochs so that it ends in time. OUT then has a ZIP for each training,
``summary.json`` and logs. Never run on a GPU.

Exit codes: 0 all done; 1 something failed or was left out, the last lines say what; 2 it could not begin.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import tempfile
import time
import zipfile
from pathlib import Path
from typing import Any

ROOT = Path(__file__).parents[1]
sys.path.insert(0, str(ROOT))

from lavit_edge.errors import UserError  # needs nothing but Python

MODELS = ("lavit_mobile_s", "lavit_mobile_m")
OTHERS = ("pvt_v2_b1", "deit_small_patch16_224")  # timm's, to compare the throughput with
THROUGHPUT = 0.3  # of the minutes, at most
RESERVE = 0.04  # of the minutes, to judge and to pack
GRACE = 30  # seconds, before what has not ended in time is killed


class Task:
    """A process of the job, its output in ``<name>.log``."""

    def __init__(self, name: str, command: list[str | Path], out: Path, environment: dict[str, str], output: str = "") -> None:
        self.name, self.log = name, out / f"{name}.log"
        with self.log.open("ab") as log, (out / (output or self.log.name)).open("ab") as stdout:  # both append, to one file too
            self.process = subprocess.Popen([sys.executable, *command], cwd=ROOT, env=environment, stdout=stdout, stderr=log)

    def wait(self, until: float) -> str:
        """How it ended: empty if well."""
        try:
            code = self.process.wait(max(until - time.time(), 0.1))
        except subprocess.TimeoutExpired:
            self.process.kill()
            self.process.wait()
            return "stopped, as time was up"
        return f"failed with {code}: {self.last_line()}" if code else ""

    def last_line(self) -> str:
        lines = self.log.read_text(errors="replace").split("\n")
        return next((line for line in reversed(lines) if line.strip()), "")[:300]


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--package", type=Path, required=True, help="as scripts/gpu_pack.py makes it")
    parser.add_argument("--out", type=Path, required=True, help="folder for the results, new or empty")
    parser.add_argument("--minutes", type=float, default=8, help="for everything; default: %(default)s")
    parser.add_argument("--models", nargs="+", default=MODELS, help="the most wanted first; default: %(default)s")
    parser.add_argument("--device", default="cuda", help="cuda or cpu; default: %(default)s")
    parser.add_argument("--set", nargs="+", default=[], metavar="KEY=VALUE", help="settings of all trainings")
    parser.add_argument("--throughput", default="--batch-size 256 --image-size 224 --seconds 4", help="default: %(default)s")
    parser.add_argument("--home-mb", type=float, default=16, help="of all ZIPs together; default: %(default)s")
    arguments = parser.parse_args()
    end = time.time() + 60 * arguments.minutes
    with tempfile.TemporaryDirectory() as site:
        environment = prepare(arguments, Path(site))
        results = job(arguments, environment, end)
    return summarise(arguments, results)


def prepare(arguments: argparse.Namespace, site: Path) -> dict[str, str]:
    """What can be seen to go wrong goes wrong here. Returns the environment of the tasks."""
    for wheel in sorted(arguments.package.glob("wheels/*.whl")):
        with zipfile.ZipFile(wheel) as file:
            file.extractall(site)
    sys.path.insert(0, str(site))
    try:
        import lavit_edge.train.loop  # noqa: F401  # all that a training imports
        from lavit_edge.models import list_models
        from lavit_edge.train.recipe import find_recipe
        from lavit_edge.train.sheets import read_package, read_sheets
        from lavit_edge.train.world import join
    except ImportError as error:
        raise UserError(f"{error}; put wheels of what is missing into {arguments.package / 'wheels'}") from error
    for model in arguments.models:
        if model not in list_models():
            raise UserError(f"--models {model}: choose from {', '.join(list_models())}")
    package = read_package(arguments.package)
    find_recipe("imagenette_mobile").changed([*package["settings"], *arguments.set])
    read_sheets(arguments.package, package, "val")
    join(arguments.device)
    if arguments.out.exists() and (not arguments.out.is_dir() or any(arguments.out.iterdir())):
        raise UserError(f"{arguments.out} already exists and is not empty; choose another --out")
    arguments.out.mkdir(parents=True, exist_ok=True)
    path = os.pathsep.join([str(site), str(ROOT), *filter(None, [os.environ.get("PYTHONPATH")])])
    models = " ".join(arguments.models)
    return {**os.environ, "PYTHONPATH": path, "LAVIT_EDGE_DEVICE": arguments.device, "LAVIT_EDGE_MODELS": models}


def job(arguments: argparse.Namespace, environment: dict[str, str], end: float) -> dict[str, str]:
    """Runs all tasks; how each ended, by name."""
    seconds, out = 60 * arguments.minutes, arguments.out.resolve()
    print(f"throughput, at most {THROUGHPUT * seconds:.0f} s", flush=True)
    limit = str(THROUGHPUT * seconds / 2)  # one more may be compiling then, and all are still to be timed
    options = ["--device", arguments.device, "--modes", "compiled", "--json", "--limit", limit, *arguments.throughput.split()]
    command = [ROOT / "benchmarks/train_throughput.py", "--models", *arguments.models, *OTHERS, *options]
    task = Task("throughput", command, out, environment, "throughput.json")
    results = {task.name: task.wait(end - (1 - THROUGHPUT) * seconds)}

    print(f"trainings and parity, {end - time.time():.0f} s", flush=True)
    wanted = [(model, kind) for kind in ("distilled", "scratch") for model in arguments.models]
    share = max((os.cpu_count() or 1) // len(wanted), 1)  # cores of each
    environment = {"OMP_NUM_THREADS": str(share), "TORCHINDUCTOR_COMPILE_THREADS": str(share), **environment}
    common = ["--package", arguments.package.resolve(), "--device", arguments.device, "--workers", str(min(share - 1, 3))]
    tasks = []
    for model, kind in wanted:
        command = [ROOT / "scripts/gpu_train.py", *common, "--model", model, "--until", str(end - RESERVE * seconds)]
        command += [*(["--distilled"] if kind == "distilled" else []), *(["--set", *arguments.set] if arguments.set else [])]
        tasks.append(Task(f"{model}-{kind}", [*command, "--out", out / f"{model}-{kind}.zip"], out, environment))
    tests = ["-m", "pytest", "-s", "-rA", "-o", "addopts=", "--import-mode=importlib", "-p", "no:cacheprovider"]
    tasks.append(Task("parity", [*tests, "tests/cuda/test_parity.py"], out, environment))
    return results | {task.name: task.wait(end + GRACE) for task in tasks}


def summarise(arguments: argparse.Namespace, results: dict[str, str]) -> int:
    """Prints and writes what came of it; ZIPs beyond the limit are left out, the least wanted ones."""
    for part in arguments.out.glob("*.part"):  # of a training that was killed
        part.unlink()
    figures = {name: facts(arguments.out / f"{name}.zip") for name in results}
    lines, room = [], arguments.home_mb * 1e6
    for name in results:
        file = arguments.out / f"{name}.zip"
        if results[name] or not file.exists():
            continue
        room -= file.stat().st_size
        if room < 0:
            results[name] = f"left out, {file.stat().st_size / 1e6:.1f} MB are more than --home-mb leaves"
            file.unlink()
    for name, error in results.items():
        lines.append(f"{name}: {error or 'done'}" + "".join(f", {key} {value}" for key, value in figures[name].items()))
    summary = {name: {"error": error or None, **figures[name]} for name, error in results.items()}
    (arguments.out / "summary.json").write_text(json.dumps(summary, indent=1) + "\n", encoding="utf-8")
    if (table := arguments.out / "throughput.json").exists() and not results["throughput"]:
        for row in json.loads(table.read_text())["training"]:
            lines.append(f"{row['model']}, {row['mode']}: {row['img_per_s']:.0f} img/s, {row['step_ms']:.1f} ms a step")
    print("\n".join(lines))
    return int(any(results.values()))


def facts(file: Path) -> dict[str, Any]:
    """What a training's ZIP says of it; nothing where there is none."""
    if not file.exists():
        return {}
    with zipfile.ZipFile(file) as archive:
        config = json.loads(archive.read(f"{file.stem}/checkpoint/config.json"))
        header, *_, last = archive.read(f"{file.stem}/log.csv").decode().splitlines()
    row = dict(zip(header.split(","), last.split(","), strict=True))
    metrics = config["metrics"]
    return {
        "top-1": metrics["val_top1"], "epochs": metrics["epoch"], "seconds": metrics["seconds"], "img/s": row["img_per_s"],
        "MB": round(file.stat().st_size / 1e6, 2),
    }  # fmt: skip


if __name__ == "__main__":
    try:
        raise SystemExit(main())
    except UserError as mistake:
        print(f"error: {mistake}", file=sys.stderr)
        raise SystemExit(2) from None
