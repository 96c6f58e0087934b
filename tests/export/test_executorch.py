"""What ExecuTorch gets wrong in nets that were not made here, and the exporter goes around."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor, nn

pytest.importorskip("executorch")
from lavit_edge.doctor.executorch import error
from lavit_edge.export.executorch import lower, undelegated
from lavit_edge.export.targets import ExecutorchOptions
from lavit_edge.toolchain import quiet


class TalkingHeads(nn.Module):
    """Attention of four heads whose scores ``(B, H, N, N)`` a convolution mixes, as in EfficientFormerV2."""

    def __init__(self) -> None:
        super().__init__()
        self.project, self.before, self.after = nn.Linear(32, 96), nn.Conv2d(4, 4, 1), nn.Conv2d(4, 4, 1)

    def forward(self, x: Tensor) -> Tensor:
        query, key, value = self.project(x).reshape(1, -1, 3, 4, 8).permute(2, 0, 3, 1, 4).unbind(0)
        scores = self.after(self.before(query @ key.transpose(-1, -2)).softmax(-1))
        return (scores @ value).transpose(1, 2).reshape(x.shape)


class OverChannels(nn.Module):
    """A softmax that XNNPACK leaves alone: over the first axis but one."""

    def __init__(self) -> None:
        super().__init__()
        self.conv = nn.Conv2d(4, 4, 1)

    def forward(self, x: Tensor) -> Tensor:
        return self.conv(x).softmax(1)


@pytest.fixture
def tokens() -> Tensor:
    torch.manual_seed(0)
    return torch.randn(1, 10, 32)


def test_attention_in_four_dimensions_was_wrong_and_is_right(tokens: Tensor) -> None:
    module = TalkingHeads()
    assert error(module, tokens, repaired=False) > 0.05  # measured: 0.16
    assert error(module, tokens) < 1e-5
    with quiet():
        lowered = lower(torch.export.export(module.eval(), (tokens,)), ExecutorchOptions())
    assert not [name for name in undelegated(lowered) if "softmax" in name or "view" in name]  # no new way out of the delegate


def test_a_softmax_over_another_axis_stays() -> None:
    torch.manual_seed(0)
    assert error(OverChannels(), torch.randn(1, 4, 6, 5)) < 1e-5
