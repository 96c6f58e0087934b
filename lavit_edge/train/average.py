"""The average of the weights (EMA)."""

from __future__ import annotations

import torch
from torch import nn
from torch.optim.swa_utils import AveragedModel

WARM_UP = 10  # updates until the average keeps half of itself


class Average(AveragedModel):
    """torch's, but for its update: that one copies the number of updates to the device in each step; by its source, a GPU's host
    waits there (never measured). And batch norms' statistics are averaged as the weights are: those of the last batches belong
    to other weights.

    Args:
        decay: share of the average that stays in an update, in the long run. It begins lower, at ``(1 + n) / (10 + n)`` in update
            ``n``: otherwise a short training would end with an average of little but its start.
    """

    def __init__(self, model: nn.Module, decay: float) -> None:
        super().__init__(model)
        self.decay = decay

    @torch.no_grad()
    def update_parameters(self, model: nn.Module) -> None:
        number = int(self.n_averaged)  # it lies in the host's memory
        decay = min(self.decay, (1 + number) / (WARM_UP + number)) if number else 0.0
        averages, values = ([*m.parameters(), *m.buffers()] for m in (self.module, model))
        pairs = list(zip(averages, values, strict=True))
        floats = [pair for pair in pairs if pair[0].is_floating_point()]
        torch._foreach_lerp_([average for average, _ in floats], [value for _, value in floats], 1 - decay)
        for average, value in pairs:
            if not average.is_floating_point():
                average.copy_(value)
        self.n_averaged += 1
