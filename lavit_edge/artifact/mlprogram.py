"""Reference evaluator of Core ML's ML programs, for machines without Core ML.

Core ML's own ``predict`` exists on Apple's systems alone. This reads a saved ``.mlpackage`` and evaluates what is written in it,
operation by operation, with torch. It checks what was converted and stored (weights, scales, shapes, types, labels),
not Apple's kernels. What it does not know it refuses, naming the operation: a guess would make the check worthless.
"""

from __future__ import annotations

import inspect
import math
from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import numpy as np
import torch
from torch import Tensor

from lavit_edge.artifact.mlprogram_ops import OPERATIONS
from lavit_edge.errors import UserError
from lavit_edge.files import check_shape, read_json

MODEL = "com.apple.CoreML/model.mlmodel"  # below Data/; what every converter writes
OPSET = "CoreML7"  # the operation set of iOS 17, whose semantics mlprogram_ops.py follows
LISTS = ("values",)  # parameters that take several values, such as what concat joins
MOVING = ("reshape", "transpose", "expand_dims", "squeeze")
LARGEST, MOST = 1 << 26, 1 << 29  # numbers in one value, and in all of a program: 2 GB in fp32
TENSORS = {  # declared type -> how a value is held here
    **{"FLOAT16": torch.float32, "FLOAT32": torch.float32, "BOOL": torch.bool, "INT8": torch.int8, "UINT8": torch.uint8},
    **{"INT32": torch.int32, "INT16": torch.int16, "UINT16": torch.uint16},
}

Output = np.ndarray | str | dict[str, float]


@dataclass(frozen=True)
class Feature:
    """An input or output of the model.

    ``image``: uint8 RGB ``(H, W, 3)``; ``array``: floating numbers; ``label``: a string; ``probabilities``: one number per label.
    """

    kind: Literal["image", "array", "label", "probabilities"]
    shape: tuple[int, ...] = ()


@dataclass(frozen=True)
class _Operation:
    type: str
    constants: dict[str, Any]  # parameter -> value
    references: dict[str, Any]  # parameter -> name of a value, or a list of names
    outputs: dict[str, tuple[str, tuple[int, ...]] | None]  # name -> declared type and shape, None where it is no tensor


