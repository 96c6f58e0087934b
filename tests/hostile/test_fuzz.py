from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

import pytest

SECONDS = 10  # each


@pytest.mark.slow
@pytest.mark.parametrize("target", ["contract", "mlprogram", "payload"])
def test_nothing_but_one_line_comes_of_mutated_input(target: str, tmp_path: Path) -> None:
    pytest.importorskip("atheris")  # no wheel for every machine
    fuzz, corpus = Path(__file__).parent / "fuzz.py", tmp_path / "corpus"
    command = [sys.executable, "-W", "ignore", str(fuzz), target, str(corpus), f"-max_total_time={SECONDS}", "-seed=1"]
    done = subprocess.run(command, capture_output=True, text=True, errors="replace", timeout=SECONDS + 240)
    assert done.returncode == 0, done.stderr[-3000:]  # libFuzzer stops at the first input that breaks something
    (runs,) = re.findall(r"Done (\d+) runs", done.stderr)
    assert int(runs) > 20
