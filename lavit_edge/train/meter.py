"""How fast training goes, and what it waits for."""

from __future__ import annotations

import time
from collections.abc import Iterator
from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.utils.flop_counter import FlopCounterMode

# Dense bf16 peaks in FLOP/s, from NVIDIA's data sheets; a device that is not here gets no utilisation
PEAKS = {"H200": 989e12, "H100": 989e12, "A100": 312e12, "L40S": 362e12, "L4": 121e12, "RTX 4090": 165e12}


@dataclass
class Meter:
    """Counts over some steps of one process.

    Attributes:
        waited: seconds in which the device had no batch.
    """

    pictures: int = 0
    steps: int = 0
    waited: float = 0.0
    started: float = 0.0

    def start(self) -> None:
        self.started = time.monotonic()

    def waiting(self, batches: Iterator[list[Tensor]]) -> list[Tensor]:
        """The next batch; the time until it is here counts as waiting."""
        start = time.monotonic()
        batch = next(batches)
        self.waited += time.monotonic() - start
        return batch

    def figures(self, processes: int, flops: float, device: torch.device) -> dict[str, str]:
        """``img_per_s`` over all processes, ``step_ms``, ``wait`` (share of the time), ``mfu`` (model FLOPs utilisation, as in
        Chowdhery et al., 2022; empty where the peak is unknown).

        Args:
            flops: of forward and backward for one picture.
        """
        if device.type == "cuda":
            torch.cuda.synchronize(device)
        seconds = max(time.monotonic() - self.started, 1e-9)
        here = self.pictures / seconds
        peak = peak_flops(device)
        return {
            "img_per_s": f"{here * processes:.0f}",
            "step_ms": f"{1000 * seconds / max(self.steps, 1):.1f}",
            "wait": f"{self.waited / seconds:.3f}",
            "mfu": f"{here * flops / peak:.3f}" if peak else "",
        }


def peak_flops(device: torch.device) -> float | None:
    """The device's dense bf16 peak, None where it is unknown."""
    if device.type != "cuda":
        return None
    name = torch.cuda.get_device_name(device)
    return next((peak for part, peak in PEAKS.items() if part in name), None)


def training_flops(model: nn.Module, size: int) -> float:
    """FLOPs of forward and backward for one ``(3, size, size)`` picture: three times the forward's; a multiply-add is two."""
    device = next(model.parameters()).device
    was_training = model.training
    with torch.no_grad(), FlopCounterMode(display=False) as counter:
        model.eval()(torch.zeros(1, 3, size, size, device=device))
    model.train(was_training)
    return 3.0 * counter.get_total_flops()
