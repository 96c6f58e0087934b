"""Modules that cannot be adapted: each is refused in a line that says why."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
from torch import Tensor, nn

from lavit_edge.errors import UserError
from lavit_edge.traced.model import Adapted

SIZE, CLASSES = 32, 4


class Bad(nn.Module):
    """Computes what a test gives it."""

    def __init__(self, function: Callable[..., object]) -> None:
        super().__init__()
        self.head = nn.Linear(3, CLASSES)
        self.function = function

    def forward(self, x: Tensor) -> object:
        return self.function(self.head, x)


class Two(nn.Module):
    def forward(self, picture: Tensor, mask: Tensor) -> Tensor:
        return picture.mean((2, 3)) + mask


def on_a_condition(head: nn.Module, x: Tensor) -> object:
    x = x.mean((2, 3))
    return head(torch.cond(x.sum() > -1e9, lambda x: x * 2, lambda x: x - 1, (x,)))


def one_by_one(head: nn.Module, x: Tensor) -> object:
    return torch.stack([head(picture.mean((1, 2))) for picture in x])


def under_autocast(head: nn.Module, x: Tensor) -> object:
    with torch.autocast("cpu", torch.bfloat16):
        return head(x.mean((2, 3))).float()


class Sized(nn.Module):
    def forward(self, x: Tensor) -> Tensor:
        if x.shape[-1] != 224:
            raise ValueError("only 224 pixels")
        return x.mean((2, 3))


@pytest.mark.parametrize(
    ("module", "message"),
    [
        (Two(), r"Two takes 2 inputs \(picture, mask\)"),
        (Bad(lambda head, x: (head(x.mean((2, 3))), x)), "Bad gives a tuple of 2, not logits"),
        (Bad(lambda head, x: {"logits": head(x.mean((2, 3)))}), "Bad gives a dict of 1, not logits"),
        (Bad(lambda head, x: x), r"Bad gives \(3, 3, 32, 32\) torch.float32 for 3 pictures, not \(B, classes\) logits"),
        (Bad(lambda head, x: head(x.mean((2, 3))).argmax(1)[:, None]), "torch.int64 for 3 pictures"),
        (Bad(lambda head, x: head(x.mean((2, 3)))[:, :3]), "Bad gives 3 logits, but the contract has 4 labels"),
        (Bad(lambda head, x: head(x.mean((2, 3))) * (2 if x.mean() > 0.5 else 1)), "control flow must not depend on the picture"),
        (Bad(lambda head, x: head(torch.fft.rfft2(x).abs().mean((2, 3)))), r"Bad computes with complex numbers \(fft_rfft2\)"),
        (Bad(one_by_one), "control flow must not depend on the picture or the batch"),
        (Bad(on_a_condition), "control flow must not depend on the picture .*torch.cond"),
        (Bad(under_autocast), "the model turns autocast to torch.bfloat16 on; turn it off"),
        (Bad(lambda head, x: x.mean((1, 2, 3))[:, None].repeat(1, 4)), "no linear map or convolution with stored weights"),
        (Sized(), "Sized refuses pictures of 32 x 32 pixels .*only 224 pixels"),
    ],
    ids=[
        "two inputs",
        "tuple",
        "dict",
        "a map",
        "classes",
        "labels",
        "control flow",
        "complex",
        "batch",
        "cond",
        "autocast",
        "no layer",
        "size",
    ],
)
def test_what_is_no_classifier_is_refused_in_a_line(module: nn.Module, message: str, capfd: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(UserError, match=message) as caught:
        Adapted(module, SIZE, CLASSES).deploy()
    assert "\n" not in str(caught.value)
    assert len(str(caught.value)) < 300
    assert capfd.readouterr().err == ""


def test_a_module_that_changes_with_every_call_is_refused() -> None:
    class Stateful(Bad):
        calls = 0

        def forward(self, x: Tensor) -> object:
            self.calls += 1
            return self.head(x.mean((2, 3))) * self.calls

    with pytest.raises(UserError, match="Stateful gives a picture other logits from call to call"):
        Adapted(Stateful(lambda head, x: x), SIZE, CLASSES).deploy()


def test_a_module_that_looks_at_the_other_pictures_is_refused() -> None:
    with pytest.raises(UserError, match="Bad gives a picture other logits alone than beside others"):
        Adapted(Bad(lambda head, x: head((x - x.mean(0)).abs().mean((2, 3)))), SIZE, CLASSES).deploy()


def test_a_float_layer_without_a_match_is_refused() -> None:
    module = Bad(lambda head, x: head(x.mean((2, 3))))
    with pytest.raises(UserError, match="float layer 'haed': no such layer; one is called head"):
        Adapted(module, SIZE, CLASSES, ["haed"]).deploy()
