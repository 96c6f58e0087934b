"""Ranges from observation, biases, and the int8 form that is read off NNCF's quantisers."""

from __future__ import annotations

import copy
import functools

import pytest
import torch

from lavit_edge.checkpoint import INT8
from lavit_edge.quantize.equalize import equalize
from lavit_edge.quantize.evaluate import sqnr
from lavit_edge.quantize.scheme import (
    SMALLEST_SCALE,
    QuantizedAdd,
    QuantizedLayer,
    check_tensors,
    default_float_layers,
    quantized_model,
)

pytest.importorskip("nncf")
from lavit_edge.quantize.calibrate import calibrate, int8_form


@pytest.fixture(scope="module")
def calibrated(deployed, calibration):
    return calibrate(deployed, calibration, default_float_layers(deployed.model))


@pytest.fixture(scope="module")
def form(calibrated):
    return int8_form(calibrated)


def fake(deployed, form):
    model = copy.deepcopy(deployed)
    model.model = quantized_model(model.model, form, default_float_layers(model.model), "fake")
    return model


def test_post_training_quantisation_is_close(deployed, form, pictures):
    with torch.no_grad():
        assert sqnr(deployed(pictures), fake(deployed, form)(pictures)) > 15  # 20 measured


@torch.no_grad()
def test_what_is_trained_is_what_is_lowered(deployed, calibrated, form, pictures):
    """Layer by layer, for the same input: biases are rounded for good, and a sum near a tie then falls on the other side.

    Through the whole of so small a net that grows to as much as int8's own noise.
    """
    lowered, calls = fake(deployed, form), {}
    layers = {path: m for path, m in calibrated.model.named_modules() if isinstance(m, QuantizedLayer | QuantizedAdd)}

    def record(path, _, inputs, output):
        calls[path] = inputs, output

    hooks = [module.register_forward_hook(functools.partial(record, path)) for path, module in layers.items()]
    trained = calibrated(pictures)
    for hook in hooks:
        hook.remove()
    for path, (inputs, output) in calls.items():
        steps = (lowered.model.get_submodule(path)(*inputs) - output).abs() / form[f"{path}.output_scale"]
        assert steps.max() < 1.01, path
        assert (steps > 0.5).double().mean() < 0.01, path  # 0.0022 at most
    assert len(calls) == 47 + 13
    reference = deployed(pictures)
    assert abs(sqnr(reference, trained) - sqnr(reference, lowered(pictures))) < 2  # 20.1 and 20.2 dB


@torch.no_grad()
def test_each_quantiser_rounds_as_nncf_does(calibrated, form):
    for path in ("stages.1.embedding.channels.conv", "stages.0.blocks.0.mixer.conv", "stages.2.blocks.1.attention.theta"):
        layer = calibrated.model.get_submodule(path)
        codes, scale = form[f"{path}.weight"], form[f"{path}.weight_scale"]
        weight = codes * scale.reshape(-1, *[1] * (codes.dim() - 1))
        torch.testing.assert_close(layer.quantize_weight(layer.weight), weight, rtol=1e-5, atol=1e-7)
        for end, quantizer in (("input", layer.quantize_input), ("output", layer.quantize_output)):
            scale, zero_point = form[f"{path}.{end}_scale"], form[f"{path}.{end}_zero_point"]
            grid = (torch.arange(-140, 140) - zero_point + 0.3) * scale  # away from ties, and past both ends
            expected = torch.fake_quantize_per_tensor_affine(grid, float(scale), int(zero_point), -128, 127)
            torch.testing.assert_close(quantizer(grid), expected, rtol=1e-4, atol=1e-6)


def test_layers_that_share_a_tensor_share_its_grid(form):
    def grid(path: str, end: str) -> tuple[float, int]:
        return float(form[f"{path}.{end}_scale"]), int(form[f"{path}.{end}_zero_point"])

    block = "stages.3.blocks.0"
    inputs = [grid(f"{block}.attention.{name}.conv", "input") for name in ("query", "key", "value")]
    assert inputs == [grid(f"{block}.mixer.conv", "output")] * 3
    reuse = "stages.2.blocks.1.attention"  # with a transpose between
    assert grid(f"{reuse}.theta", "output") == grid(f"{reuse}.psi", "input")
    assert grid("stages.1.embedding.spatial.conv", "output") == grid("stages.1.embedding.channels.conv", "input")
    assert grid(f"{block}.ffn.expand.conv", "output") == grid(f"{block}.ffn.contract.conv", "input")  # with a ReLU between
    assert grid(f"{block}.add_attention", "output") == grid(f"{block}.ffn.expand.conv", "input")
    assert grid(f"{block}.add_ffn", "output") == grid("stages.3.blocks.1.mixer.conv", "input")
    assert grid("stages.1.embedding.add", "output") == grid("stages.1.blocks.0.mixer.conv", "input")


