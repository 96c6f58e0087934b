"""Builds ``lavit_bench``, the benchmark runner for devices without Python: C++ and ExecuTorch's libraries (native/README.md)."""

from __future__ import annotations

import hashlib
import importlib.resources
import os
import platform
import shutil
import subprocess
import sys
import tempfile
import zipfile
from collections.abc import Sequence
from pathlib import Path
from typing import Literal

import lavit_edge
from lavit_edge.errors import UserError

Architecture = Literal["x86_64", "aarch64"]
PARTS = ("include/", "lib/", "share/")  # of the wheel's folder executorch/: libraries, headers, CMake's configuration


def package(arch: Architecture) -> Path:
    """The folder to push to a Linux or Android device of that architecture: ``run``, ``lavit_bench`` and ``lib/``.

    ``sh run --artifact model.pte --out report.json`` starts it there. It is built when it is first asked for and kept in
    ``${XDG_CACHE_HOME:-~/.cache}/lavit-edge-native/`` under a hash of what it is made from. Several processes may ask at once.

    Raises:
        UserError: a tool is missing (the message names Debian's package), the libraries cannot be fetched, or the build fails.
    """
    compiler = "g++" if platform.machine() == arch else f"{arch}-linux-gnu-g++"
    for tool, debian in (("cmake", "cmake"), ("make", "make"), (compiler, _debian(compiler))):
        if shutil.which(tool) is None:
            raise UserError(f"{tool} is missing, which builds the runner for {arch}: apt-get install {debian}")
    sources = _sources()
    version = _run([compiler, "--version"], f"{compiler} does not run")
    made_from = hashlib.sha256(repr((arch, lavit_edge.__version__, version, sources)).encode()).hexdigest()
    folder = _cache() / f"lavit_bench-{arch}-{made_from[:16]}"
    if folder.is_dir():
        return folder
    sdk = _sdk(arch, sources["sdk.txt"])
    with tempfile.TemporaryDirectory(dir=_cache(), prefix="build-") as temporary:
        source, build, made = (Path(temporary, name) for name in ("source", "build", "made"))
        source.mkdir()
        for name, content in sources.items():
            (source / name).write_bytes(content)
        options = {
            "CMAKE_PREFIX_PATH": sdk,
            "CMAKE_CXX_COMPILER": compiler,
            "CMAKE_SYSTEM_NAME": "Linux",
            "CMAKE_SYSTEM_PROCESSOR": arch,
            "CMAKE_BUILD_TYPE": "Release",
            "LAVIT_EDGE_VERSION": lavit_edge.__version__,
        }
        failed = f"lavit_bench cannot be built for {arch}"
        _run(["cmake", "-S", source, "-B", build, *(f"-D{name}={value}" for name, value in options.items())], failed)
        _run(["cmake", "--build", build, "--parallel", str(os.cpu_count() or 1)], failed)
        _run(["cmake", "--install", build, "--prefix", made], failed)
        return _move(made, folder)


def _debian(compiler: str) -> str:
    """Debian's package of a compiler: ``g++``, or ``g++-aarch64-linux-gnu``."""
    return compiler if compiler == "g++" else f"g++-{compiler.removesuffix('-g++').replace('_', '-')}"


def _sources() -> dict[str, bytes]:
    """The C++ sources by name, and what goes with them."""
    try:
        files = [file for file in importlib.resources.files("lavit_edge.native").iterdir() if file.is_file()]
    except ModuleNotFoundError as error:
        raise UserError("the sources of lavit_bench are not installed; install lavit-edge from its repository") from error
    wanted = (".cpp", ".h", ".in", ".txt")
    return {file.name: file.read_bytes() for file in sorted(files, key=lambda file: file.name) if file.name.endswith(wanted)}


def _cache() -> Path:
    folder = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "lavit-edge-native"
    folder.mkdir(parents=True, exist_ok=True)
    return folder


def _sdk(arch: Architecture, pins: bytes) -> Path:
    """ExecuTorch's libraries and headers, taken from its wheel for that architecture; pip checks the pinned SHA-256."""
    folder = _cache() / f"executorch-{arch}-{hashlib.sha256(pins).hexdigest()[:16]}"
    if folder.is_dir():
        return folder
    with tempfile.TemporaryDirectory(dir=_cache(), prefix="sdk-") as temporary:
        requirements = Path(temporary, "sdk.txt")
        requirements.write_bytes(pins)
        pip = [sys.executable, "-m", "pip", "download", "--quiet", "--disable-pip-version-check", "--no-deps", "--require-hashes"]
        kind = ["--only-binary=:all:", "--platform", f"manylinux_2_28_{arch}", "--python-version", "3.11"]
        failed = f"ExecuTorch's libraries for {arch} cannot be fetched"
        _run([*pip, *kind, "--dest", temporary, "--requirement", requirements], failed)
        (wheel,) = Path(temporary).glob("*.whl")
        with zipfile.ZipFile(wheel) as archive:
            wanted = tuple(f"executorch/{part}" for part in PARTS)
            archive.extractall(temporary, [name for name in archive.namelist() if name.startswith(wanted)])
        return _move(Path(temporary, "executorch"), folder)


def _move(made: Path, folder: Path) -> Path:
    """Puts a finished folder where it belongs; another process may have been sooner with the same."""
    try:
        os.replace(made, folder)
    except OSError:
        if not folder.is_dir():
            raise
    return folder


def _run(command: Sequence[str | Path], failed: str) -> str:
    """The output of a command. Raises :class:`UserError` with what it says when it fails, errors first."""
    done = subprocess.run([str(word) for word in command], capture_output=True, text=True, errors="replace", check=False)
    if done.returncode != 0:
        lines = [line for line in (done.stderr + done.stdout).splitlines() if line.strip()]
        first = next((index for index, line in enumerate(lines) if "error" in line.lower()), 0)
        raise UserError(f"{failed}: {' '.join(lines[first : first + 4])}")
    return done.stdout
