"""What toolchains say is held back, what they raise is not."""

from __future__ import annotations

import pytest

from lavit_edge.toolchain import quiet


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