class MLProgram:
    """A saved ML program that can be evaluated.

    Args:
        path: an ``.mlpackage`` folder holding one ML program of iOS 17 (one function, static shapes, no state, no control flow).
        precision: ``float16`` rounds the result of every operation whose declared type is fp16 to fp16 (sums inside an operation
            are float32), ``float32`` rounds nothing; the stored weights are what they are in both.

    Attributes:
        inputs, outputs: :class:`Feature` by name.
        operations: ``(type, name of the first output)`` in order of evaluation; those names are what :meth:`evaluate` takes.
        sizes: how many numbers an operation's outputs hold, by name.
        quantizers: of every ``quantize``, by the name of its output, the name of its input, its scale, its zero point, and the
            name of the codes that its scale counts in: of a summand whose dequantiser has scale 1, None where there is no such.

    Raises :class:`UserError` for a package that cannot be read or that contains anything unknown. Nothing unknown is left for
    later: loading evaluates the program once, on zeros.
    """

    def __init__(self, path: Path, precision: Literal["float16", "float32"] = "float16") -> None:
        if precision not in ("float16", "float32"):
            raise UserError(f"precision must be float16 or float32, not {precision!r}")
        self.name, self._rounded = path.name, precision == "float16"
        spec, load_value = _read(path)
        try:
            self._load(spec, load_value)
        except UserError:
            raise
        except Exception as error:  # a file from elsewhere may lack, repeat or mistype anything
            raise UserError(f"{self.name}: cannot be read, the package is damaged ({type(error).__name__}: {error})") from error

    def _load(self, spec: Any, load_value: Any) -> None:
        function = self._the_function(spec)
        self.inputs = {feature.name: self._feature(feature) for feature in spec.description.input}
        self.outputs = {feature.name: self._feature(feature) for feature in spec.description.output}
        self._values: dict[str, Any] = {}  # constants, and the weights dequantised
        self._program: list[_Operation] = []
        self._numbers = 0  # of all values so far
        self._seen_to_fit = False  # whether the shapes of all results are known to be the declared ones
        block = function.block_specializations[OPSET]
        defined = set(self.inputs)
        for stored in block.operations:
            operation = self._operation(stored, load_value)
            if again := defined & set(operation.outputs):
                raise UserError(f"{self.name}: {again.pop()!r} is the name of two values")
            defined |= set(operation.outputs)
            if operation.references:
                self._program.append(operation)
            else:
                self._values |= self._run(operation, {})
        taken = {value.name: tensor_type(value.type) for value in function.inputs}
        if set(taken) != set(self.inputs) or set(block.outputs) != set(self.outputs):
            raise UserError(f"{self.name}: the program's inputs and outputs are not those of the model's description")
        self._half_inputs = {name for name, type_ in taken.items() if type_ is not None and type_[0] == "FLOAT16"}
        self.predict({name: np.zeros(f.shape, np.uint8 if f.kind == "image" else np.float32) for name, f in self.inputs.items()})
        self._seen_to_fit = True
        self.operations = [(operation.type, next(iter(operation.outputs))) for operation in self._program]
        declared = {name: type_ for operation in self._program for name, type_ in operation.outputs.items()}
        self.sizes = {name: math.prod(type_[1]) for name, type_ in declared.items() if type_ is not None}
        made = {name: operation for operation in self._program for name in operation.outputs}
        self.quantizers = {
            next(iter(operation.outputs)): (
                operation.references["input"],
                operation.constants["scale"],
                operation.constants.get("zero_point", 0),
                _unit(operation, made),
            )
            for operation in self._program
            if operation.type == "quantize"
        }

    def predict(self, inputs: Mapping[str, np.ndarray]) -> dict[str, Output]:
        """Every output by name.

        Args:
            inputs: by name, for an image uint8 RGB ``(H, W, 3)``, for an array floating numbers of the declared shape.
        """
        return self.evaluate(inputs, self.outputs)

    @torch.inference_mode()
    def evaluate(self, inputs: Mapping[str, np.ndarray], names: Collection[str]) -> dict[str, Output]:
        """As :meth:`predict`, for any values of the program: outputs, results in between, constants."""
        if set(inputs) != set(self.inputs):
            raise UserError(f"{self.name}: takes {', '.join(self.inputs)}, not {', '.join(inputs) or 'nothing'}")
        values = self._values | {name: self._input(name, value) for name, value in inputs.items()}
        for operation in self._program:
            values |= self._run(operation, values)
        for name in names:
            if name not in values:
                raise UserError(f"{self.name}: has no value named {name!r}")
        return {name: values[name].numpy() if isinstance(values[name], Tensor) else values[name] for name in names}

    def _input(self, name: str, value: np.ndarray) -> Tensor:
        feature = self.inputs[name]
        kind_fits = value.dtype == np.uint8 if feature.kind == "image" else np.issubdtype(value.dtype, np.floating)
        if value.shape != feature.shape or not kind_fits:
            wanted = f"{'uint8' if feature.kind == 'image' else 'float'} {feature.shape}"
            raise UserError(f"{self.name}: input {name} takes {wanted}, not {value.dtype} {value.shape}")
        tensor = torch.from_numpy(value.astype(np.float32))
        if feature.kind == "image":
            return tensor.permute(2, 0, 1)[None]
        return self._round(tensor) if name in self._half_inputs else tensor

    def _round(self, value: Tensor) -> Tensor:
        return value.half().float() if self._rounded else value

    def _run(self, operation: _Operation, values: dict[str, Any]) -> dict[str, Any]:
        """The operation's outputs by name, rounded and checked against their declared types."""
        try:
            named_values = {key: _each(name, values.__getitem__) for key, name in operation.references.items()}
            arguments = operation.constants | named_values
            if not self._seen_to_fit:
                self._foresee(operation, arguments)
            named = self._named(operation, arguments)
        except UserError:
            raise
        except KeyError as error:
            raise self._unknown(operation, f"there is no value {error}") from error
        except Exception as error:  # arguments from a file may be anything
            raise self._unknown(operation, str(error)) from error
        for name, declared in operation.outputs.items():
            if operation.type == "const" or declared is None:
                continue
            result = torch.as_tensor(named[name])
            if (TENSORS.get(declared[0]), declared[1]) != (result.dtype, tuple(result.shape)):
                raise self._unknown(operation, f"declared {declared[0]} {declared[1]}, got {_type_of(result)}")
            named[name] = self._round(result) if declared[0] == "FLOAT16" else result
        return named

    def _named(self, operation: _Operation, arguments: dict[str, Any]) -> dict[str, Any]:
        results = OPERATIONS[operation.type](**arguments)
        return dict(zip(operation.outputs, results if isinstance(results, tuple) else [results], strict=True))

    def _foresee(self, operation: _Operation, arguments: dict[str, Any]) -> None:
        """Computes shapes alone, in no memory: a small file may ask for any amount, and what it declares is bounded."""
        if operation.type == "const" or None in operation.outputs.values():
            return
        shadows = {parameter: _each(value, _shadow) for parameter, value in arguments.items()}
        for name, result in self._named(operation, shadows).items():
            declared = operation.outputs[name]
            if declared is not None and declared[1] != (tuple(result.shape) if isinstance(result, Tensor) else ()):
                raise self._unknown(operation, f"declared {declared[0]} {declared[1]}, got {_type_of(result)}")

    def _unknown(self, operation: _Operation, what: str) -> UserError:
        return UserError(f"{self.name}: cannot evaluate {operation.type} -> {', '.join(operation.outputs)}: {what}")

    def _operation(self, stored: Any, load_value: Any) -> _Operation:
        """One operation of the file, refused unless its type and all its inputs are known."""
        operation = _Operation(stored.type, {}, {}, {output.name: tensor_type(output.type) for output in stored.outputs})
        sizes = [math.prod(declared[1]) for declared in operation.outputs.values() if declared is not None]
        self._numbers += sum(sizes)
        if max(sizes, default=0) > LARGEST or self._numbers > MOST:
            raise self._unknown(operation, "the program is beyond reason in size")
        if stored.blocks:
            raise self._unknown(operation, "control flow is unknown")
        if stored.type not in OPERATIONS:
            raise self._unknown(operation, "the operation is unknown")
        # a constant, and what is made of constants alone, keeps its inputs in the attributes
        operation.constants.update({key: _constant(load_value(v)) for key, v in stored.attributes.items() if key != "name"})
        for parameter, argument in stored.inputs.items():
            if parameter in LISTS and all(binding.name for binding in argument.arguments):
                operation.references[parameter] = [binding.name for binding in argument.arguments]
                continue
            if len(argument.arguments) != 1:
                raise self._unknown(operation, f"input {parameter} is a list")
            binding = argument.arguments[0]
            if binding.WhichOneof("binding") == "value":
                operation.constants[parameter] = _constant(load_value(binding.value))
            elif binding.name in self._values:
                operation.constants[parameter] = self._values[binding.name]
            else:
                operation.references[parameter] = binding.name
        try:
            inspect.signature(OPERATIONS[stored.type]).bind(**operation.constants, **operation.references)
        except TypeError as error:
            raise self._unknown(operation, str(error)) from error
        return operation

    def _the_function(self, spec: Any) -> Any:
        kind, program = spec.WhichOneof("Type"), spec.mlProgram
        if kind != "mlProgram":
            raise UserError(f"{self.name}: not an ML program but a model of type {kind}")
        if list(program.functions) != ["main"] or len(spec.description.functions):
            raise UserError(f"{self.name}: several functions are unknown; the program must have main alone")
        function = program.functions["main"]
        if spec.description.state or function.attributes or set(program.attributes) - {"buildInfo"}:
            raise UserError(f"{self.name}: state, or attributes of the program, are unknown")
        if function.opset != OPSET or list(function.block_specializations) != [OPSET]:
            raise UserError(f"{self.name}: operation set {function.opset} is unknown, only {OPSET} (iOS 17) is known")
        return function

    def _feature(self, feature: Any) -> Feature:
        kind = feature.type.WhichOneof("Type")
        if feature.type.isOptional:
            raise UserError(f"{self.name}: {feature.name} is optional, which is unknown")
        if kind == "imageType":
            image = feature.type.imageType
            if image.colorSpace != image.RGB or image.WhichOneof("SizeFlexibility"):
                raise UserError(f"{self.name}: picture {feature.name} must be RGB and of one size")
            return Feature("image", self._bounded(feature.name, (image.height, image.width, 3)))
        if kind == "multiArrayType":
            array = feature.type.multiArrayType
            if array.dataType not in (array.FLOAT16, array.FLOAT32) or array.WhichOneof("ShapeFlexibility"):
                raise UserError(f"{self.name}: array {feature.name} must be floating and of one shape")
            return Feature("array", self._bounded(feature.name, tuple(array.shape)))
        if kind == "stringType":
            return Feature("label")
        if kind == "dictionaryType":
            return Feature("probabilities")
        raise UserError(f"{self.name}: {feature.name} is of type {kind}, which is unknown")

    def _bounded(self, name: str, shape: tuple[int, ...]) -> tuple[int, ...]:
        if not shape or min(shape) < 1 or math.prod(shape) > LARGEST:
            raise UserError(f"{self.name}: {name} of shape {shape} is beyond reason")
        return shape


