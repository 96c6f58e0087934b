"""A fault in any layer is named, in every runtime, whatever the logits show; and no sound layer is, in an int8 net of nothing but
convolutions, ReLU and residual additions.
"""

from __future__ import annotations

import itertools
import math
import shutil
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from rich.console import Console
from torch import Tensor, nn
from torch.export import ExportedProgram

pytest.importorskip("executorch")
pytest.importorskip("onnx")
pytest.importorskip("coremltools")
from lavit_edge.artifact.runners import open_artifact
from lavit_edge.contract import InputContract
from lavit_edge.export.golden import make_payload
from lavit_edge.export.targets import ALL, TARGETS
from lavit_edge.parity.agreement import FLOAT, PROGRAM, Gates, compare
from lavit_edge.parity.locate import MOST_STEPS, Located, locate
from lavit_edge.parity.locate_points import Reference, laid_out
from lavit_edge.quantize.program import tidy
from lavit_edge.quantize.scheme import HIGH, LOW, Dequantize, QuantizeDequantize

pytestmark = pytest.mark.slow
CONTRACT = InputContract(size=32, labels=tuple(f"class {index}" for index in range(10)))
FAULTS: dict[str, Callable[[np.ndarray], np.ndarray]] = {
    "zeroed": np.zeros_like,
    "negated": np.negative,
    "rotated": lambda weight: np.roll(weight, 1, axis=0),
}
SCALED = {"halved": lambda weight: weight // 2}  # as a wrong scale of the weight does


class Watched(nn.Module):
    """Float, and watches its output's range, until :meth:`quantize`; then its output is int8."""

    def __init__(self) -> None:
        super().__init__()
        self.grid: QuantizeDequantize | None = None
        self.low = self.high = 0.0

    def forward(self, *inputs: Tensor) -> Tensor:
        y = self.compute(*inputs)
        if self.grid is not None:
            return self.grid(y)
        self.low, self.high = min(self.low, float(y.min())), max(self.high, float(y.max()))
        return y

    def quantize(self) -> None:
        step = (self.high - self.low) / (HIGH - LOW)
        self.grid = QuantizeDequantize(step, round(LOW - self.low / step))


class Identity(Watched):
    def compute(self, x: Tensor) -> Tensor:
        return x


class Add(Watched):
    def compute(self, x: Tensor, y: Tensor) -> Tensor:
        return x + y


class Conv(Watched):
    """Its quantiser is the ReLU behind it, if there is one: the range starts at zero."""

    def __init__(self, inputs: int, outputs: int, kernel: int = 1, stride: int = 1, groups: int = 1, relu: bool = False) -> None:
        super().__init__()
        layer = nn.Conv2d(inputs, outputs, kernel, stride, kernel // 2, groups=groups)
        self.options, self.relu = dict(stride=stride, padding=kernel // 2, groups=groups), relu
        self.weight, self.codes = layer.weight.detach(), None
        self.register_buffer("bias", layer.bias.detach())

    def compute(self, x: Tensor) -> Tensor:
        weight = self.weight if self.codes is None else self.dequantize(self.codes)
        y = nn.functional.conv2d(x, weight, self.bias, **self.options)
        return y.relu() if self.relu and self.grid is None else y

    def quantize(self) -> None:
        super().quantize()
        scale = self.weight.flatten(1).abs().amax(1) / HIGH
        del self.codes
        self.register_buffer("codes", (self.weight / scale.reshape(-1, 1, 1, 1)).round().to(torch.int8))
        self.dequantize = Dequantize(scale)


class Block(nn.Module):
    def __init__(self, width: int) -> None:
        super().__init__()
        self.depthwise = Conv(width, width, kernel=3, groups=width)
        self.expand, self.contract = Conv(width, 2 * width, relu=True), Conv(2 * width, width)
        self.add = Add()

    def forward(self, x: Tensor) -> Tensor:
        return self.add(x, self.contract(self.expand(self.depthwise(x))))


class ConvNet(nn.Module):
    """First embedding and head are float, as in the package's models."""

    def __init__(self) -> None:
        super().__init__()
        self.stem, self.stem_output = nn.Conv2d(3, 8, 3, 2, 1), Identity()
        self.embedding = Conv(8, 16, kernel=3, stride=2, relu=True)
        self.blocks = nn.Sequential(*[Block(16) for _ in range(3)])
        self.last, self.head = Conv(16, 32, relu=True), nn.Linear(32, 10)
        # says next to nothing: with it zeroed, the logits are as near to the program's as rounding leaves them
        self.blocks[1].contract.weight *= 0.01
        self.blocks[1].contract.bias *= 0.01

    def forward(self, x: Tensor) -> Tensor:
        x = self.stem_output(self.stem(x).relu())
        x = self.last(self.blocks(self.embedding(x)))
        return self.head(x.mean((2, 3)))


class Deployed(nn.Module):
    def __init__(self, model: nn.Module) -> None:
        super().__init__()
        self.model = model

    def forward(self, picture: Tensor) -> Tensor:
        return self.model((picture - 120) / 60)


@torch.no_grad()
def conv_program(inputs: Tensor, build: Callable[[], nn.Module]) -> tuple[ExportedProgram, np.ndarray]:
    """The int8 program, and the logits that the float model has for ``inputs``, float32 ``(N, 3, 32, 32)``, 0..255."""
    torch.manual_seed(0)
    net = Deployed(build()).eval()
    nn.init.normal_(net.model.head.weight)
    logits = net(inputs).numpy()
    for module in list(net.modules()):
        if isinstance(module, Watched):
            module.quantize()
    example = (inputs[:1].clone(),)
    return torch.export.export(tidy(torch.export.export(net, example).module(check_guards=False)), example), logits


def export_all(program: ExportedProgram, folder: Path) -> list[Path]:
    """Its artifacts: ``.mlpackage``, ``.onnx``, ``.ort``, ``.pte``."""
    for target in (TARGETS[name] for name in ALL):
        target.export(program, make_payload(program, CONTRACT, {}, 50.0), folder / f"model{target.suffix}")
    return sorted(folder.iterdir())


def plant(path: Path, weight: np.ndarray, fault: Callable[[np.ndarray], np.ndarray]) -> None:
    """Overwrites an int8 weight where an artifact stores it, in whatever order of its axes; an ``.ort`` has it 128 higher."""
    files = [path] if path.is_file() else [file for file in path.rglob("*") if file.is_file()]
    higher = 128 if path.suffix == ".ort" else 0
    for order, file in itertools.product(itertools.permutations(range(weight.ndim)), files):
        codes = (np.ascontiguousarray(value.transpose(order)).astype(np.int16) + higher for value in (weight, fault(weight)))
        old, new = (value.astype(np.uint8).tobytes() for value in codes)
        if (content := file.read_bytes()).count(old) == 1:
            file.write_bytes(content.replace(old, new))
            return
    raise AssertionError(f"{path.name} does not hold that weight once")


class Case:
    """The net, its pictures and its artifacts."""

    def __init__(self, folder: Path, build: Callable[[], nn.Module] = ConvNet) -> None:
        folder.mkdir(exist_ok=True)
        coarse = torch.randint(0, 256, (6, 3, 8, 8), generator=torch.Generator().manual_seed(0)).float()
        self.inputs = torch.nn.functional.interpolate(coarse, 32, mode="bicubic").clamp(0, 255).round()
        self.program, self.fp32 = conv_program(self.inputs, build)
        self.pictures = list(self.inputs.permute(0, 2, 3, 1).to(torch.uint8).numpy())
        self.artifacts = export_all(self.program, folder)

    def locate(self, artifacts: list[Path]) -> list[Located]:
        return locate(self.program, artifacts, self.pictures[:2], Gates(), Console(quiet=True))

    def weights(self) -> dict[str, np.ndarray]:
        """Layer -> its int8 weight."""
        tensors = self.program.state_dict
        return {name[len("model.") : -len(".codes")]: tensors[name].numpy() for name in tensors if name.endswith(".codes")}


@pytest.fixture(scope="module")
def case(tmp_path_factory: pytest.TempPathFactory) -> Case:
    return Case(tmp_path_factory.mktemp("convnet"))


def damaged(artifact: Path, weights: list[np.ndarray], fault: str, folder: Path) -> Path:
    folder.mkdir(parents=True)
    copy = Path((shutil.copytree if artifact.is_dir() else shutil.copy)(artifact, folder / artifact.name))
    for weight in weights:
        plant(copy, weight, (FAULTS | SCALED)[fault])
    return copy


def test_sound_artifacts_name_no_layer(case: Case) -> None:
    points = Reference(case.program).points
    assert sum(point.op == "add" and point.scale is not None for point in points.values()) == 3
    for result in case.locate(case.artifacts):
        assert result.first is None
        assert result.notes == []
        assert len(result.layers) >= len(points) - 2  # some are fused away
        assert set(case.weights()) <= {layer.layer for layer in result.layers}


@pytest.mark.parametrize("fault", FAULTS)
def test_every_damaged_weight_is_named_and_no_other(case: Case, fault: str, tmp_path: Path) -> None:
    weights = case.weights()
    for turn in (0, 1):  # every other layer, for each is judged on what it is given
        layers = list(weights)[turn::2]
        made = [
            damaged(path, [weights[name] for name in layers], fault, tmp_path / f"{turn}-{path.suffix}")
            for path in case.artifacts
        ]
        for result in case.locate(made):
            assert {layer.layer for layer in result.layers if layer.bad} == set(layers), result.artifact


def test_a_zeroed_layer_that_the_logits_do_not_show_is_named(case: Case, tmp_path: Path) -> None:
    weight = case.weights()["blocks.1.contract"]
    made = [damaged(path, [weight], "zeroed", tmp_path / path.suffix) for path in case.artifacts]
    module = case.program.module()
    logits = {FLOAT: case.fp32, PROGRAM: np.concatenate([module(x[None]).detach().numpy() for x in case.inputs])}
    for path in made:
        run = open_artifact(path, threads=1)
        logits[path.name] = np.stack([run(picture) for picture in case.pictures])
    assert compare(logits, None, PROGRAM, Gates()).failures == []
    for result in case.locate(made):
        assert result.first is not None
        assert result.first.layer == "blocks.1.contract"


class Cancelling(nn.Module):
    """A depthwise convolution whose sums, near 100, cancel to a few: rounding its weights to fp16 moves it by several steps."""

    def __init__(self) -> None:
        super().__init__()
        self.stem, self.stem_output = nn.Conv2d(3, 16, 3, 2, 1), Identity()
        self.depthwise = Conv(16, 16, kernel=3, groups=16, relu=True)
        self.last, self.head = Conv(16, 32, relu=True), nn.Linear(32, 10)
        nn.init.constant_(self.stem.bias, 5.0)  # and the picture moves it by a little
        self.stem.weight *= 0.05
        self.depthwise.weight += 2.3
        self.depthwise.bias -= 5.0 * self.depthwise.weight.flatten(1).sum(1)

    def forward(self, x: Tensor) -> Tensor:
        return self.head(self.last(self.depthwise(self.stem_output(self.stem(x).clamp(0, 6)))).mean((2, 3)))


def test_what_fp16_must_cost_is_allowed_and_a_fault_beside_it_is_not(tmp_path: Path) -> None:
    case = Case(tmp_path / "sound", Cancelling)
    located = {result.artifact: result for result in case.locate(case.artifacts)}
    for name, result in located.items():
        assert result.first is None, name
        (layer,) = [each for each in result.layers if each.layer == "depthwise"]
        if name == "model.mlpackage":
            assert "stem_output.grid" in {each.layer for each in result.layers}  # coremltools calls its clamp clip_0
            assert layer.steps > MOST_STEPS
            assert 1 < layer.half_steps < 20
        else:
            assert {each.half_steps for each in result.layers} == {0}
    (package,) = [path for path in case.artifacts if path.suffix == ".mlpackage"]
    for fault in FAULTS | SCALED:
        made = damaged(package, [case.weights()["depthwise"]], fault, tmp_path / fault)
        (result,) = case.locate([made])
        assert [layer.layer for layer in result.layers if layer.bad] == ["depthwise"], fault


@pytest.mark.parametrize("shape", [(1, 3, 2, 2), (1, 2, 2, 2), (2, 4, 4), (4, 1, 3), (1, 2, 2, 4)])
def test_axes_in_another_order_are_turned(shape: tuple[int, ...]) -> None:
    """ONNX Runtime leaves an operator behind a layer with channels last its name, and that layout: of a ConvNeXt, the last
    product before the mean was -3 dB from itself; so was the scale of an ``nn.TransformerEncoder``'s queries in Core ML. Where
    the sides do not tell the order, the program's own values do."""
    wanted = torch.arange(math.prod(shape)).reshape(shape).float()
    noisy = wanted + torch.randn(shape, generator=torch.Generator().manual_seed(0)) / 10
    for order in itertools.permutations(range(len(shape))):
        assert torch.equal(laid_out(noisy.permute(order), wanted), noisy)


def test_a_value_of_other_axes_is_reshaped() -> None:
    value = torch.arange(24.0).reshape(2, 3, 4)
    assert torch.equal(laid_out(value, torch.zeros(6, 4)), value.reshape(6, 4))
