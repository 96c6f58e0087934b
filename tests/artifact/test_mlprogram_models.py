"""Whole models as exported for Core ML, read back by the reference evaluator, against torch."""

import functools
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn

pytest.importorskip("coremltools")
from lavit_edge.artifact.mlprogram import Feature, MLProgram
from lavit_edge.contract import InputContract
from lavit_edge.errors import UserError
from lavit_edge.export import coreml
from lavit_edge.export.golden import make_payload
from lavit_edge.export.targets import CoremlOptions
from lavit_edge.models import create_model
from lavit_edge.models.deployed import Deployed
from lavit_edge.quantize.program import tidy
from lavit_edge.quantize.scheme import default_float_layers, quantizable, quantizable_additions, quantized_model

SIZE, LABELS = 64, tuple(f"class {i}" for i in range(10))


def sqnr(reference: Tensor, value: Tensor) -> float:
    return 10 * torch.log10(reference.pow(2).sum() / (reference - value).pow(2).sum().clamp_min(1e-30)).item()


def pictures(count: int) -> np.ndarray:
    """Gradients, stripes and noise, uint8 ``(count, SIZE, SIZE, 3)``."""
    random = np.random.default_rng(0)
    y, x = np.mgrid[0:1:SIZE * 1j, 0:1:SIZE * 1j][..., None]  # fmt: skip
    waves = [np.sin(x * random.uniform(0, 20, 3) + y * random.uniform(0, 20, 3) + random.uniform(0, 6, 3)) for _ in range(count)]
    return (127.5 + 90 * np.stack(waves) + random.normal(0, 20, (count, SIZE, SIZE, 3))).clip(0, 255).astype(np.uint8)


def half_grid(module: nn.Module) -> nn.Module:
    """Every floating tensor rounded to what fp16 can hold, so that storing it in fp16 loses nothing."""
    for tensor in (*module.parameters(), *module.buffers()):
        if tensor.is_floating_point():
            tensor.data = tensor.data.half().float()
    return module.eval()


def deployed(name: str) -> Deployed:
    """A tiny model that tells pictures apart: random weights, large enough for its logits to vary."""
    torch.manual_seed(0)
    heads = (0, 0, 2, 2) if name == "lavit_mobile_s" else (1, 1, 2, 2)
    tiny: dict[str, Any] = dict(dims=(16, 32, 64, 64), heads=heads, depths=(1, 1, 2, 2), num_vanilla=(1, 1, 1, 1))
    model = create_model(name, num_classes=10, image_size=SIZE, **tiny).eval()
    for path, parameter in model.named_parameters():
        if path.endswith("project.norm.weight"):  # softmax of scores this large is chaos: 81 and 5 dB where it counts for 0.3
            nn.init.zeros_(parameter)
        parameter.data += torch.randn_like(parameter) * (1.0 if path.startswith("head") else 0.05)
    module = Deployed(model, InputContract(SIZE, LABELS))
    half_grid(module)
    return module


def quantized(model: Deployed, samples: Tensor) -> Deployed:
    """The int8 form by the ranges seen on ``samples``; its scales are rounded to fp16, so that storing them loses nothing."""
    float_layers = default_float_layers(model.model)
    layers, additions = quantizable(model.model, float_layers), quantizable_additions(model.model, float_layers)
    ranges = {f"{path}.output": torch.zeros(1) for path in additions}  # of those that the model never calls

    def record(path: str, _: nn.Module, x: tuple[Tensor, ...], y: Tensor) -> None:
        ranges.update({f"{path}.input": x[0], f"{path}.output": y} if path in layers else {f"{path}.output": y})

    hooks = [m.register_forward_hook(functools.partial(record, path)) for path, m in {**layers, **additions}.items()]
    with torch.no_grad():
        model(samples)
    for hook in hooks:
        hook.remove()
    tensors = {name: value for name, value in model.model.state_dict().items() if name.rpartition(".")[0] not in layers}
    for path, layer in layers.items():
        scale = (layer.weight.data.abs().flatten(1).amax(1).clamp_min(1e-6) / 127).half().float()
        tensors[f"{path}.weight_scale"] = scale
        codes = layer.weight.data / scale.reshape(-1, *[1] * (layer.weight.dim() - 1))
        tensors[f"{path}.weight"] = codes.round().clamp(-127, 127).to(torch.int8)
        if layer.bias is not None:
            tensors[f"{path}.bias"] = layer.bias.data
    for end, seen in ranges.items():
        low, high = min(seen.min().item(), 0.0), max(seen.max().item(), 0.0)
        scale = torch.tensor(max((high - low) / 255, 2.0**-14)).half().float()
        tensors[f"{end}_scale"] = scale
        tensors[f"{end}_zero_point"] = (-128 - low / scale).round().clamp(-128, 127).int()
    model.model = quantized_model(model.model, tensors, float_layers, "int8")
    return model.eval()


@pytest.mark.parametrize(
    ("name", "int8", "exact_db", "half_db"),
    # measured on two CPUs: 93 and 61, 103 and 61, 23 and 27 dB; random
    # weights lose all but 26 dB to int8, and what the first embedding
    # rounds otherwise moves some codes by one
    [("lavit_mobile_s", False, 85, 55), ("lavit_tiny", False, 85, 55), ("lavit_mobile_s", True, 18, 18)],
    ids=["mobile", "tiny", "mobile int8"],
)
def test_a_whole_model_equals_torch(name: str, int8: bool, exact_db: float, half_db: float, tmp_path: Path) -> None:
    model, uint8 = deployed(name), pictures(8)
    x = torch.from_numpy(uint8).permute(0, 3, 1, 2).float()
    if int8:
        model = quantized(model, x)
    example = (torch.zeros(1, 3, SIZE, SIZE),)
    exported = torch.export.export(model, example)
    if int8:
        exported = torch.export.export(tidy(exported.module()), example)
    path = tmp_path / "m.mlpackage"
    payload = make_payload(exported, InputContract(SIZE, LABELS), {}, 8.0)
    coreml.export(exported, payload, path, CoremlOptions())
    with torch.no_grad():
        expected = torch.cat([model(picture[None]) for picture in x])

    for precision in ("float32", "float16"):
        program = MLProgram(path, precision)
        results: list[dict[str, Any]] = [program.predict({"image": picture}) for picture in uint8]
        logits = torch.from_numpy(np.concatenate([result["logits"] for result in results]))
        assert sqnr(expected, logits) >= (exact_db if precision == "float32" else half_db)
        assert [result["classLabel"] for result in results] == [LABELS[i] for i in logits.argmax(1)]
        probabilities = torch.tensor([[result["classLabel_probs"][label] for label in LABELS] for result in results])
        torch.testing.assert_close(probabilities, logits.softmax(1))

    assert program.inputs == {"image": Feature("image", (SIZE, SIZE, 3))}
    assert program.outputs == {
        "classLabel": Feature("label"),
        "classLabel_probs": Feature("probabilities"),
        "logits": Feature("array", (1, 10)),
    }
    assert ("quantize" in dict(program.operations)) == int8
    for picture in (uint8[0, :-1], uint8[0].astype(np.float32), uint8[:1]):
        with pytest.raises(UserError, match=r"input image takes uint8 \(64, 64, 3\)"):
            program.predict({"image": picture})