def _each(value: Any, function: Callable[[Any], Any]) -> Any:
    """Of a value, or of each of a list."""
    return [function(item) for item in value] if isinstance(value, list) else function(value)


def _shadow(value: Any) -> Any:
    """A tensor's shape and type alone."""
    return value.to("meta") if isinstance(value, Tensor) else value


def _unit(quantize: _Operation, made: Mapping[str, _Operation]) -> str | None:
    """What a quantiser behind an addition, and perhaps a ReLU, counts in (:attr:`MLProgram.quantizers`)."""

    def maker(name: str, passed: Collection[str] = MOVING) -> _Operation | None:
        while name in made and made[name].type in passed:
            name = made[name].references["x"]
        return made.get(name)

    total = maker(quantize.references["input"], (*MOVING, "relu"))
    if total is None or total.type not in ("add", "sub"):
        return None
    for name in total.references.values():
        summand = maker(name)
        if summand is not None and summand.type == "dequantize" and summand.constants["scale"] == 1.0:
            codes = maker(summand.references["input"])
            if codes is not None and codes.type == "quantize":
                return next(iter(codes.outputs))
    return None


def user_metadata(path: Path) -> dict[str, str]:
    """The package's user-defined metadata. Raises :class:`UserError` for a package that cannot be read."""
    return dict(specification(path).description.metadata.userDefined)


