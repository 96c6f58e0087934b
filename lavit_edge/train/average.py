"""The average of the weights (EMA)."""

from __future__ import annotations

import torch
from torch import nn
from torch.optim.swa_utils import AveragedModel, get_ema_multi_avg_fn


class Average(AveragedModel):
    """torch's, but for its update, which copies the number of updates to the device in each step; by its source, a GPU's host
    waits there (never measured).

    Args:
        decay: share of the average that stays in each update.
    """

    def __init__(self, model: nn.Module, decay: float) -> None:
        super().__init__(model, multi_avg_fn=get_ema_multi_avg_fn(decay))

    @torch.no_grad()
    def update_parameters(self, model: nn.Module) -> None:
        averages, values = ([p.detach() for p in m.parameters()] for m in (self.module, model))
        if self.n_averaged > 0:  # it lies in the host's memory
            self.multi_avg_fn(averages, values, 0)  # type: ignore[misc]  # this one needs no number
        else:
            torch._foreach_copy_(averages, values)
        for average, value in zip(self.module.buffers(), model.buffers(), strict=True):
            average.copy_(value)
        self.n_averaged += 1
