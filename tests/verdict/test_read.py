"""What is read from artifacts, against counts made by hand."""

from __future__ import annotations

import collections
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from lavit_edge.errors import UserError
from lavit_edge.export.onnx import OPSET, fold_weight_transposes
from lavit_edge.quantize.program import tidy
from lavit_edge.quantize.scheme import Dequantize, QuantizeDequantize, QuantizedLayer
from lavit_edge.toolchain import quiet
from lavit_edge.verdict.judge import judge
from lavit_edge.verdict.plan import Plan
from lavit_edge.verdict.read import read

TOKENS, DIM = 8, 64
LINEAR = TOKENS * DIM * DIM  # multiply-adds
Save = Callable[..., Path]  # of a module and its input


def int8(layer: nn.Linear | nn.Conv2d) -> QuantizedLayer:
    """The layer between quantisers, with random codes."""
    codes = torch.randint(-127, 128, layer.weight.shape, dtype=torch.int8)
    bias = None if layer.bias is None else layer.bias.detach()
    scale = Dequantize(torch.full((len(codes),), 1e-3))
    return QuantizedLayer(layer, codes, bias, QuantizeDequantize(0.05, 3), scale, QuantizeDequantize(0.05, 3))


def linear() -> QuantizedLayer:
    return int8(nn.Linear(DIM, DIM))


def tokens() -> Tensor:
    return torch.randn(TOKENS, DIM)


def program(module: nn.Module, x: Tensor) -> torch.export.ExportedProgram:
    torch.manual_seed(0)
    with torch.no_grad():
        exported = torch.export.export(module.eval(), (x,))
        return torch.export.export(tidy(exported.module(check_guards=False)), (x,))


@pytest.fixture
def save_pte(tmp_path: Path) -> Save:
    """Writes a ``.pte`` for the XNNPACK delegate."""

    def save(module: nn.Module, x: Tensor) -> Path:
        from executorch.backends.xnnpack.partition.xnnpack_partitioner import XnnpackPartitioner
        from executorch.exir import to_edge_transform_and_lower

        path = tmp_path / "model.pte"
        with quiet():
            lowered = to_edge_transform_and_lower(program(module, x), partitioner=[XnnpackPartitioner()])
            path.write_bytes(lowered.to_executorch().buffer)
        return path

    return save


@pytest.fixture
def save_onnx(tmp_path: Path) -> Save:
    """Writes an ``.onnx`` as the package's exporter does."""

    def save(module: nn.Module, x: Tensor) -> Path:
        import onnx

        path = tmp_path / "model.onnx"
        with quiet():
            exported = torch.onnx.export(program(module, x), (), dynamo=True, opset_version=OPSET, verbose=False)
        assert exported is not None
        fold_weight_transposes(exported.model_proto)
        onnx.save(exported.model_proto, path)
        return path

    return save


@pytest.fixture
def save_mlpackage(tmp_path: Path) -> Save:
    """Writes an ``.mlpackage`` of fp16."""

    def save(module: nn.Module, x: Tensor) -> Path:
        import coremltools as ct

        path = tmp_path / "model.mlpackage"
        with quiet():
            decomposed = program(module, x).run_decompositions({})
            options = dict(minimum_deployment_target=ct.target.iOS17, compute_precision=ct.precision.FLOAT16)
            ct.convert(decomposed, convert_to="mlprogram", skip_model_load=True, **options).save(str(path))
        return path

    return save


class Planted(nn.Sequential):
    """Three int8 layers with float operators planted between them."""

    def __init__(self, between: type[nn.Module]) -> None:
        super().__init__(linear(), between(), linear(), between(), linear())


class Convolutions(nn.Sequential):
    """8x8 pictures: 3x3 to 8 channels, then 3x3 depthwise at stride 2; float or int8."""

    def __init__(self, quantised: bool = False) -> None:
        wrap = int8 if quantised else (lambda layer: layer)
        super().__init__(wrap(nn.Conv2d(4, 8, 3, padding=1)), wrap(nn.Conv2d(8, 8, 3, 2, 1, groups=8)))


CONVOLUTIONS = 8 * 8 * 8 * 4 * 9, 8 * 4 * 4 * 9


class Attention(nn.Module):
    """Two batched products without weights: scores, and scores times values."""

    def forward(self, x: Tensor) -> Tensor:
        return torch.bmm(torch.bmm(x, x.transpose(1, 2)).softmax(-1), x)


def names(plan: Plan) -> collections.Counter[str]:
    return collections.Counter(op.name for op in plan.ops)


