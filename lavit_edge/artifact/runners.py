"""What executes an artifact on this host, each behind the same call: a picture in, logits out."""

from __future__ import annotations

import contextlib
import os
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from lavit_edge.artifact import tflite
from lavit_edge.artifact.aimodel import AIModel, user_metadata
from lavit_edge.artifact.payload import ENTRIES, KEY
from lavit_edge.errors import UserError
from lavit_edge.toolchain import missing, silent_stderr, toolchain

Runner = Callable[[NDArray[np.uint8]], NDArray[np.float32]]
SUFFIXES = (".pte", ".onnx", ".ort", ".mlpackage", ".tflite", ".aimodel")  # of the artifacts that can be run here
LARGEST = 2 << 30  # bytes, protobuf's own limit
Runtime = Callable[[NDArray[np.float32]], NDArray[np.float32]]
Entries = dict[str, str | bytes]  # of the payload


def open_artifact(path: Path, threads: int | None = None) -> Runner:
    """A function from a picture, uint8 RGB ``(size, size, 3)``, to logits, float32 ``(classes,)``.

    Args:
        path: of one of :data:`SUFFIXES`. A ``.mlpackage`` runs in our reference evaluator, in fp16.
        threads: of the runtime; its own default when None. ExecuTorch has one thread pool for the whole process, so the last call
            decides; the evaluator of ``.mlpackage`` ignores it.

    Raises:
        UserError: no such artifact, no runner for its kind, the runtime is not installed, or it refuses the file.
    """
    if path.suffix == ".mlpackage":
        return _mlprogram(_existing(path))
    run = open_runtime(path, threads)
    return lambda picture: run(to_tensor(picture))[0]


def open_runtime(path: Path, threads: int | None = None, trusted: bool = False) -> Runtime:
    """As :func:`open_artifact`, without ``.mlpackage``: float32 ``(1, 3, size, size)``, contiguous -> logits ``(1, classes)``.

    Args:
        trusted: the digest of the file was checked, so that it is not first tried in a fork or parsed by the onnx package; a
            benchmark of loading wants neither in its time.
    """
    return open_model(path, threads, trusted)[0]


def open_model(path: Path, threads: int | None = None, trusted: bool = False) -> tuple[Runtime, Callable[[], Entries]]:
    """:func:`open_runtime` and :func:`read_entries` of a model that is loaded once: a benchmark's memory is that of one."""
    openers = {".pte": _executorch, ".onnx": _onnxruntime, ".ort": _onnxruntime, ".tflite": _litert, ".aimodel": _coreai}
    if path.suffix not in openers:
        raise UserError(f"no runner for {path.name!r}; artifacts end in {', '.join(SUFFIXES)}")
    return openers[path.suffix](_existing(path), threads, trusted)


def read_entries(path: Path) -> Entries:
    """What of the payload an artifact holds, by entry (:mod:`lavit_edge.artifact.payload`).

    Raises as :func:`open_artifact`.
    """
    readers = {
        ".pte": _pte_entries,
        ".onnx": _onnx_entries,
        ".ort": _onnx_entries,
        ".mlpackage": _mlpackage_entries,
        ".tflite": tflite.entries,
        ".aimodel": _aimodel_entries,
    }
    if path.suffix not in readers:
        raise UserError(f"no reader for {path.name!r}; artifacts end in {', '.join(readers)}")
    return readers[path.suffix](_existing(path))


def to_tensor(picture: NDArray[np.uint8]) -> NDArray[np.float32]:
    """uint8 ``(size, size, 3)`` -> float32 ``(1, 3, size, size)``, contiguous."""
    return np.ascontiguousarray(picture.transpose(2, 0, 1)[None], dtype=np.float32)


def _existing(path: Path) -> Path:
    if not path.exists():
        raise UserError(f"{path} does not exist")
    if path.suffix in (".mlpackage", ".aimodel"):
        return path
    if not path.is_file():  # a pipe would be waited for
        raise UserError(f"{path} is not a file")
    if path.stat().st_size > LARGEST:
        raise UserError(f"{path} is over {LARGEST >> 30} GB, more than any artifact of ours")
    return path


