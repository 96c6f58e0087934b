"""The benchmark of training speed, with the least of everything, on a CPU."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

SCRIPT = Path(__file__).parents[2] / "benchmarks" / "train_throughput.py"
LEAST = ["--device", "cpu", "--batch-size", "4", "--image-size", "32", "--seconds", "0.2", "--workers", "0"]


def run(*more: str, cwd: Path) -> subprocess.CompletedProcess[str]:
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    return subprocess.run([sys.executable, SCRIPT, *LEAST, *more], cwd=cwd, env=environment, capture_output=True, text=True)


@pytest.mark.slow
def test_figures_agree_with_each_other(colours: Path, tmp_path: Path) -> None:
    models = ["--models", "lavit_mobile_s", "lavit_tiny", "pvt_v2_b1"]
    done = run(*models, "--modes", "eager", "--data", str(colours), "--json", cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    result: dict[str, Any] = json.loads(done.stdout)
    rows = {row["model"]: row for row in result["training"]}
    assert "pvt_v2_b1" in rows or "pvt_v2_b1 left out: timm cannot be imported" in done.stderr
    for row in rows.values():
        assert row["mode"] == "eager"
        assert row["img_per_s"] * row["step_ms"] == pytest.approx(4 * 1000)
        assert row["gflop_per_s"] == pytest.approx(row["img_per_s"] * row["gflop_per_picture"])
        assert row["of_own_eager"] == 1
    assert rows["lavit_tiny"]["gflop_per_picture"] > 2 * rows["lavit_mobile_s"]["gflop_per_picture"]
    assert [row["source"] for row in result["loading"]] == ["folder", "cache"]
    for row in result["loading"]:
        assert 0 < row["wait"] < 1
        assert row["host_img_per_s"] > row["trained_img_per_s"]
    assert "waited" in done.stderr


@pytest.mark.slow
def test_mistakes_are_one_line(tmp_path: Path) -> None:
    done = run("--models", "lavit_huge", cwd=tmp_path)
    assert done.returncode == 2
    assert done.stderr.startswith("error: --models lavit_huge: choose from")
    assert done.stderr.count("\n") == 1
