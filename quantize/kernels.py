"""NNCF's kernels: compiled once on a machine, by whichever process comes first, while the others wait for it."""

from __future__ import annotations

import logging
import os
import time
from pathlib import Path

from rich.console import Console

from lavit_edge.errors import UserError
from lavit_edge.toolchain import quiet, toolchain

# NNCF compiles its kernels once, and gives up after a minute; a busy machine with two cores needs more
os.environ.setdefault("NNCF_EXTENSION_LOAD_TIMEOUT", "900")
KERNELS = "quantized_functions_cpu"
SETTLED = 60.0  # seconds after which a build has started its ninja, however busy the machine is
LOCK = "lock"  # torch waits, without an end, for this file to go away; NNCF gives up after NNCF_EXTENSION_LOAD_TIMEOUT


def build_folder() -> Path:
    """Where NNCF compiles its CPU kernels to, and loads them from."""
    with quiet():
        from nncf.torch.extensions import get_build_directory_for_extension
    return get_build_directory_for_extension(KERNELS)


def abandoned() -> bool:
    """Whether the lock is a left-over of a process that was killed: no ninja works in the folder."""
    import psutil

    folder = build_folder()
    try:
        age = time.time() - (folder / LOCK).stat().st_mtime
    except FileNotFoundError:
        return False
    places = (process.info["cwd"] for process in psutil.process_iter(["cwd"]))
    return age > SETTLED and str(folder.resolve()) not in places


def drop_abandoned_lock() -> None:
    """Removes it, or all that quantise from then on would wait without an end."""
    if abandoned():
        (build_folder() / LOCK).unlink(missing_ok=True)


def waiting_for() -> str:
    """What loading the kernels will wait for, as a sentence; empty where they are built and free.

    Without ninja or a compiler nothing is waited for either: NNCF falls back on torch's own operators, which are slower.
    """
    from torch.utils.cpp_extension import is_ninja_available

    folder = build_folder()
    if (lock := folder / LOCK).exists():
        since = f"since {(time.time() - lock.stat().st_mtime) / 60:.0f} minutes"
        return f"waiting for another process that compiles NNCF's kernels, {since}; if there is none, delete {lock}"
    if not (folder / f"{KERNELS}.so").exists() and is_ninja_available():
        return "compiling NNCF's kernels, once on this machine: about a minute of processor time"
    return ""


def load(console: Console) -> None:
    """Loads the kernels, and says so where that takes minutes.

    Raises:
        UserError: NNCF is not installed, or has given up waiting for a lock.
    """
    with toolchain("quantising", "quantize"):
        import nncf
        from nncf.torch.extensions import ExtensionLoaderTimeoutException

    nncf.set_log_level(logging.ERROR)  # it logs on stdout, which is the caller's
    drop_abandoned_lock()
    start, what = time.monotonic(), waiting_for()
    if what:
        console.print(what, highlight=False, soft_wrap=True)
    try:
        with console.status(what or "loading NNCF's kernels"):
            from nncf.torch.quantization.extensions import QuantizedFunctionsCPU

            QuantizedFunctionsCPU.get("Quantize_forward")
    except ExtensionLoaderTimeoutException as error:
        message = "NNCF waited in vain for its kernels to be built; python -m lavit_edge.doctor says what to do"
        raise UserError(message) from error
    if what:
        console.print(f"NNCF's kernels are there after {time.monotonic() - start:.0f} s", highlight=False)
