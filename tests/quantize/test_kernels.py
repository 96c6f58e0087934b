"""What quantize says while NNCF compiles its kernels, or waits for another process that does."""

from __future__ import annotations

import os
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from lavit_edge.cli import new_console
from lavit_edge.errors import UserError

pytest.importorskip("nncf")

from lavit_edge.quantize import kernels


@pytest.fixture
def built(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The folder of the kernels, empty; and ninja, which may not be there, is."""
    monkeypatch.setenv("TORCH_EXTENSIONS_DIR", str(tmp_path))
    monkeypatch.setattr("torch.utils.cpp_extension.is_ninja_available", lambda: True)
    return kernels.build_folder()


@pytest.fixture
def loading(monkeypatch: pytest.MonkeyPatch) -> Callable[[Any], None]:
    """``loading(function)``: what NNCF does when its kernels are asked for."""
    from nncf.torch.quantization import extensions

    return lambda function: monkeypatch.setattr(extensions.QuantizedFunctionsCPU, "get", function)


def test_compiling_and_waiting_are_told_apart(built: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert kernels.waiting_for().startswith("compiling NNCF's kernels")
    (built / kernels.LOCK).touch()
    assert kernels.waiting_for().startswith("waiting for another process")
    assert str(built / kernels.LOCK) in kernels.waiting_for()
    (built / kernels.LOCK).unlink()
    (built / f"{kernels.KERNELS}.so").touch()
    assert kernels.waiting_for() == ""
    (built / f"{kernels.KERNELS}.so").unlink()
    monkeypatch.setattr("torch.utils.cpp_extension.is_ninja_available", lambda: False)
    assert kernels.waiting_for() == "", "nothing is compiled without ninja"


def test_a_lock_is_abandoned_where_nobody_builds(built: Path) -> None:
    lock, long_ago = built / kernels.LOCK, time.time() - 2 * kernels.SETTLED
    kernels.drop_abandoned_lock()  # of none
    lock.touch()
    kernels.drop_abandoned_lock()
    assert lock.exists(), "a build that has just begun"
    os.utime(lock, (long_ago, long_ago))
    ninja = subprocess.Popen([sys.executable, "-c", "print(1, flush=True); input()"], cwd=built, stdin=-1, stdout=-1, text=True)
    assert ninja.stdout
    assert ninja.stdout.readline() == "1\n"
    kernels.drop_abandoned_lock()
    assert lock.exists(), "somebody works there"
    ninja.communicate("\n")
    kernels.drop_abandoned_lock()
    assert not lock.exists()


def test_it_is_said_before_it_is_done(built: Path, loading: Callable, capsys: pytest.CaptureFixture[str]) -> None:
    seen = []
    loading(lambda name: seen.append(capsys.readouterr().out))
    kernels.load(new_console())
    assert "compiling NNCF's kernels" in seen[0]
    assert "there after 0 s" in capsys.readouterr().out
    (built / f"{kernels.KERNELS}.so").touch()
    kernels.load(new_console())
    assert capsys.readouterr().out.strip() == ""


def test_waiting_in_vain_is_told_in_a_line(built: Path, loading: Callable) -> None:
    from nncf.torch.extensions import ExtensionLoaderTimeoutException

    def wait(name: str) -> None:
        raise ExtensionLoaderTimeoutException("many\nlines")

    loading(wait)
    with pytest.raises(UserError, match=r"lavit_edge\.doctor"):
        kernels.load(new_console(quiet=True))


def test_nncf_says_nothing_on_stdout(built: Path) -> None:
    """In a process of its own, whose first words of NNCF these are; without ninja it falls back on torch's operators."""
    code = "from rich.console import Console; from lavit_edge.quantize.kernels import load; load(Console(quiet=True))"
    environment = {**os.environ, "PATH": str(built)}
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, env=environment, check=False)
    assert (done.returncode, done.stdout) == (0, ""), done.stderr
