"""Every registered model, whatever its architecture, keeps what the rest of the package asks of it."""

from __future__ import annotations

import functools
import re
from pathlib import Path

import pytest
import torch
from torch import nn
from torch.utils.flop_counter import FlopCounterMode

from lavit_edge import create_model, list_models
from lavit_edge.models.blocks import initialise
from lavit_edge.models.classifier import Classifier
from lavit_edge.quantize.scheme import default_float_layers, quantizable

DOCS = Path(__file__).resolve().parents[2] / "docs" / "architectures.md"
NANO = [name for name in list_models() if name.endswith("_nano")]
PHONE = [*NANO, "lavit_mobile_s", "lavit_mobile_m"]
# Parameters in millions and multiply-adds in 10^9, at 224 pixels with 1000 classes. Of LaViT, a reconstruction. Of LIT, from the
# authors' code. Of PVT and ViT, published.
COUNTS = {
    "lavit_tiny": (11.26, 1.71),
    "lavit_small": (22.28, 3.41),
    "lavit_base": (40.03, 6.06),
    "lit_tiny": (19.89, 3.61),
    "lit_small": (27.97, 4.08),
    "lit_medium": (49.37, 8.59),
    "lit_base": (87.29, 15.03),
    "pvt_tiny": (13.23, 1.93),
    "pvt_small": (24.49, 3.81),
    "pvt_medium": (44.21, 6.65),
    "vit_tiny": (5.72, 1.25),
    "vit_small": (22.05, 4.60),
    "vit_base": (86.57, 17.56),
    "fibottention_base": (86.57, 17.56),
}


@functools.cache
def count(name: str, num_classes: int = 1000) -> tuple[float, float]:
    """Parameters in millions and multiply-adds in 10^9, at 224 pixels."""
    with torch.device("meta"):  # shapes alone are enough to count
        model = create_model(name, num_classes=num_classes).eval()
        with FlopCounterMode(display=False) as flops, torch.no_grad():
            model(torch.zeros(1, 3, 224, 224))
    return sum(p.numel() for p in model.parameters()) / 1e6, flops.get_total_flops() / 2e9


def small(name: str, image_size: int = 64, seed: int = 0) -> Classifier:
    """The model at random, also in what starts as zero or one: batch norms, offsets, biases of position."""
    torch.manual_seed(seed)
    model = create_model(name, num_classes=10, image_size=image_size)
    for value in model.state_dict().values():
        if value.is_floating_point():
            value += 0.05 * torch.randn_like(value)
    for module in model.modules():
        if isinstance(module, nn.BatchNorm2d):
            assert module.running_var is not None
            nn.init.uniform_(module.running_var, 0.5, 2.0)
    return model.eval()


@pytest.mark.parametrize(("name", "counts"), COUNTS.items())
def test_parameters_and_multiply_adds(name: str, counts: tuple[float, float]) -> None:
    assert count(name) == pytest.approx(counts, abs=0.0101)


def test_lsla_with_the_head_of_its_paper() -> None:
    assert count("lsla_tiny", num_classes=102) == pytest.approx((19.08, 3.50), abs=0.01)


@pytest.mark.parametrize("name", NANO)
def test_nano_is_phone_sized(name: str) -> None:
    parameters, macs = count(name)
    assert parameters <= 4.0
    assert macs <= 0.6


@pytest.mark.parametrize("name", list_models())
def test_the_documentation_has_its_counts(name: str) -> None:
    row = f"| `{name}` | {count(name)[0]:.2f} | {count(name)[1]:.2f} |"
    found = re.search(rf"^\| `{name}`.*$", DOCS.read_text(encoding="utf-8"), re.MULTILINE)
    assert found is not None, f"docs/architectures.md lacks a row like {row}"
    numbers = re.findall(r"(?<![\w.])\d+\.\d\d(?![\w.])", found[0])
    assert f"{count(name)[0]:.2f}" in numbers, row
    assert f"{count(name)[1]:.2f}" in numbers, row


@pytest.mark.parametrize("size", [128, 160, 224])
@pytest.mark.parametrize("name", PHONE)
def test_runs_at_every_size(name: str, size: int) -> None:
    model = create_model(name, num_classes=7, image_size=size).eval()
    with torch.no_grad():
        logits = model(torch.randn(2, 3, size, size))
    assert logits.shape == (2, 7)
    assert logits.isfinite().all()


