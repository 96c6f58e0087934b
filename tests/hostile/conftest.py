"""The healthy base that every hostile input is made from, and the two ways to hold one against the code."""

from __future__ import annotations

import json
import multiprocessing
import os
import resource
import shutil
import subprocess
import sys
import traceback
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from lavit_edge.cli import run_command

TFLITE = Path(__file__).parents[1] / "golden" / "litert" / "bundle" / "model.tflite"
LONGEST = 60  # seconds; a case takes one at most, but machines are busy
MEMORY = 6 << 30  # bytes of address space beyond what the process has, for one case

Refused = Callable[[Callable[[], Any]], str]


@dataclass(frozen=True)
class Base:
    """A quantised checkpoint and its bundle with all three targets."""

    checkpoint: Path
    bundle: Path


@pytest.fixture(scope="session")
def base(tmp_path_factory: pytest.TempPathFactory) -> Base:
    """The doctor's model; exported by a process of its own, since a runtime's threads do not survive the forks below."""
    from lavit_edge.doctor.smallest import save_smallest

    root = tmp_path_factory.mktemp("healthy")
    save_smallest(root / "checkpoint")
    gates = ["--int8-margin", "30", "--agreement", "0"]
    command = [sys.executable, "-m", "lavit_edge.export", "--checkpoint", str(root / "checkpoint"), "--out", str(root / "bundle")]
    done = subprocess.run([*command, *gates], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    shutil.copy(TFLITE, root / "bundle")  # of the same model; its exporter lives elsewhere
    return Base(root / "checkpoint", root / "bundle")


@pytest.fixture
def checkpoint(base: Base, tmp_path: Path) -> Path:
    """A copy that may be damaged."""
    return Path(shutil.copytree(base.checkpoint, tmp_path / "checkpoint"))


@pytest.fixture
def bundle(base: Base, tmp_path: Path) -> Path:
    """A copy that may be damaged; its manifest leads to the healthy checkpoint."""
    copy = Path(shutil.copytree(base.bundle, tmp_path / "bundle"))
    manifest = json.loads((copy / "manifest.json").read_text())
    manifest["checkpoint_path"] = str(base.checkpoint)
    (copy / "manifest.json").write_text(json.dumps(manifest))
    return copy


def code_of(call: Callable[[], Any]) -> int:
    """The exit code of a command, or of anything else that is run as one."""
    try:
        run_command(lambda: result if isinstance(result := call(), int) else 0)
    except SystemExit as end:
        return int(end.code or 0)


def the_line(code: int, stderr: str) -> str:
    """The one line that a refusal is."""
    lines = stderr.splitlines()
    assert code == 2, f"exit code {code}: {stderr[-2000:]}"
    assert len(lines) == 1, stderr[-2000:]
    assert lines[0].startswith("error: ")
    assert lines[0].isprintable()
    assert len(lines[0]) < 1200
    return lines[0]


@pytest.fixture
def refused(capfd: pytest.CaptureFixture[str]) -> Refused:
    """Runs a call as a command, in this process; it must end with exit code 2 and one line on stderr, which is returned."""

    def run(call: Callable[[], Any]) -> str:
        capfd.readouterr()
        code = code_of(call)
        return the_line(code, capfd.readouterr().err)

    return run


@dataclass(frozen=True)
class Elsewhere:
    """Runs calls in a forked process, which may crash, hang or fill the memory."""

    log: Path

    def run(self, call: Callable[[], Any]) -> tuple[int, str]:
        """Exit code (negative: the signal that killed it) and stderr."""
        process = multiprocessing.get_context("fork").Process(target=self._inside, args=(call,))
        process.start()
        process.join(LONGEST)
        if process.is_alive():
            process.kill()
            process.join()
            pytest.fail(f"hangs: {self.log.read_text(errors='replace')[-2000:]}")
        assert process.exitcode is not None
        return process.exitcode, self.log.read_text(errors="replace")

    def refused(self, call: Callable[[], Any]) -> str:
        return the_line(*self.run(call))

    def survives(self, call: Callable[[], Any]) -> None:
        """The damage may go unseen here (only a digest sees all of it), but nothing worse than one line may come of it."""
        code, stderr = self.run(call)
        if code != 0:
            the_line(code, stderr)

    def _inside(self, call: Callable[[], Any]) -> None:
        used = int(Path("/proc/self/statm").read_text().split()[0]) * os.sysconf("SC_PAGESIZE")
        resource.setrlimit(resource.RLIMIT_AS, (used + MEMORY, used + MEMORY))
        descriptor = os.open(self.log, os.O_WRONLY | os.O_CREAT | os.O_TRUNC)
        os.dup2(descriptor, 2)
        sys.stderr = os.fdopen(2, "w", buffering=1, closefd=False)  # not pytest's, which native code would reach past
        try:
            code = code_of(call)
        except BaseException:
            traceback.print_exc()
            code = 99
        sys.stderr.flush()
        os._exit(code)


@pytest.fixture
def elsewhere(tmp_path: Path) -> Elsewhere:
    return Elsewhere(tmp_path / "stderr.log")
