"""AdamW, and Muon on top of it."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn

from lavit_edge.models.classifier import Classifier
from lavit_edge.train.bf16 import quick_in_bf16


class Muon(torch.optim.AdamW):
    """Muon (Jordan et al., 2024) for matrices, AdamW for all else.

    The momentum of a weight is replaced by the nearest matrix whose singular values are all about 1. It is scaled to the size of
    AdamW's steps, ``0.2 sqrt(max(rows, columns))`` (Liu et al., "Muon is scalable for LLM training", 2025, eq. 4), so that both
    share a learning rate and a weight decay. Of a convolution's weight, an output channel is a row: ``torch.optim.Muon`` refuses
    such weights, which are nearly all of ``lavit_nano``.

    Four epochs of ``lavit_nano`` at 96 pixels, from scratch, one core (docs/training.md): 39.0, 53.3, 62.2, 65.2 % top-1, 72 s
    each; AdamW, with the same rate, 31.6, 35.1, 42.0, 47.9 %, 60 s each.

    Args:
        groups: those with ``matrices`` true take Muon's step.
        momentum: Nesterov's.
    """

    def __init__(self, groups: list[dict[str, Any]], lr: float, momentum: float = 0.95) -> None:
        super().__init__(groups, lr=lr, fused=True)
        self.momentum = momentum

    @torch.no_grad()
    def step(self, closure: None = None) -> None:  # type: ignore[override]
        for group in self.param_groups:
            for weight in group["params"] if group["matrices"] else ():
                if weight.grad is None:
                    continue
                state = self.state[weight]
                if not state:
                    state["step"] = torch.zeros(())  # not used; AdamW refuses a stored state without it
                    state["momentum"] = torch.zeros_like(weight)
                average = state["momentum"].lerp_(weight.grad, 1 - self.momentum)
                update = orthogonal(weight.grad.lerp(average, self.momentum).flatten(1))
                rate = 0.2 * max(update.shape) ** 0.5 * group["lr"]
                weight.mul_(1 - group["lr"] * group["weight_decay"]).sub_(update.reshape(weight.shape), alpha=rate)
                weight.grad = None  # AdamW leaves it alone
        super().step()


def orthogonal(matrix: Tensor) -> Tensor:
    """``U V^T`` of the singular value decomposition ``U S V^T``, roughly: singular values between 0.7 and 1.2.

    Five steps of a Newton-Schulz iteration, in bf16 where the device has kernels for it, with Jordan's coefficients.
    """
    wide = matrix.bfloat16() if quick_in_bf16(matrix.device.type) else matrix.float()
    if tall := matrix.shape[0] > matrix.shape[1]:
        wide = wide.T
    wide = wide / (wide.norm() + 1e-7)
    for _ in range(5):
        gram = wide @ wide.T
        wide = 3.4445 * wide + (-4.7750 * gram + 2.0315 * gram @ gram) @ wide
    return (wide.T if tall else wide).to(matrix.dtype)


def parameter_groups(student: nn.Module, model: Classifier, weight_decay: float) -> list[dict[str, Any]]:
    """An optimiser's groups: no weight decay on vectors and on what the model exempts, and its own ``share`` of the rate.

    ``matrices`` are the weights with weight decay, but for depthwise convolutions and what leads out of the network.
    """
    groups: dict[tuple[float, float, bool], list[nn.Parameter]] = {}
    for name, parameter in student.named_parameters():
        exempt = parameter.ndim <= 1 or any(part in name for part in model.undecayed)
        share = next((rate for part, rate in model.learning_rates.items() if part in name), 1.0)
        matrix = not exempt and parameter.shape[1] > 1 and not name.endswith(("head.weight", "to_teacher.weight"))
        groups.setdefault((share, 0.0 if exempt else weight_decay, matrix), []).append(parameter)
    return [
        {"params": parameters, "weight_decay": decay, "share": share, "matrices": matrices}
        for (share, decay, matrices), parameters in groups.items()
    ]
