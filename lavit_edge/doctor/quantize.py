"""NNCF on this host: its compiled kernels, and a calibration of the smallest LaViT."""

from __future__ import annotations

import shutil
import tempfile
import time
from pathlib import Path

import torch

from lavit_edge.doctor import pins
from lavit_edge.doctor.findings import Probe, Status
from lavit_edge.doctor.smallest import LEAST_INT8, save_smallest
from lavit_edge.metrics import sqnr
from lavit_edge.quantize.kernels import KERNELS, LOCK, abandoned, build_folder
from lavit_edge.quantize.scheme import default_float_layers, quantized_model
from lavit_edge.toolchain import quiet


def lock() -> tuple[Status, str]:
    """torch waits, without an end, for the file to go away."""
    file = build_folder() / LOCK
    if not file.exists():
        return "OK", "none"
    if abandoned():
        return "known", f"{file} is left from a build that was killed; the next quantize removes it"
    return "FAIL", f"{file} is {(time.time() - file.stat().st_mtime) / 60:.0f} minutes old: a build is going on, wait for its end"


def compiler() -> tuple[Status, str]:
    """Without them NNCF falls back on torch's own operators: the same numbers, slower."""
    from torch.utils.cpp_extension import get_cxx_compiler, is_ninja_available

    if (build_folder() / f"{KERNELS}.so").exists():
        return "OK", "the kernels are built"
    if not is_ninja_available():
        return "known", "no ninja on the PATH: quantising runs without compiled kernels, slower; pip install ninja"
    if shutil.which(get_cxx_compiler().split()[0]) is None:
        return "known", f"no {get_cxx_compiler()}: quantising runs without compiled kernels, slower; install g++"
    return "OK", "there; the first quantize compiles the kernels, which takes about a minute"


def calibration() -> tuple[Status, str]:
    if not (build_folder() / f"{KERNELS}.so").exists():
        return "OK", "not tried before the first quantize has compiled the kernels"
    if (build_folder() / LOCK).exists() and not abandoned():
        return "FAIL", "not tried: it would wait for the lock"
    with quiet(), tempfile.TemporaryDirectory() as folder:
        from lavit_edge.quantize import calibrate

        model, inputs = save_smallest(Path(folder) / "checkpoint")
        float_layers = default_float_layers(model.model)
        form = calibrate.int8_form(calibrate.calibrate(model, [picture[None] for picture in inputs], float_layers))
    with torch.no_grad():
        expected = model(inputs)
        model.model = quantized_model(model.model, form, float_layers, "fake")
        noise = sqnr(expected.numpy(), model(inputs).numpy())
    return ("OK" if noise >= LEAST_INT8 else "FAIL"), f"int8 against fp32: {noise:.1f} dB, wanted {LEAST_INT8:g}"


REPAIR = pins.repair("quantize")
PROBES = (
    Probe("lock of a kernel build", lock, "if no other process quantises now, delete that file"),
    Probe("ninja and C++ compiler", compiler, REPAIR),
    Probe("calibration", calibration, REPAIR),
)