def macs(plan: Plan, int8: bool | None = None) -> int:
    return sum(op.macs for op in plan.ops if int8 is None or op.int8 == int8)


@pytest.fixture(params=["pte", "onnx", "mlpackage"])
def save(request: pytest.FixtureRequest) -> Save:
    return request.getfixturevalue(f"save_{request.param}")


def test_multiply_adds_of_convolutions(save: Save) -> None:
    plan, _ = read(save(Convolutions(), torch.randn(1, 4, 8, 8)))
    whole, depthwise = CONVOLUTIONS
    assert macs(plan) == whole + depthwise
    assert sum(op.macs for op in plan.ops if op.depthwise) == depthwise
    assert not plan.quantized


def test_multiply_adds_of_attention_have_no_weights(save: Save) -> None:
    plan, _ = read(save(Attention(), torch.randn(2, 8, 16)))
    assert macs(plan) == 2 * (2 * 8 * 8 * 16)
    assert not any(op.has_weights for op in plan.ops)


def test_int8_layers_and_the_float_operator_between_them(save: Save) -> None:
    plan, profile = read(save(Planted(nn.GELU), tokens()))
    assert plan.quantized
    assert macs(plan, int8=True) == macs(plan) == 3 * LINEAR
    assert [[op.name.lower() for op in island] for island in plan.islands()] == [["gelu"], ["gelu"]]
    # of the first conversion into int8, the last one out, and both around each GELU
    assert sum(op.kind == "convert" for op in plan.ops) == 6
    assert judge(plan, profile).islands == 2


def test_int8_layers_that_follow_each_other_have_no_island(save: Save) -> None:
    plan, _ = read(save(nn.Sequential(linear(), linear()), tokens()))
    assert plan.islands() == []
    assert macs(plan, int8=True) == 2 * LINEAR


def test_int8_convolutions(save: Save) -> None:
    plan, _ = read(save(Convolutions(quantised=True), torch.randn(1, 4, 8, 8)))
    assert macs(plan, int8=True) == sum(CONVOLUTIONS)
    assert sum(op.depthwise and op.int8 for op in plan.ops) == 1


def test_execution_leaves_xnnpack_for_a_layer_norm(save_pte: Save) -> None:
    layers = nn.Sequential(linear(), nn.LayerNorm(DIM), linear(), nn.LayerNorm(DIM), nn.Linear(DIM, DIM))
    plan, profile = read(save_pte(layers, tokens()), "x86-vnni")
    verdict = judge(plan, profile)
    assert plan.calls == 3
    assert verdict.breaks == 2
    assert verdict.delegated_macs == 1
    assert verdict.int8_macs == pytest.approx(2 / 3)
    assert [op.name for op in plan.ops if op.outside] == ["native_layer_norm"] * 2
    # input, weight, bias, output, mean and reciprocal deviation
    assert sum(op.bytes for op in plan.ops if op.outside) == 2 * 4 * (2 * TOKENS * DIM + 2 * DIM + 2 * TOKENS)


def test_products_outside_every_delegate_are_counted(tmp_path: Path) -> None:
    from executorch.exir import to_edge_transform_and_lower

    path = tmp_path / "portable.pte"
    layers = nn.Sequential(Convolutions(), nn.Flatten(1), nn.Linear(8 * 4 * 4, 5))
    path.write_bytes(to_edge_transform_and_lower(program(layers, torch.randn(1, 4, 8, 8))).to_executorch().buffer)
    verdict = judge(*read(path, "x86-vnni"))
    assert verdict.macs == sum(CONVOLUTIONS) + 8 * 4 * 4 * 5
    assert verdict.delegated_macs == 0
    assert verdict.breaks == 0


def test_a_core_ml_delegate_is_read_like_its_package(tmp_path: Path, save_mlpackage: Save) -> None:
    from executorch.exir import to_edge_transform_and_lower

    from lavit_edge.export.executorch import _coreml

    path = tmp_path / "model.pte"
    lowered = to_edge_transform_and_lower(program(Planted(nn.GELU), tokens()), partitioner=[_coreml()])
    path.write_bytes(lowered.to_executorch().buffer)
    plan, profile = read(path)
    assert (plan.runtime, profile.name, plan.calls) == ("Core ML", "apple-ane", 1)
    assert macs(plan, int8=True) == 3 * LINEAR
    assert len(plan.islands()) == len(read(save_mlpackage(Planted(nn.GELU), tokens()))[0].islands()) == 2