def test_output_ranges_are_the_true_extremes(calibrated, calibration):
    layers = [
        calibrated.model.get_submodule(path) for path in ("stages.0.blocks.0.ffn.expand.conv", "stages.1.embedding.channels.conv")
    ]
    seen: list[list] = [[], []]
    hooks = [
        layer.quantize_output.register_forward_pre_hook(lambda _, arguments, s=s: s.append(arguments[0].aminmax()))
        for layer, s in zip(layers, seen, strict=True)
    ]
    with torch.no_grad():
        for picture in calibration:
            calibrated(picture)
    for hook in hooks:
        hook.remove()
    low, high = [min(float(s.min) for s in each) for each in seen], [max(float(s.max) for s in each) for each in seen]
    expand, conv = (layer.quantize_output for layer in layers)
    assert low[0] < 0
    assert float(expand.input_low) == 0, "a ReLU follows"
    # the outputs before these were not yet quantised when the ranges were observed
    assert float(expand.input_range) == pytest.approx(high[0], rel=0.03)
    assert float(conv.input_low) == pytest.approx(low[1], rel=0.03)
    assert float(conv.input_range) == pytest.approx(high[1] - low[1], rel=0.03)


@torch.no_grad()
@pytest.mark.parametrize(
    "path", ["stages.1.embedding.spatial.conv", "stages.0.blocks.0.mixer.conv", "stages.2.blocks.1.ffn.contract.conv"]
)
def test_a_bias_makes_up_for_what_rounding_takes_from_the_mean(path, deployed, calibrated, calibration):
    exact, layer, inputs = deployed.model.get_submodule(path), calibrated.model.get_submodule(path), []
    hook = layer.register_forward_pre_hook(lambda _, arguments: inputs.append(arguments[0]))
    for picture in calibration:
        calibrated(picture)
    hook.remove()

    def taken(bias):
        """By channel."""
        return torch.stack([exact(x) - rounded(x, bias) for x in inputs]).movedim(2, 0).flatten(1).mean(1)

    def rounded(x, bias):
        return layer.compute(layer.quantize_input(x), layer.quantize_weight(layer.weight), bias)

    assert taken(layer.bias).abs().max() < 0.1 * taken(exact.bias).abs().max()


def test_a_dead_layer_keeps_scales_that_fp16_can_hold(deployed, calibration):
    dead = copy.deepcopy(deployed)
    layer = dead.model.get_submodule("stages.2.blocks.0.attention.project.conv")
    torch.nn.init.zeros_(layer.weight)
    torch.nn.init.zeros_(layer.bias)
    float_layers = default_float_layers(dead.model)
    form = int8_form(calibrate(dead, calibration[:4], float_layers))
    check_tensors(dead.model, form, float_layers, "form")
    path = "stages.2.blocks.0.attention.project.conv"
    assert float(form[f"{path}.output_scale"]) >= SMALLEST_SCALE
    assert bool((form[f"{path}.weight_scale"].half() > 0).all())
    assert bool(fake(dead, form)(calibration[0]).isfinite().all())


def bias_steps(form, path):
    steps = form[f"{path}.input_scale"].double() * form[f"{path}.weight_scale"].double()
    return form[f"{path}.bias"].double() / steps


def test_biases_are_whole_steps_of_the_accumulator(form):
    paths = [name.removesuffix(".weight_scale") for name in form if name.endswith(".weight_scale")]
    steps = torch.cat([bias_steps(form, path) for path in paths if f"{path}.bias" in form])
    assert steps.abs().max() > 100, "not rounded away"
    # float32 holds steps up to 2^24 exactly
    torch.testing.assert_close(steps, steps.round(), rtol=2**-22, atol=1e-3)


def test_the_bias_of_an_empty_channel_fits_into_int32(deployed, calibration):
    path, empty = "stages.0.blocks.0.ffn.expand.conv", copy.deepcopy(deployed)
    layer = empty.model.get_submodule(path)
    with torch.no_grad():
        layer.weight[0], layer.bias[0] = 0, 3.0
    form = int8_form(calibrate(empty, calibration[:4], default_float_layers(empty.model)))
    assert bias_steps(form, path).abs().max() <= 2**30 + 64
    assert float(form[f"{path}.bias"][0]) == pytest.approx(3, rel=0.02)  # biases are corrected
    assert float(form[f"{path}.weight"][0].abs().max()) == 0


def test_the_command_without_epochs_calibrates_and_saves_in_the_nearer_units(deployed, in_units, calibration, int8):
    from safetensors.torch import load_file

    forms = [int8_form(calibrate(each, calibration, default_float_layers(each.model))) for each in (in_units, deployed)]
    if in_units is deployed:
        equalised = equalize(deployed, calibration)
        forms[1] = int8_form(calibrate(equalised, calibration, default_float_layers(equalised.model)))
    saved, other = load_file(int8 / INT8), forms[1]
    assert any(not torch.equal(saved[name], other[name]) for name in saved)
    assert saved.keys() == forms[0].keys()
    weights = [name for name in saved if name.endswith(".weight")]
    assert all(torch.equal(saved[name], forms[0][name]) for name in weights), "steps of additions may have grown since"
