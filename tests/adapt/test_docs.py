"""The script in docs/adapt.md is short, and runs."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

import pytest

DOCS = Path(__file__).parents[2] / "docs" / "adapt.md"


@pytest.mark.slow
def test_the_script_for_a_model_of_ones_own(builder: str, colours: Path, tmp_path: Path) -> None:
    pytest.importorskip("nncf")
    pytest.importorskip("onnxruntime")
    (script,) = re.findall(r"```python\n(.*?)```", DOCS.read_text("utf-8"), re.DOTALL)
    assert len(script.splitlines()) <= 15
    (tmp_path / "script.py").write_text(script, encoding="utf-8")
    (tmp_path / "colours").symlink_to(colours, target_is_directory=True)
    done = subprocess.run([sys.executable, "script.py"], cwd=tmp_path, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    lines = done.stdout.splitlines()
    assert lines[0] == "1 of 1 batch norms folded into the layers before them"
    assert "in float: stem 1 no layer before it: rounding the picture would disturb all that follows" in lines
    assert lines[-1].startswith("gates passed: ")
    assert (tmp_path / "bundle" / "model.onnx").is_file()
