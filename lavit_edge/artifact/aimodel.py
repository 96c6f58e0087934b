"""Core AI's ``.aimodel``: a folder with bytecode, hash and metadata; read here, and run by Apple's runtime in another process.

The runtime is native code that parses what it is given, and on Linux it is a reference interpreter: right, and slow. Bytes whose
hash is not the one beside them never reach it, and where it dies, that is an error like any other.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
import subprocess
import sys
import weakref
from collections.abc import Sequence
from pathlib import Path
from typing import IO, TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray
from safetensors import SafetensorError
from safetensors.numpy import load, save

from lavit_edge.errors import UserError, one_line
from lavit_edge.files import read_json
from lavit_edge.toolchain import missing, toolchain

if TYPE_CHECKING:
    from torch.export import ExportedProgram

PROGRAM, HASH, METADATA = "main.mlirb", "main.hash", "metadata.json"
CUSTOM = "creatorDefinedMetadata"  # what the metadata has beside Apple's own entries
LARGEST = 2 << 30  # bytes of a program
LARGEST_ANSWER = 1 << 30  # bytes

Values = dict[str, NDArray[Any]]


def user_metadata(path: Path) -> dict[str, str]:
    """What ``metadata.json`` holds beside Apple's own entries. Raises :class:`UserError` for a folder that is no ``.aimodel``."""
    check(path)
    metadata = read_json(path / METADATA)
    custom = metadata.get(CUSTOM, {}) if isinstance(metadata, dict) else None
    if not isinstance(custom, dict) or not all(isinstance(value, str) for value in custom.values()):
        raise UserError(f"{path / METADATA} does not hold texts by name; export it again")
    return custom


def check(path: Path) -> None:
    """Raises :class:`UserError` unless it is a folder with the three files and nothing else, and the hash is the program's."""
    if path.is_symlink() or not path.is_dir():
        raise UserError(f"{path} is not an .aimodel: it must be a folder")
    found = sorted(path.iterdir())
    if wrong := [file.name for file in found if file.is_symlink() or not file.is_file()]:
        raise UserError(f"{path}: {wrong[0]!r} is a link or no plain file; export it again")
    names = {file.name for file in found}
    if names != {PROGRAM, HASH, METADATA}:
        other = sorted(names ^ {PROGRAM, HASH, METADATA})[0]
        raise UserError(f"{path}: {other!r} is {'foreign' if other in names else 'missing'}; export it again")
    if (path / PROGRAM).stat().st_size > LARGEST:
        raise UserError(f"{path / PROGRAM} is over {LARGEST >> 30} GB, more than any artifact of ours")
    try:
        with (path / PROGRAM).open("rb") as stream:
            actual = hashlib.file_digest(stream, "sha256").digest()
        with (path / HASH).open("rb") as stream:
            stored = stream.read(len(actual) + 1)
    except OSError as error:
        raise UserError(f"{path} cannot be read ({error.strerror})") from error
    if stored != actual:
        raise UserError(f"{path} is damaged: {PROGRAM} has not the SHA-256 that {HASH} says; export it again")


def require() -> None:
    """Raises :class:`UserError` where Apple's packages are not installed, or do not exist."""
    here = sys.platform, os.uname().machine if hasattr(os, "uname") else ""
    if here[0] != "darwin" and here != ("linux", "x86_64"):
        raise UserError(f"Core AI runs on macOS and on Linux x86-64 with glibc 2.34 or newer; not here ({' '.join(here)})")
    try:
        import coreai.authoring  # noqa: F401
    except ImportError as error:
        raise missing("Core AI", "coreai", error) from error


class AIModel:
    """An ``.aimodel`` in Apple's runtime.

    Args:
        watch: operations of its program, by number as in :func:`operations`, whose first results are given besides the outputs.

    Raises:
        UserError: not an ``.aimodel``, it is damaged, or Core AI is not installed.
    """

    def __init__(self, path: Path, watch: Sequence[int] = ()) -> None:
        check(path)
        require()
        self._child = _Child("run", path, *map(str, watch))
        # a process whose input ends, ends: with this object, and with this process however that goes
        weakref.finalize(self, self._child.end)
        self._child.answer()

    def run(self, tensor: NDArray[np.float32]) -> Values:
        """Outputs by name, and watched results by ``str(number)``: float32, or the type of the codes.

        Args:
            tensor: float32 ``(1, 3, size, size)``.
        """
        return self._child.answer({"image": np.ascontiguousarray(tensor, np.float32)})


def decompose(program: ExportedProgram) -> ExportedProgram:
    """The program in the operators that coreai-torch takes; the nodes' names are in the artifact. It has none for sampling, which
    torch takes apart into gathers and their weighted sum. Raises :class:`UserError` where coreai-torch is not installed."""
    with toolchain("coreai-torch", "coreai"):
        from coreai_torch import get_decomp_table
    import torch
    from torch._decomp import get_decompositions

    return program.run_decompositions({**get_decomp_table(), **get_decompositions([torch.ops.aten.grid_sampler_2d.default])})


def operations(path: Path) -> list[dict[str, Any]]:
    """The operations of its program in order, as :func:`lavit_edge.artifact.aimodel_child.describe` gives them.

    Raises as :class:`AIModel`.
    """
    check(path)
    require()
    child = _Child("describe", path)
    try:
        found: list[dict[str, Any]] = json.loads(child.answer()["operations"].tobytes())
    finally:
        child.end()
    return found


class _Child:
    """The process that has Apple's runtime: ``run`` or ``describe``."""

    def __init__(self, what: str, path: Path, *arguments: str) -> None:
        self.path = path
        command = [sys.executable, "-W", "ignore", "-m", "lavit_edge.artifact.aimodel_child", what, str(path), *arguments]
        pipes: Any = dict(stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL)
        self.process = subprocess.Popen(command, **pipes, env={**os.environ, "OMP_NUM_THREADS": "1"})

    def answer(self, request: Values | None = None) -> Values:
        """Its next message, after a request if there is one."""
        assert self.process.stdin is not None
        assert self.process.stdout is not None
        try:
            if request is not None:
                send(self.process.stdin, request)
            answer = receive(self.process.stdout)
        except (EOFError, OSError, SafetensorError) as error:
            self.end()
            raise UserError(f"{self.path} is damaged: Core AI's runtime ends on it; export it again") from error
        if "error" in answer:
            reason = one_line(answer["error"].tobytes().decode("utf-8", "replace"))[:300]
            raise UserError(f"{self.path} is damaged or not a model of ours ({reason}); export it again")
        return answer

    def end(self) -> None:
        self.process.kill()
        self.process.wait()
        for stream in (self.process.stdin, self.process.stdout):
            with contextlib.suppress(OSError):  # of what was written and never read
                if stream:
                    stream.close()


def send(stream: IO[bytes], values: Values) -> None:
    """A message: its length in eight bytes, and the arrays by name as safetensors."""
    blob = save(values)
    stream.write(len(blob).to_bytes(8, "little") + blob)
    stream.flush()


def receive(stream: IO[bytes]) -> Values:
    """The next message. Raises :class:`EOFError` when there is none, or not a whole one."""
    head = stream.read(8)
    length = int.from_bytes(head, "little")
    if len(head) < 8 or length > LARGEST_ANSWER:
        raise EOFError
    blob = stream.read(length)
    if len(blob) < length:
        raise EOFError
    return load(blob)
