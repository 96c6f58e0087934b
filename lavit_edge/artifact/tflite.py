"""Reads and runs a ``.tflite`` by LiteRT: its interpreter, and the schema that comes with it."""

from __future__ import annotations

import contextlib
import functools
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from lavit_edge.artifact.payload import ENTRIES, KEY
from lavit_edge.errors import UserError
from lavit_edge.toolchain import missing, silent_stderr

EXTRA = "litert-runtime"
ALIGNMENT = 16  # of a buffer's bytes, as the schema asks for


def interpreter(path: Path, threads: int | None, survives: Callable[[Callable[[], object]], bool] | None = None) -> Any:
    """LiteRT's interpreter of a ``.tflite``, ready to be given a picture; XNNPACK runs what it can.

    Args:
        survives: whether a process lives through what it is given; the model is first loaded and run there. LiteRT verifies the
            flatbuffer's offsets, and no more: its kernels take the file's word for what a tensor holds.

    Raises:
        UserError: LiteRT is not installed, it refuses the file, or dies of it.
    """
    try:
        with silent_stderr():
            from ai_edge_litert.interpreter import Interpreter
    except ImportError as error:
        raise missing("LiteRT", EXTRA, error) from error

    def load() -> Any:
        made = Interpreter(str(path), num_threads=threads)
        made.allocate_tensors()
        return made

    with silent_stderr():  # it tells of its delegates
        if survives is not None and not survives(lambda: run_on_zeros(load())):
            raise UserError(f"{path} is damaged: LiteRT crashes on it; export it again")
        try:
            return load()
        except Exception as error:  # ValueError, RuntimeError
            reason = " ".join(str(error).split())[:300]
            raise UserError(f"{path} is damaged or not a .tflite ({reason}); export it again") from error


def run_on_zeros(model: Any) -> None:
    """One call of an interpreter."""
    for entry in model.get_input_details():
        model.set_tensor(entry["index"], np.zeros(entry["shape"], entry["dtype"]))
    model.invoke()


def survives_alone(path: Path) -> bool:
    """Whether a process of its own lives through loading a ``.tflite`` and running it; asked once for each state of the file."""
    state = path.stat()
    return _lives(path.resolve(), state.st_mtime_ns, state.st_size)


@functools.cache
def _lives(path: Path, *state: int) -> bool:
    names = "import sys, pathlib; from lavit_edge.artifact.tflite import interpreter, run_on_zeros"
    code = f"{names}; run_on_zeros(interpreter(pathlib.Path(sys.argv[1]), 1))"
    done = subprocess.run([sys.executable, "-c", code, str(path)], capture_output=True)
    return done.returncode >= 0  # below zero: the number of the signal that killed it


def execute(model: Any, path: Path) -> Callable[[NDArray[np.float32]], object]:
    """What gives a picture, float32 ``(1, 3, size, size)``, to an interpreter's one input, and takes its one output.

    Raises :class:`UserError` where there are more, or fewer.
    """
    inputs, outputs = model.get_input_details(), model.get_output_details()
    if len(inputs) != 1 or len(outputs) != 1:
        raise UserError(f"{path} takes {len(inputs)} values and gives {len(outputs)}, not one of each; export it again")

    def run(tensor: NDArray[np.float32]) -> object:
        model.set_tensor(inputs[0]["index"], tensor)
        model.invoke()
        return model.get_tensor(outputs[0]["index"])

    return run


def on_noise(model: Any, path: Path) -> tuple[Callable[[], object], int]:
    """A call of an interpreter whose one input, of whatever type and layout, holds noise; and the side of that input in pixels.

    Raises :class:`UserError` where it takes no one picture.
    """
    inputs = model.get_input_details()
    shape: tuple[int, ...] = tuple(map(int, inputs[0]["shape"])) if len(inputs) == 1 else ()
    if len(shape) != 4 or shape[0] != 1 or 3 not in (shape[1], shape[3]) or (shape[2] != shape[1] and shape[2] != shape[3]):
        raise UserError(f"{path} does not take one square picture of three colours, so it is not timed")
    noise = np.random.default_rng(0).integers(0, 128, shape).astype(inputs[0]["dtype"])  # what every type holds
    model.set_tensor(inputs[0]["index"], noise)

    def call() -> None:
        model.set_tensor(inputs[0]["index"], noise)
        model.invoke()

    return call, shape[2]


def schema() -> Any:
    """The module that reads and writes the flatbuffers. Raises :class:`UserError` where it is not installed."""
    try:
        with silent_stderr():
            from ai_edge_litert import schema_py_generated
    except ImportError as error:
        raise missing("LiteRT", EXTRA, error) from error
    return schema_py_generated


@contextlib.contextmanager
def reading(path: Path) -> Iterator[Any]:
    """The root of a ``.tflite``'s flatbuffer. It is read lazily, by Python: what leads out of the file raises where it is met.

    Raises:
        UserError: it is no such file, or what is read of it is damaged.
    """
    generated, data = schema(), path.read_bytes()
    try:
        if not generated.Model.ModelBufferHasIdentifier(data, 0):
            raise ValueError("it lacks the mark TFL3")
        yield generated.Model.GetRootAs(data, 0)
    except UserError:
        raise
    except Exception as error:  # struct.error, TypeError, ValueError, UnicodeDecodeError of offsets that lead anywhere
        reason = " ".join(str(error).split())[:300] or type(error).__name__
        raise UserError(f"{path} is damaged or not a .tflite ({reason}); export it again") from error


def entries(path: Path) -> dict[str, str | bytes]:
    """The payload: metadata of the model, a buffer for each entry. Raises as :func:`reading`."""
    found: dict[str, str | bytes] = {}
    with reading(path) as model:
        for index in range(model.MetadataLength()):
            item = model.Metadata(index)
            prefix, key, name = (item.Name() or b"").decode("utf-8", "replace").rpartition(KEY)
            if key and not prefix and name in ENTRIES:
                data = model.Buffers(item.Buffer()).DataAsNumpy().tobytes()
                found[name] = data if name == "golden" else data.decode("utf-8", "replace")
    return found


def packed(model: Any) -> bytes:
    """The flatbuffer of a ``ModelT``, the bytes of its buffers aligned, which flatbuffers' own packing in Python forgets."""
    import flatbuffers

    class Builder(flatbuffers.Builder):
        def StartVector(self, size: int, count: int, alignment: int) -> int:
            return super().StartVector(size, count, ALIGNMENT if size == 1 else alignment)

    builder = Builder(1 << 20)
    builder.Finish(model.Pack(builder), b"TFL3")
    return bytes(builder.Output())


def operators(generated: Any, model: Any, graph: Any) -> Iterator[tuple[str, Any]]:
    """The operators of a ``SubGraphT`` in order, each behind its name in the schema, such as ``CONV_2D``."""
    names = {code: name for name, code in vars(generated.BuiltinOperator).items() if isinstance(code, int)}
    for operator in graph.operators:
        code = model.operatorCodes[operator.opcodeIndex]
        yield names[max(code.builtinCode, code.deprecatedBuiltinCode)], operator  # the second holds what fits into a byte
