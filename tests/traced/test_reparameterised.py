"""Parts of a module that have an inference form of their own."""

from __future__ import annotations

from torch import Tensor, nn

from lavit_edge.traced.model import Adapted, TracedModule


class Reparameterised(nn.Module):
    """Two branches that become one; ``wrong`` becomes another."""

    def __init__(self, wrong: bool) -> None:
        super().__init__()
        self.one, self.two, self.wrong = nn.Conv2d(8, 8, 1), nn.Conv2d(8, 8, 1), wrong

    def forward(self, x: Tensor) -> Tensor:
        return self.one(x) if self.two is None else self.one(x) + self.two(x)

    def reparameterize(self) -> None:
        if not self.wrong:
            self.one.weight.data += self.two.weight
            self.one.bias.data += self.two.bias
        self.two = None


def deploy(wrong: bool) -> TracedModule:
    ends = nn.Conv2d(3, 8, 4, 4), nn.Linear(8, 4)
    return Adapted(nn.Sequential(ends[0], Reparameterised(wrong), nn.AdaptiveAvgPool2d(1), nn.Flatten(), ends[1]), 32, 4).deploy()


def layers(traced: TracedModule) -> int:
    return sum(node.op == "call_module" for node in traced.graph.nodes)


def test_parts_are_reparameterised_by_their_own_method() -> None:
    traced = deploy(wrong=False)
    assert traced.notes == ("re-parameterised by reparameterize() of 1 part of the module",)
    assert layers(traced) == 3


def test_a_method_that_changes_the_logits_is_not_used_and_said() -> None:
    traced = deploy(wrong=True)
    assert traced.notes[0].startswith("not re-parameterised: ValueError: its logits are")
    assert layers(traced) == 4, "both branches"
