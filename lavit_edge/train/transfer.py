"""Batches from the host's memory to the training device."""

from __future__ import annotations

import torch
from torch import Tensor


class Transfer:
    """Copies on a CUDA stream of its own, so that a batch in pinned memory comes while the GPU still computes the step before."""

    def __init__(self, device: torch.device) -> None:
        self.device = device
        self.stream = torch.cuda.Stream(device) if device.type == "cuda" else None

    def __call__(self, batch: list[Tensor]) -> list[Tensor]:
        """Pixels, targets and logits on the device; what else the batch has stays in the host's memory."""
        with torch.cuda.stream(self.stream):  # does nothing with None
            moved = [part.to(self.device, non_blocking=True) for part in batch[:3]]
        if self.stream:
            computing = torch.cuda.current_stream(self.device)
            computing.wait_stream(self.stream)
            for part in moved:
                part.record_stream(computing)  # or its memory could be taken for the next batch too early
        return [*moved, *batch[3:]]
