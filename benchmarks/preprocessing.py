"""What the Kotlin core's preprocessing of a 640 x 480 camera frame takes on the JVM, beside the model that it feeds, in one run.

    python benchmarks/preprocessing.py bundle/lavit_mobile_s_imagenette160-int8/model.pte

Frames and inferences come in turns of twenty, so that another process on the machine slows both. The frame is YUV_420_888 as
phones give it, outside the Java heap; its time is that of ``convert`` and ``tensor``. The model runs on one thread of
ExecuTorch's Python runtime. The figure to reach: 15 % of the model's time. Needs lavit-edge with ExecuTorch, Java, and npm for
the compiler.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import IO, Any

import numpy as np
from PIL import Image

import lavit_edge
from lavit_edge.artifact.payload import read_payload
from lavit_edge.artifact.runners import open_runtime, read_entries
from lavit_edge.benchmark.report import quantile
from lavit_edge.cli import run_command
from lavit_edge.contract import InputContract
from lavit_edge.contract.frames import Frame, Plane, to_rgb
from lavit_edge.contract.pictures import open_picture, to_input

ROOT = Path(__file__).parents[1]
sys.path.insert(0, str(ROOT / "scripts"))
import app_tools  # noqa: E402
import make_golden  # noqa: E402

TARGET = 0.15
WIDTH, HEIGHT, TURN = 640, 480, 20


def camera_frame() -> Frame:
    """A photograph as a phone's camera gives it: U and V lie every second byte."""
    photo = open_picture(sorted((Path(lavit_edge.__file__).parent / "golden").glob("*.png"))[0]).resize((WIDTH, HEIGHT))
    y, u, v = make_golden.yuv(np.array(photo))
    planes = [Plane(y.tobytes(), WIDTH, 1)]
    for plane in (u, v):
        planes.append(Plane(np.stack([plane, plane], -1).tobytes(), WIDTH, 2))
    return Frame("yuv_420_888", WIDTH, HEIGHT, planes)


def compiled(folder: Path) -> str:
    """The class path of the core and of preprocessing.kt."""
    kotlin = app_tools.fetch("kotlin-compiler")
    compiler = ["bash", kotlin / "bin" / "kotlinc", "-jvm-target", "11"]
    core, main = folder / "core.jar", folder / "main.jar"
    sources = ROOT / "apps" / "android" / "core" / "src" / "main" / "kotlin"
    subprocess.run([*compiler, sources, "-d", core], check=True)
    subprocess.run([*compiler, "-cp", core, Path(__file__).with_suffix(".kt"), "-d", main], check=True)
    return f"{core}:{main}:{kotlin / 'lib' / 'kotlin-stdlib.jar'}"


def frames(jvm: tuple[IO[str], IO[str]], count: int) -> list[int]:
    asked, answered = jvm
    print(count, file=asked, flush=True)
    return [int(word) for word in answered.readline().split()]


def measure(artifact: Path, contract: InputContract, rounds: int) -> dict[str, list[int]]:
    frame = camera_frame()
    square = to_input(Image.fromarray(to_rgb(frame)), contract)
    tensor = np.ascontiguousarray(square.transpose(2, 0, 1)[None].astype(np.float32))
    run = open_runtime(artifact, 1)
    times: dict[str, list[int]] = {"frame": [], "model": []}
    with tempfile.TemporaryDirectory() as temporary:
        folder = Path(temporary)
        (folder / "contract").write_text(contract.to_json())
        (folder / "frame").write_bytes(b"".join(plane.data for plane in frame.planes))
        command = ["java", "-cp", compiled(folder), "PreprocessingKt", *map(str, (folder / "contract", folder / "frame"))]
        with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as process:
            assert process.stdin is not None
            assert process.stdout is not None
            jvm = (process.stdin, process.stdout)
            frames(jvm, 2000)  # until everything is compiled
            for _ in range(TURN):
                run(tensor)
            for _ in range(rounds):
                times["frame"] += frames(jvm, TURN)
                for _ in range(TURN):
                    start = time.perf_counter_ns()
                    run(tensor)
                    times["model"].append(time.perf_counter_ns() - start)
            process.stdin.close()
    return times


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("artifact", type=Path, help="a .pte")
    parser.add_argument("--rounds", type=int, default=50, help=f"of {TURN} frames and {TURN} inferences; default: %(default)s")
    arguments = parser.parse_args()
    contract = read_payload(read_entries(arguments.artifact)).contract
    times = {name: sorted(values) for name, values in measure(arguments.artifact, contract, arguments.rounds).items()}
    figures: dict[str, Any] = {f"{name}_p50_ns": quantile(values, 500) for name, values in times.items()}
    figures |= {f"{name}_min_ns": values[0] for name, values in times.items()}
    figures |= {"ratio_p50": figures["frame_p50_ns"] / figures["model_p50_ns"], "target": TARGET}
    figures |= {"ratio_min": figures["frame_min_ns"] / figures["model_min_ns"], "image_size": contract.size}
    print(json.dumps(figures, indent=1))
    return 0


if __name__ == "__main__":
    run_command(main)