def _runtime(path: Path, execute: Callable[[NDArray[np.float32]], object]) -> Runtime:
    """``execute`` behind a check of what it gives, since a file from elsewhere may take and give anything."""

    def run(tensor: NDArray[np.float32]) -> NDArray[np.float32]:
        try:
            logits = execute(tensor)
        except Exception as error:  # the runtimes' exceptions have no common base
            raise UserError(f"{path} does not take a picture of {tensor.shape} ({error}); export it again") from error
        if not isinstance(logits, np.ndarray) or logits.dtype != np.float32 or logits.ndim != 2 or len(logits) != len(tensor):
            raise UserError(f"{path} does not give float32 logits of (1, classes); export it again")
        return logits

    return run


def _executorch(path: Path, threads: int | None, trusted: bool) -> tuple[Runtime, Callable[[], Entries]]:
    program = _pte(path, threads, trusted)
    method = _forward(program, path)
    import torch

    def execute(tensor: NDArray[np.float32]) -> object:
        (logits,) = method.execute([torch.from_numpy(tensor)])
        return logits.numpy().copy()  # the runtime overwrites its outputs at the next call

    return _runtime(path, execute), lambda: _constants(program)


def _survives(load: Callable[[], object]) -> bool:
    """Whether a process lives through ``load``, tried in a fork of this one (on Linux; elsewhere it is taken for granted).

    ExecuTorch 1.5.1 aborts on a damaged delegate: it logs the bytes it did not expect, and they are not UTF-8.
    """
    if sys.platform != "linux":
        return True
    process = os.fork()
    if process == 0:
        with contextlib.suppress(BaseException):  # a refusal is for the caller to see
            load()
        os._exit(0)
    return os.waitpid(process, 0)[1] == 0


def executorch_method(path: Path, threads: int | None, trusted: bool = False) -> Any:
    """The method ``forward`` of a ``.pte``; raises as :func:`open_artifact`."""
    return _forward(_pte(path, threads, trusted), path)


def _forward(program: Any, path: Path) -> Any:
    with silent_stderr():
        try:
            return program.load_method("forward")
        except RuntimeError as error:
            core_ml = b"CoreMLBackend" in path.read_bytes()
            why = (
                "the Core ML delegate runs on Apple devices only" if core_ml else "its runtime refuses what ExecuTorch converted"
            )
            raise UserError(f"{path} cannot run here ({error}); {why}") from error


def _pte(path: Path, threads: int | None, trusted: bool = False) -> Any:
    """The program in a ``.pte``."""
    try:
        with silent_stderr():  # torchao tells of kernels that it could not load
            from executorch import runtime
            from executorch.extension.pybindings import portable_lib
    except ImportError as error:
        raise missing("ExecuTorch", "executorch", error) from error
    with silent_stderr():
        if threads is not None:
            portable_lib._unsafe_reset_threadpool(threads)
        portable_lib._threadpool_get_thread_count()  # starts the pool, which reports the CPU's features on stderr
        if not trusted and not _survives(lambda: runtime.Runtime.get().load_program(path).load_method("forward")):
            raise UserError(f"{path} is damaged: ExecuTorch crashes on it; export it again")
        try:  # from the path: the runtime does not keep a buffer alive
            return runtime.Runtime.get().load_program(path)
        except RuntimeError as error:
            raise UserError(f"{path} is damaged or not a .pte ({error}); export it again") from error


def _pte_entries(path: Path) -> Entries:
    return _constants(_pte(path, None))


def _constants(program: Any) -> Entries:
    """The payload of a program of ExecuTorch: a method for each entry, which takes nothing."""
    entries: Entries = {}
    for name in program.method_names & set(ENTRIES):
        with silent_stderr():
            (value,) = program.load_method(name).execute([])
        entries[name] = value if isinstance(value, str) else value.numpy().tobytes()
    return entries


def _onnxruntime(path: Path, threads: int | None, trusted: bool) -> tuple[Runtime, Callable[[], Entries]]:
    session = onnx_session(path, threads, trusted)
    return _runtime(path, lambda tensor: session.run(["logits"], {"image": tensor})[0]), lambda: _metadata(session)


