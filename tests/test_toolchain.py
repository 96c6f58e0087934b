"""What toolchains say is held back, what they raise is not."""

from __future__ import annotations

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


def test_a_full_disk_is_no_refusal() -> None:
    with pytest.raises(OSError, match="disk"), converting("tool"):
        raise OSError("disk")