@pytest.mark.parametrize("name", list_models())
def test_blocks_have_their_places_and_float_layers_exist(name: str) -> None:
    with torch.device("meta"):
        model = create_model(name)
    place = re.compile(r"stages\.\d\.(blocks\.\d+\.(mixer|attention|ffn)\.|embedding\.|downsample\.)|head$")
    layers = quantizable(model, ())
    assert [path for path in layers if not place.match(path)] == []
    for pattern in model.float_layers:
        assert default_float_layers(model) & {
            path for path in layers if path.startswith(pattern.strip("*")) or path.endswith(pattern.strip("*"))
        }


@pytest.mark.parametrize("name", PHONE)
def test_deploy_computes_the_same(name: str) -> None:
    model = small(name).double()
    before = {key: value.clone() for key, value in model.state_dict().items()}
    deployed, x = model.deploy(), torch.randn(3, 3, 64, 64, dtype=torch.float64)
    with torch.no_grad():
        expected = model(x)
        assert expected.std() > 0.1
        torch.testing.assert_close(deployed(x), expected, rtol=1e-4, atol=1e-4)
        torch.testing.assert_close(deployed.deploy()(x), expected, rtol=1e-4, atol=1e-4)
    assert not [module for module in deployed.modules() if isinstance(module, nn.BatchNorm2d)]
    assert all(parameter.requires_grad for parameter in deployed.parameters()), "quantisation-aware training starts here"
    assert all(torch.equal(value, before[key]) for key, value in model.state_dict().items())


@pytest.mark.parametrize("name", PHONE)
def test_pictures_do_not_see_each_other(name: str) -> None:
    model, x = small(name), torch.randn(3, 3, 64, 64)
    with torch.no_grad():
        torch.testing.assert_close(model(x), torch.cat([model(picture[None]) for picture in x]), rtol=1e-3, atol=1e-3)


@pytest.mark.parametrize("name", PHONE)
def test_gradients_reach_every_parameter(name: str) -> None:
    model, x = small(name).train(), torch.randn(2, 3, 64, 64)
    features, maps = model.features(x)
    loss = nn.functional.cross_entropy(model.head(features), torch.tensor([1, 2])) + model.auxiliary_loss(maps)
    loss.backward()
    for path, parameter in model.named_parameters():
        assert parameter.grad is not None, path
        assert parameter.grad.isfinite().all(), path
        # a constant added to a row of scores drops out of the softmax
        assert parameter.grad.any() or path.endswith(("key.bias", "key.norm.bias", "psi.bias", "mix.bias", "key_pool.bias")), path


@pytest.mark.parametrize("name", PHONE)
def test_weights_go_to_another_size(name: str) -> None:
    old, new = small(name, 96), small(name, 160, seed=1)
    resized = old.resized(new.state_dict())
    new.load_state_dict(resized)
    with torch.no_grad():
        assert new(torch.randn(1, 3, 160, 160)).isfinite().all()
    for key, value in old.state_dict().items():
        if value.shape == resized[key].shape:
            assert torch.equal(value, resized[key]), key
        elif key.endswith((".position", ".position_table")):
            torch.testing.assert_close(resized[key].mean(), value.mean(), rtol=0, atol=0.01)


@pytest.mark.parametrize("name", PHONE)
def test_exported_scores_are_three_dimensional(name: str) -> None:
    """A 4-D softmax beside a convolution comes out wrong in XNNPACK, and a 4-D matmul adds copies."""
    graph = torch.export.export(small(name).deploy(), (torch.randn(1, 3, 64, 64),)).graph
    nodes = [node for node in graph.nodes if node.op == "call_function"]
    softmax = [node for node in nodes if "softmax" in str(node.target)]
    assert softmax
    assert all(node.args[0].meta["val"].ndim == 3 for node in softmax)
    for operator in ("matmul", "repeat", "expand", "index.", "gather"):
        assert not [node for node in nodes if f"aten.{operator}" in str(node.target)], operator


@pytest.mark.parametrize("name", PHONE)
def test_a_start_can_be_repeated(name: str) -> None:
    states = []
    for _ in range(2):
        torch.manual_seed(5)
        states.append(create_model(name, num_classes=10, image_size=64).apply(initialise).state_dict())
    assert all(torch.equal(value, states[1][key]) for key, value in states[0].items())


@pytest.mark.parametrize("name", NANO)
def test_the_comparison_has_its_rows(name: str) -> None:
    """benchmarks/less_attention.py measures whatever is registered; this says when to run it again."""
    tables = (DOCS.parent / "less_attention" / "tables.md").read_text(encoding="utf-8")
    assert len(re.findall(rf"^\| {name} \|", tables, re.MULTILINE)) > 3
