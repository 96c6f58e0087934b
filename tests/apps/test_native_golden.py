"""The C++ of native/ for camera frames and answers, on the golden files; needs no ExecuTorch, so plain g++ builds it."""

from __future__ import annotations

import json
import shutil
import subprocess
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

pytestmark = [pytest.mark.apps, pytest.mark.slow]
ROOT = Path(__file__).parents[2]
GOLDEN = ROOT / "tests" / "golden"
SOURCES = ["tests/golden", "answers", "common", "frame", "payload", "picture", "selftest", "sha256"]
# unoptimised: sanitizers and GCC's optimiser together take three times as long, and warn of what is not there
CHECKED = ["-O0", "-fsanitize=address,undefined", "-fno-sanitize-recover=all", "-D_GLIBCXX_ASSERTIONS"]


@pytest.fixture(scope="module")
def program(debian_file: Callable[[str, str], Path], tmp_path_factory: pytest.TempPathFactory) -> Path:
    compiler = debian_file("/usr/bin/g++", "g++")
    debian_file("/usr/include/nlohmann/json.hpp", "nlohmann-json3-dev")
    out = tmp_path_factory.mktemp("native") / "golden"
    files = [str(ROOT / "native" / f"{name}.cpp") for name in SOURCES]
    options = ["-std=c++17", "-Wall", "-Wextra", "-Werror", *CHECKED]
    done = subprocess.run([str(compiler), *options, *files, "-o", str(out)], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    return out


def run(program: Path, folder: Path) -> subprocess.CompletedProcess[str]:
    return subprocess.run([program, folder], capture_output=True, text=True, timeout=300)


@pytest.fixture(scope="module")
def found(program: Path) -> dict[str, Any]:
    done = run(program, GOLDEN)
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout)


def test_every_golden_frame_becomes_its_input_to_the_level(found: dict[str, Any]) -> None:
    assert set(found["frames"]) == {facts["name"] for facts in json.loads((GOLDEN / "frames.json").read_text("utf-8"))}
    assert max(found["frames"].values()) <= 1


def test_answers(found: dict[str, Any]) -> None:
    assert found["answers"]["count"] == len(json.loads((GOLDEN / "answers.json").read_text("utf-8")))
    assert found["answers"]["others"] == 0
    assert found["answers"]["off"] <= 1e-4


def test_contracts_thresholds_and_live_views(found: dict[str, Any]) -> None:
    cases = json.loads((GOLDEN / "decisions.json").read_text("utf-8"))
    frames = sum(len(case["frames"]) for case in cases["live"])
    assert found["decisions"]["count"] == len(cases["contracts"]) + len(cases["answers"]) + frames
    assert found["decisions"]["others"] == 0
    assert found["decisions"]["off"] < 1e-11


def test_the_selftest_says_of_the_cases_what_python_says(found: dict[str, Any]) -> None:
    assert found["selftest"] == {"count": len(json.loads((GOLDEN / "selftest.json").read_text("utf-8"))["cases"]), "others": []}


def test_frames_that_cannot_be_are_refused_in_a_line(found: dict[str, Any]) -> None:
    assert len(found["refused"]) == 10
    assert all(said is not None and said.startswith("frame: ") and "\n" not in said for said in found["refused"])


def test_a_changed_frame_and_a_changed_answer_are_seen(program: Path, tmp_path: Path) -> None:
    folder = tmp_path / "golden"
    shutil.copytree(GOLDEN, folder)
    name = json.loads((folder / "frames.json").read_text("utf-8"))[0]["name"]
    changed = bytearray((folder / f"{name}.input").read_bytes())
    changed[-1] ^= 128
    (folder / f"{name}.input").write_bytes(changed)
    answers = json.loads((folder / "answers.json").read_text("utf-8"))
    answers[0]["top"].reverse()
    answers[1]["softmax"][0] += 0.01
    (folder / "answers.json").write_text(json.dumps(answers))
    found = json.loads(run(program, folder).stdout)
    assert [frame for frame, off in found["frames"].items() if off > 1] == [name]
    assert found["answers"]["others"] == 1
    assert found["answers"]["off"] > 0.009
