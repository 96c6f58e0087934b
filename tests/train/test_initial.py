from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch

from lavit_edge import create_model, load_checkpoint
from lavit_edge.contract import InputContract
from lavit_edge.errors import UserError
from lavit_edge.models.lavit import resize_tokens
from lavit_edge.train.initial import carried, fill_from, weights_from

THIN: dict[str, Any] = dict(dims=(16, 32, 64, 64), heads=(1, 1, 2, 2), num_vanilla=(1, 1, 1, 1))
REDUCED = dict(sr_ratios=(8, 4, 2, 1))
SQUARE: dict[str, Any] = dict(sr_ratios=(8, 4, 1, 1), attention_residual=(False, True, False, True))


@pytest.mark.parametrize("options", [REDUCED, SQUARE])
@pytest.mark.parametrize(("old_size", "new_size"), [(96, 160), (160, 96), (64, 128)])
def test_resized_weights_fit(options: dict[str, Any], old_size: int, new_size: int) -> None:
    torch.manual_seed(0)
    old, new = (create_model("lavit_tiny", num_classes=5, image_size=s, **THIN, **options) for s in (old_size, new_size))
    state = old.state_dict()
    state["stages.1.position"].fill_(0.7)
    state["stages.2.downsample.queries.bias" if options is REDUCED else "stages.3.downsample.key_pool.bias"].fill_(0.3)
    resized = resize_tokens(state, old_size, new_size, options["sr_ratios"])
    new.load_state_dict(resized)
    with torch.no_grad():
        assert new.eval()(torch.randn(1, 3, new_size, new_size)).isfinite().all()

    for name, value in resized.items():
        if name.endswith(("theta.weight", "psi.weight")):
            assert torch.equal(value, torch.eye(len(value))), name
        if "downsample" in name and "mix" not in name and name.endswith("weight"):
            torch.testing.assert_close(value, torch.full_like(value, 0.25))
        if name.endswith(("position", "key_pool.bias", "queries.bias")) and state[name].std() == 0:
            torch.testing.assert_close(value, torch.full_like(value, float(state[name].mean())))
        if value.shape == state[name].shape:
            assert torch.equal(value, state[name]), name


def test_theta_keeps_its_sum_over_inputs() -> None:
    state = {"stages.3.blocks.1.attention.theta.weight": torch.eye(9) + 0.01}  # 96 pixels: 3 x 3 keys
    (resized,) = resize_tokens(state, 96, 160, (8, 4, 2, 1)).values()
    torch.testing.assert_close(resized.sum(1), torch.full((25,), 1.09))


def test_position_embedding_is_interpolated_in_the_plane() -> None:
    ramp = torch.arange(8.0).repeat_interleave(8)[None, :, None]  # stage 4 at 256 pixels: the row number
    (resized,) = resize_tokens({"stages.3.position": ramp}, 256, 512, (8, 4, 2, 1)).values()
    rows = resized.reshape(16, 16)
    assert torch.equal(rows, rows[:, :1].expand(16, 16))
    # PyTorch's bicubic kernel (a = -0.75) bends a ramp by up to 0.05
    torch.testing.assert_close(rows[4:12, 0], torch.arange(4, 12) / 2 - 0.25, atol=0.05, rtol=0)


def test_the_heads_rows_follow_the_labels(tiny_checkpoint: Path, tiny_options: dict[str, Any]) -> None:
    checkpoint = load_checkpoint(tiny_checkpoint)
    old = checkpoint.model.state_dict()
    for labels in (tuple(f"class {i}" for i in (3, 1, 7)), ("tench", "class 2"), tuple(f"new {i}" for i in range(10))):
        fresh = create_model("lavit_mobile_s", num_classes=len(labels), image_size=96, **tiny_options)
        before = {name: value.clone() for name, value in fresh.state_dict().items()}
        lines = fill_from([checkpoint], fresh, "lavit_mobile_s", InputContract(96, labels))
        kept = [label for label in labels if label in checkpoint.contract.labels]
        for name in ("head.weight", "head.bias"):
            rows = fresh.state_dict()[name]
            for row, label in enumerate(labels):
                wanted = old[name][checkpoint.contract.labels.index(label)] if label in kept else before[name][row]
                assert torch.equal(rows[row], wanted), (name, label)
        everything = len(kept) == len(labels)
        assert f"all {len(kept)} classes" in lines[0] if everything else f"{len(kept)} of {len(labels)} classes" in lines[0]
        assert "trained with size 64, this run with 96" in lines[1]


def test_orders_of_classes_do_not_matter_to_the_mean(tiny_checkpoint: Path, tiny_options: dict[str, Any]) -> None:
    """Each class is averaged with itself; checkpoints of other classes, or of another input, are refused."""
    one, other = load_checkpoint(tiny_checkpoint), load_checkpoint(tiny_checkpoint)
    order = [*range(5, 10), *range(5)]
    with torch.no_grad():
        for name, value in other.model.named_parameters():
            if name.startswith("head."):
                value.copy_(value[order])
    turned = replace(other, contract=replace(other.contract, labels=tuple(f"class {i}" for i in order)))
    model = create_model("lavit_mobile_s", num_classes=10, image_size=64, **tiny_options)
    fill_from([one, turned], model, "lavit_mobile_s", one.contract)
    assert torch.equal(model.head.weight, one.model.state_dict()["head.weight"])
    renamed = replace(other, contract=replace(other.contract, labels=tuple(f"thing {i}" for i in range(10))))
    with pytest.raises(UserError, match="have other classes"):
        fill_from([one, renamed], model, "lavit_mobile_s", one.contract)
    dimmed = replace(other, contract=replace(other.contract, mean=(0.1, 0.1, 0.1)))
    with pytest.raises(UserError, match="another mean or std"):
        fill_from([one, dimmed], model, "lavit_mobile_s", one.contract)


def test_mean_std_and_filter_are_the_starts() -> None:
    start = InputContract(64, ("a", "b"), "crop", "bilinear", 0.9, (0.5, 0.5, 0.5), (0.25, 0.25, 0.25))
    assert carried(start, 96, ("c", "d"), "squash") == replace(start, size=96, labels=("c", "d"), resize="squash")


def test_another_architecture_is_refused(tiny_checkpoint: Path) -> None:
    with pytest.raises(UserError, match="--init holds a lavit_mobile_s, --model asks for a lavit_tiny"):
        weights_from(load_checkpoint(tiny_checkpoint), "lavit_tiny", {}, InputContract(64, ("a", "b")))


def test_several_give_the_mean_of_their_weights(tiny_checkpoint: Path, tiny_options: dict[str, Any]) -> None:
    one, other = load_checkpoint(tiny_checkpoint), load_checkpoint(tiny_checkpoint)
    with torch.no_grad():
        for value in other.model.parameters():
            value.mul_(3)
    mean = create_model("lavit_mobile_s", num_classes=10, image_size=64, **tiny_options)
    fill_from([one, other], mean, "lavit_mobile_s", one.contract)
    for (name, value), was in zip(mean.named_parameters(), one.model.parameters(), strict=True):
        torch.testing.assert_close(value, 2 * was, msg=name)


def test_one_gives_its_weights_to_the_bit(tiny_checkpoint: Path, tiny_options: dict[str, Any]) -> None:
    one = load_checkpoint(tiny_checkpoint)
    model = create_model("lavit_mobile_s", num_classes=10, image_size=64, **tiny_options)
    fill_from([one], model, "lavit_mobile_s", one.contract)
    assert all(torch.equal(value, one.model.state_dict()[name]) for name, value in model.state_dict().items())
