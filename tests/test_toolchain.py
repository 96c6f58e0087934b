"""What toolchains say is held back, what they raise is not."""

from __future__ import annotations

import gc
import os
import subprocess
import sys
from pathlib import Path

import pytest

from lavit_edge.errors import UserError
from lavit_edge.toolchain import converting, quiet


def test_quiet_holds_back_chatter_and_lets_exceptions_pass(capsys, caplog) -> None:
    import logging
    import warnings

    import tqdm

    @quiet()
    def toolchain() -> None:
        warnings.warn("chatter", stacklevel=1)
        logging.getLogger("toolchain").warning("chatter")
        list(tqdm.tqdm([1, 2], desc="chatter"))
        raise ValueError("a real error")

    with pytest.raises(ValueError, match="a real error"), warnings.catch_warnings(record=True) as warned:
        toolchain()
    assert "chatter" not in capsys.readouterr().err + caplog.text + str(warned)
    list(tqdm.tqdm([1], desc="bars are back"))
    assert "bars are back" in capsys.readouterr().err


def wrapped(inner: Exception) -> Exception:
    """As a tool raises it: around what went wrong inside."""
    outer = RuntimeError("step 2 of 3 failed")
    outer.__cause__ = inner
    return outer


@pytest.mark.parametrize("error", [RuntimeError("no function\n  for foo"), wrapped(ValueError("no function for foo"))])
def test_what_a_tool_cannot_convert_is_said_on_one_line(error: Exception) -> None:
    with pytest.raises(UserError) as caught, converting("tool"):
        raise error
    assert str(caught.value) == "tool cannot convert this program: no function for foo"


@pytest.mark.parametrize("enabled", [True, False])
def test_garbage_collection_is_afterwards_what_it_was(enabled: bool) -> None:
    before = gc.isenabled()
    try:
        (gc.enable if enabled else gc.disable)()
        with converting("tool"):
            assert not gc.isenabled()
        assert gc.isenabled() == enabled
    finally:
        (gc.enable if before else gc.disable)()


def test_a_full_disk_is_no_refusal() -> None:
    with pytest.raises(OSError, match="disk"), converting("tool"):
        raise OSError("disk")


@pytest.mark.parametrize(
    ("package", "module"),
    [
        ("onnxruntime", "lavit_edge.contract"),  # any of ours
        ("nncf", "lavit_edge.quantize.calibrate"),
    ],
)
def test_toolchains_write_nothing_home_and_send_nothing(package: str, module: str, tmp_path: Path) -> None:
    pytest.importorskip(package)
    told = ("ORT_DISABLE_TELEMETRY", "CI", "TF_BUILD", "JENKINS_URL", "NNCF_CI", "NNCF_DEV")  # each would silence one of them
    elsewhere = {"HOME": str(tmp_path), "XDG_CACHE_HOME": str(tmp_path / "cache"), "XDG_CONFIG_HOME": str(tmp_path / "config")}
    environment = {name: value for name, value in os.environ.items() if name not in told} | elsewhere
    code = f"import {module}, {package}, sys; print(sys.modules.get('openvino_telemetry'))"
    done = subprocess.run([sys.executable, "-W", "ignore", "-c", code], capture_output=True, text=True, env=environment)
    assert (done.returncode, done.stdout) == (0, "None\n"), done.stderr
    assert list(tmp_path.rglob("*")) == []