def specification(path: Path) -> Any:
    """The package's ``model.mlmodel``, parsed. Not by ``coremltools.utils.load_spec``, which writes ``Manifest.json`` anew.

    Raises :class:`UserError` for a package that is damaged, is not made of plain files, or whose model is not where it belongs.
    """
    if not (path / "Manifest.json").is_file():
        raise UserError(f"{path}: not an .mlpackage folder (it has no Manifest.json)")
    if links := [item for item in path.rglob("*") if item.is_symlink() or not (item.is_file() or item.is_dir())]:
        raise UserError(f"{links[0]} is a link or no file; a package is made of plain files and folders")
    manifest = read_json(path / "Manifest.json")
    wanted = {"fileFormatVersion": str, "itemInfoEntries": dict, "rootModelIdentifier": str}
    check_shape(manifest, wanted, str(path / "Manifest.json"))
    if manifest["fileFormatVersion"] != "1.0.0":
        raise UserError(f"{path / 'Manifest.json'}: unknown version {manifest['fileFormatVersion'][:20]!r} of the package format")
    for name, entry in manifest["itemInfoEntries"].items():
        check_shape(entry, {"path": str}, str(path / "Manifest.json"), f"itemInfoEntries.{name}")
        if name == manifest["rootModelIdentifier"] and entry["path"] != MODEL:
            raise UserError(f"{path / 'Manifest.json'}: the model is {entry['path']!r}, not {MODEL}")
    if manifest["rootModelIdentifier"] not in manifest["itemInfoEntries"]:
        raise UserError(f"{path / 'Manifest.json'}: it lists no model; the package is damaged")
    try:
        from coremltools.proto import Model_pb2
        from google.protobuf.message import DecodeError
    except ImportError as error:
        raise UserError("Core ML packages are read by coremltools: pip install 'lavit-edge[coreml]'") from error
    try:
        return Model_pb2.Model.FromString((path / "Data" / MODEL).read_bytes())
    except (OSError, DecodeError) as error:
        raise UserError(f"{path.name}: cannot be read, the package is damaged ({error})") from error


def _read(path: Path) -> tuple[Any, Any]:
    """The package's specification, and a function that takes a value out of it (large ones lie in the weights file)."""
    spec = specification(path)
    from coremltools.converters.mil.frontend.milproto import load as milproto

    context = milproto.TranscriptionContext(str(path / "Data" / "com.apple.CoreML" / "weights"))

    def load_value(value: Any) -> Any:
        if value.type.WhichOneof("type") == "listType":
            return [load_value(item) for item in value.immediateValue.list.values]
        try:
            return milproto._load_value(context, value)
        except Exception as error:  # no common base: a bad offset, a missing file, too few bytes for the shape
            raise UserError(f"{path.name}: a stored value cannot be read, the package is damaged ({error})") from error

    return spec, load_value


def tensor_type(type_: Any) -> tuple[str, tuple[int, ...]] | None:
    if type_.WhichOneof("type") != "tensorType":
        return None
    tensor = type_.tensorType
    shape = tuple(dimension.constant.size for dimension in tensor.dimensions)
    data_type = tensor.DESCRIPTOR.fields_by_name["dataType"].enum_type.values_by_number[tensor.dataType].name
    return None if data_type == "STRING" else (data_type, shape)


def _type_of(value: Any) -> str:
    return f"{value.dtype} {tuple(value.shape)}" if isinstance(value, Tensor) else type(value).__name__


def _constant(value: Any) -> Any:
    """A stored value as :mod:`mlprogram_ops` takes it: scalars and strings as Python's, shapes and axes as lists of int,
    floating arrays as float32 tensors, int8 and uint8 arrays as tensors.
    """
    if isinstance(value, np.generic):
        return value.item()
    if not isinstance(value, np.ndarray):
        return value
    if np.issubdtype(value.dtype, np.floating):
        return torch.from_numpy(value.astype(np.float32))
    if value.dtype in (np.int8, np.uint8):
        return torch.from_numpy(value.copy())
    return value.tolist()