def test_a_convolution_that_onnx_runtime_cannot_fuse_runs_in_float(save_onnx: Save) -> None:
    """Its output is not quantised, and there is no kernel from int8 to float."""
    layer = int8(nn.Conv2d(4, 8, 3, padding=1))
    layer.quantize_output = nn.Identity()
    plan, profile = read(save_onnx(layer, torch.randn(1, 4, 8, 8)), "x86-vnni")
    assert plan.quantized
    assert macs(plan, int8=True) == 0
    assert macs(plan) == CONVOLUTIONS[0]
    assert judge(plan, profile).expectation == "slower"


def test_an_onnx_is_read_as_the_device_would_load_it(save_onnx: Save) -> None:
    path = save_onnx(Planted(nn.GELU), tokens())
    assert not any(op.slow for op in read(path, "x86-vnni")[0].ops)
    assert [op.name for op in read(path, "arm64-dotprod")[0].ops if op.slow] == ["QGemm"] * 3


def test_an_ort_is_read_as_it_was_made(save_onnx: Save) -> None:
    import onnx
    import onnxruntime

    from lavit_edge.export.onnx import _save_ort

    path = save_onnx(Planted(nn.GELU), tokens())
    _save_ort(onnxruntime, onnx.load(path), path.with_suffix(".ort"))
    plan, _ = read(path.with_suffix(".ort"), "x86-vnni")
    assert macs(plan, int8=True) == 3 * LINEAR
    assert not any(op.slow for op in plan.ops)


def _symbolic(path: Path, axis: int) -> None:
    import onnx

    model = onnx.load(path)
    for value in (*model.graph.input, *model.graph.output):
        value.type.tensor_type.shape.dim[axis].dim_param = "free"
    del model.graph.value_info[:]
    onnx.save(model, path)


def test_a_symbolic_batch_is_one_and_another_symbol_is_refused(save_onnx: Save) -> None:
    path = save_onnx(nn.Linear(DIM, DIM), torch.randn(1, DIM))
    _symbolic(path, 0)
    plan, _ = read(path)
    assert macs(plan) == DIM * DIM
    assert plan.notes == ("The batch 'free' is taken as 1.",)
    path = save_onnx(nn.ReLU(), torch.randn(1, DIM))
    _symbolic(path, 1)
    with pytest.raises(UserError, match="export it with a fixed input size"):
        read(path)


@pytest.mark.slow
def test_every_kind_of_artifact_counts_the_same_for_lavit(tiny_checkpoint: Path, tmp_path: Path) -> None:
    """And as many as torch counts."""
    from torch.utils.flop_counter import FlopCounterMode

    from lavit_edge.checkpoint import load_checkpoint
    from lavit_edge.export.golden import make_payload
    from lavit_edge.export.targets import ALL, TARGETS
    from lavit_edge.models.deployed import Deployed
    from lavit_edge.quantize import float_program

    checkpoint = load_checkpoint(tiny_checkpoint)
    with FlopCounterMode(display=False) as counter, torch.no_grad():
        Deployed(checkpoint.model, checkpoint.contract).eval()(torch.zeros(1, 3, 64, 64))
    for target in (TARGETS[name] for name in ALL):
        path = tmp_path / f"model{target.suffix}"
        program = float_program(checkpoint)
        target.export(program, make_payload(program, checkpoint.contract, {}, 1.0), path)
        assert macs(read(path)[0]) == counter.get_total_flops() / 2


@pytest.mark.parametrize("suffix", [".pte", ".onnx", ".ort"])
def test_a_damaged_file_is_one_line(tmp_path: Path, suffix: str) -> None:
    path = tmp_path / f"model{suffix}"
    path.write_bytes(np.random.default_rng(0).bytes(400))
    with pytest.raises(UserError, match=r"damaged|not a"):
        read(path)


def test_mistakes_are_one_line(tmp_path: Path, save_onnx: Save) -> None:
    path = save_onnx(nn.ReLU(), tokens())
    for file, device, says in (
        (tmp_path / "none.pte", None, "does not exist"),
        (path, "pixel", "unknown device 'pixel'; devices: x86-vnni"),
        (path, "apple-ane", "ONNX Runtime, which apple-ane does not run; choose x86-vnni"),
        (Path(__file__), None, "no known kind"),
    ):
        with pytest.raises(UserError, match=says):
            read(file, device)
    (tmp_path / "empty.mlpackage").mkdir()
    with pytest.raises(UserError, match="no Manifest"):
        read(tmp_path / "empty.mlpackage")