def onnx_session(path: Path, threads: int | None, trusted: bool = False, **settings: Any) -> Any:
    """ONNX Runtime's session of an ``.onnx`` or ``.ort``; raises as :func:`open_artifact`.

    Args:
        settings: attributes of ``onnxruntime.SessionOptions``.
    """
    try:
        import onnxruntime
    except ImportError as error:
        raise missing("ONNX Runtime", "runtime", error) from error
    if path.suffix == ".onnx" and not trusted:
        _refuse_external_data(path)
    options = onnxruntime.SessionOptions()
    options.log_severity_level = 4  # what it has to say is in its exception
    options.intra_op_num_threads = threads or 0
    # On x86-64 without VNNI two products of uint8 and int8 are summed in 16 bits, which saturate: the bundled model was 20 dB
    # away from its program there, and 32 with this, in 1.3 times the time. Elsewhere it changes nothing.
    options.add_session_config_entry("session.x64quantprecision", "1")
    for name, value in settings.items():
        setattr(options, name, value)
    try:
        return onnxruntime.InferenceSession(path, options, providers=["CPUExecutionProvider"])
    except Exception as error:  # its exceptions have no common base
        raise UserError(f"{path} is damaged or not a model ({error}); export it again") from error


def _refuse_external_data(path: Path) -> None:
    """Weights in other files: those would be read from wherever the model says, and no digest of the model covers them.

    Without the onnx package, ONNX Runtime itself must see to it that such files lie beside the model.
    """
    try:
        import onnx
    except ImportError:
        return
    try:
        model = onnx.load(path, load_external_data=False)
    except Exception as error:  # protobuf's DecodeError
        raise UserError(f"{path} is damaged or not a model ({error}); export it again") from error
    if any(onnx.external_data_helper.uses_external_data(tensor) for tensor in onnx.external_data_helper._get_all_tensors(model)):
        raise UserError(f"{path} keeps weights in other files, which is refused; export it again")


def _onnx_entries(path: Path) -> Entries:
    return _metadata(onnx_session(path, None))


def _metadata(session: Any) -> Entries:
    """The payload of a model of ONNX Runtime."""
    metadata = session.get_modelmeta().custom_metadata_map
    return {name: metadata[KEY + name] for name in ENTRIES if KEY + name in metadata}


def _litert(path: Path, threads: int | None, trusted: bool) -> tuple[Runtime, Callable[[], Entries]]:
    model = litert_interpreter(path, threads, trusted)
    return _runtime(path, tflite.execute(model, path)), lambda: tflite.entries(path)


def litert_interpreter(path: Path, threads: int | None, trusted: bool = False) -> Any:
    """LiteRT's interpreter of a ``.tflite``; raises as :func:`open_artifact`."""
    if trusted:
        return tflite.interpreter(path, threads)
    # LiteRT's converter brings JAX, whose threads do not live with forks
    return tflite.interpreter(path, threads, (lambda _: tflite.survives_alone(path)) if "jax" in sys.modules else _survives)


def _coreai(path: Path, threads: int | None, trusted: bool) -> tuple[Runtime, Callable[[], Entries]]:
    """Core AI has no threads to set, and runs in a process of its own whatever the file is."""
    model = AIModel(path)
    return _runtime(path, lambda tensor: model.run(tensor).get("logits")), lambda: _aimodel_entries(path)


def _aimodel_entries(path: Path) -> Entries:
    metadata = user_metadata(path)
    return {name: metadata[KEY + name] for name in ENTRIES if KEY + name in metadata}


def _mlpackage_entries(path: Path) -> Entries:
    with toolchain("the reader of ML programs", "coreml"):
        from lavit_edge.artifact.mlprogram import user_metadata
    metadata = user_metadata(path)
    return {name: metadata[KEY + name] for name in ENTRIES if KEY + name in metadata}


def _mlprogram(path: Path) -> Runner:
    with toolchain("the reader of ML programs", "coreml"):
        from lavit_edge.artifact.mlprogram import MLProgram
    program = MLProgram(path)
    return lambda picture: np.asarray(program.predict({"image": picture})["logits"], np.float32).reshape(-1)
