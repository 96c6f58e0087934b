"""What every command shares: exit codes that mean one thing, and names that are shown as they are."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

import lavit_edge.export
import lavit_edge.quantize
from lavit_edge.cli import new_console, new_table

PACKAGE = Path(lavit_edge.__file__).parent


def run(main: str, **options: Any) -> subprocess.CompletedProcess[str]:
    code = f"from lavit_edge.cli import run_command, UserError\ndef main():\n {main}\nrun_command(main)"
    return subprocess.run([sys.executable, "-c", code], **{"capture_output": True, "text": True, **options})


@pytest.mark.parametrize(
    ("main", "code", "words"),
    [
        ("return 0", 0, ""),
        ("return 1", 1, ""),
        ("raise UserError('no such folder')", 2, "error: no such folder\n"),
        ("raise OSError(28, 'No space left')", 2, "error: [Errno 28] No space left\n"),
        ("raise KeyboardInterrupt", 130, "interrupted\n"),
    ],
)
def test_each_end_has_its_code(main: str, code: int, words: str) -> None:
    done = run(main)
    assert (done.returncode, done.stderr) == (code, words)


@pytest.mark.parametrize("fault", ["ValueError('x')", "KeyError('x')", "AssertionError", "RecursionError", "ImportError('x')"])
def test_a_traceback_has_a_code_of_its_own(fault: str) -> None:
    done = run(f"raise {fault}")
    assert done.returncode == 70
    assert "Traceback" in done.stderr


def test_a_fault_while_a_command_is_imported_has_it_too(tmp_path: Path) -> None:
    (tmp_path / "numpy.py").write_text("raise ValueError('a broken installation')")
    environment = {**os.environ, "PYTHONPATH": str(tmp_path)}
    command = [sys.executable, "-m", "lavit_edge", "selftest", "--help"]
    done = subprocess.run(command, capture_output=True, text=True, env=environment)
    assert done.returncode == 70
    assert "a broken installation" in done.stderr


def test_output_that_nobody_reads_is_not_success() -> None:
    reading, writing = os.pipe()
    os.close(reading)
    try:
        done = run("print('x' * 1_000_000); return 0", capture_output=False, stdout=writing, stderr=subprocess.PIPE)
    finally:
        os.close(writing)
    assert (done.returncode, done.stderr) == (141, "")


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="Linux has a full disk to try")
def test_a_full_disk_is_one_line() -> None:
    with open("/dev/full", "w") as full:
        done = run("print('x'); return 0", capture_output=False, stdout=full, stderr=subprocess.PIPE)
    assert (done.returncode, done.stderr) == (2, "error: [Errno 28] No space left on device\n")


@pytest.mark.parametrize(
    "pattern",
    [r"\bConsole\(", r"(?<![.\w])Table\(", r"\[/[a-z ]*\]", r"^print\(.*ensure_ascii=False", r"markup import"],
)
def test_consoles_come_from_one_place_and_know_no_markup(pattern: str) -> None:
    """A second console, a table that cuts names, markup in a string, or JSON that an encoding turns into something else."""
    folders = [PACKAGE, *(Path(module.__path__[0]) for module in (lavit_edge.quantize, lavit_edge.export))]
    files = {file.resolve() for folder in folders for file in folder.rglob("*.py") if file.name not in ("cli.py", "verbs.py")}
    assert len(files) > 100
    lines = [(file.name, line.strip()) for file in files for line in file.read_text("utf-8").splitlines()]
    assert [each for each in lines if re.search(pattern, each[1])] == []


def test_a_table_folds_names_and_keeps_figures_whole(capsys: pytest.CaptureFixture[str]) -> None:
    table = new_table("name", figures=("a figure", "ms"))
    names = [f"{'stages.2.blocks.' * 6}{letter}" for letter in "abc"]
    for name in names:
        table.add_row(name, "1234567.89", "0.001")
    console = new_console()
    console.width = 40
    console.print(table)
    shown = capsys.readouterr().out
    assert "…" not in shown
    assert "".join(line[1:].partition("│")[0].strip() for line in shown.splitlines()[4:-1]) == "".join(names)
    assert shown.count("1234567.89") == shown.count("0.001") == 3
    assert max(map(len, shown.splitlines())) == 40
