"""What the tests of the bench package share: a sound report, with whatever a test wants changed, and lavit_bench."""

from __future__ import annotations

import copy
import os
import platform
import subprocess
from collections.abc import Callable
from itertools import accumulate
from pathlib import Path
from typing import Any

import pytest

from lavit_edge.benchmark import native
from lavit_edge.benchmark.report import Report, finish, latency
from lavit_edge.errors import UserError

_CONDITION: dict[str, Any] = {
    "power": "mains",
    "battery_permille": None,
    "low_power": None,
    "thermal": "nominal",
    "temperature_millicelsius": None,
    "governor": "performance",
    "load_permille": 100,
}
_REPORT: dict[str, Any] = {
    "harness": {"name": "lavit_edge.bench", "version": "0.1.0", "build": "release"},
    "device": {
        "name": "Test board",
        "kind": "board",
        "os": "Linux",
        "os_version": "6.1",
        "arch": "x86_64",
        "cpu": "Test CPU",
        "cpu_features": ["avx", "avx2"],
        "cores": 2,
        "memory_bytes": 8 << 30,
        "emulated": False,
        "emulator": None,
    },
    "runtime": {"name": "ONNX Runtime", "version": "1.31.1", "backend": "CPU", "delegated_macs_permille": 990, "graph_breaks": 3},
    "artifact": {
        "file": "model.onnx",
        "bytes": 4_900_000,
        "sha256": "a" * 64,
        "content_sha256": "b" * 64,
        "contract_sha256": "c" * 64,
        "model": "lavit_mobile_s",
        "precision": "int8",
        "image_size": 160,
        "top1_permille": 894,
    },
    "settings": {
        "threads": 1,
        "least_duration_ns": 400_000_000,
        "least_runs": 50,
        "warmup": {"policy": "3 runs and 1 s, whichever is later", "runs": 200, "duration_ns": 1_000_000_000},
    },
    "conditions": {"before": _CONDITION, "after": _CONDITION},
    "self_test": {"passed": True, "pictures": 4, "same_top1": 4, "worst_millisteps": 2100, "forced": False, "detail": None},
    "load": {"cold_ns": 60_000_000, "first_inference_ns": 9_000_000, "file_cache": "warm"},
    "preprocessing": {"frame": "640x480 RGB", "runs": 50, "p50_ns": 2_000_000},
    "memory": {"peak_bytes": 120_000_000, "source": "VmHWM"},
    "least_duration_met": True,
    "notes": [],
}
_SAMPLES = [5_000_000 + 20_000 * (run * 37 % 11) for run in range(100)]  # 5.0 to 5.2 ms


@pytest.fixture(scope="session")
def make_report() -> Callable[..., Report]:
    """``make_report(samples_ns=[...], device__name="x", settings__threads=2)``: a sound report, with changes.

    Two underscores lead into an object. ``latency`` is made of ``samples_ns``, runs that follow each other without a gap; give
    ``latency`` itself (None, for example) to have another. Raises ValueError, as :func:`finish` does, if it is then not sound.
    """

    def make(samples_ns: list[int] | None = None, **changes: Any) -> Report:
        samples = samples_ns or _SAMPLES
        report: Report = copy.deepcopy(_REPORT)
        report["latency"] = latency(samples, [0, *accumulate(samples[:-1])])
        for path, value in changes.items():
            *folders, name = path.split("__")
            place = report
            for folder in folders:
                place = place[folder]
            place[name] = value
        return finish(report)

    return make


@pytest.fixture
def without_programs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty folder that is all of the PATH."""
    folder = tmp_path / "bin"
    folder.mkdir()
    monkeypatch.setenv("PATH", str(folder))
    return folder


@pytest.fixture(scope="session")
def built() -> Callable[[native.Architecture], Path]:
    """Makes the package of lavit_bench, or skips where Debian's packages for it are not installed."""

    def make(arch: native.Architecture) -> Path:
        try:
            return native.package(arch)
        except UserError as error:
            if "apt-get install" in str(error) and not os.environ.get("CI"):
                pytest.skip(str(error))
            raise

    return make


@pytest.fixture(scope="session")
def run(built: Callable[[native.Architecture], Path]) -> Callable[..., subprocess.CompletedProcess[str]]:
    """Starts lavit_bench as on a device, through the shell."""
    if platform.system() != "Linux" or platform.machine() != "x86_64":
        pytest.skip("builds and runs lavit_bench for Linux on x86-64")
    program = built("x86_64") / "run"

    def start(*words: str | Path) -> subprocess.CompletedProcess[str]:
        return subprocess.run(["sh", program, *words], capture_output=True, text=True, timeout=120, check=False)

    return start
