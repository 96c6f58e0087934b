"""Names from reports and paths, in terminals of every encoding: shown as they are, or escaped."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from lavit_edge.benchmark.report import write_report

NAME = "[red]猫 é 😀 :bug:[/]"
ENCODINGS: dict[str, dict[str, str]] = {
    "UTF-8": {"PYTHONIOENCODING": "utf-8"},
    "cp1252": {"PYTHONIOENCODING": "cp1252"},
    "LANG=C": {"LC_ALL": "C", "LANG": "C", "PYTHONUTF8": "0", "PYTHONCOERCECLOCALE": "0"},
}


@pytest.mark.parametrize("encoding", ENCODINGS)
@pytest.mark.parametrize("form", ["table", "--markdown", "--json"])
def test_names_are_shown_as_they_are_or_escaped(
    encoding: str, form: str, tmp_path: Path, make_report: Callable[..., Any]
) -> None:
    file = tmp_path / f"{NAME.removesuffix('[/]')}.json"  # no slash in a file's name
    write_report(make_report(device__name=NAME), file)
    write_report(make_report(device__name="another"), tmp_path / "b.json")
    environment = {name: value for name, value in os.environ.items() if name != "PYTHONIOENCODING"}
    environment |= {"COLUMNS": "200", **ENCODINGS[encoding]}
    command = [sys.executable, "-m", "lavit_edge.compare", file, tmp_path / "b.json", *([form] if form != "table" else [])]
    done = subprocess.run(command, capture_output=True, env=environment)
    assert done.returncode == 0, done.stderr
    if form == "--json":
        rows = json.loads(done.stdout.decode("ascii"))["rows"]
        assert rows[0]["device"] == NAME
        assert rows[0]["reports"][0].encode("utf-8", "surrogateescape") == os.fsencode(file)  # under LANG=C, as Python has it
        return
    codec = {"UTF-8": "utf-8", "cp1252": "cp1252", "LANG=C": "ascii"}[encoding]
    shown = done.stdout.decode(codec)
    wanted = NAME.encode(codec, "backslashreplace").decode(codec)
    assert wanted in (re.sub(r"\\([\[\]])", r"\1", shown) if form == "--markdown" else shown)


def test_an_error_names_a_file_that_the_encoding_lacks() -> None:
    environment = {**os.environ, "PYTHONIOENCODING": "cp1252"}
    command = [sys.executable, "-m", "lavit_edge.compare", f"/none/{NAME}"]
    done = subprocess.run(command, capture_output=True, env=environment)
    assert done.returncode == 2
    assert done.stderr.decode("cp1252").splitlines()[-1] == r"error: /none/[red]\u732b é \U0001f600 :bug:[/] does not exist"
