"""The process that lowers to ExecuTorch beside the other targets."""

from __future__ import annotations

from pathlib import Path

import pytest
from torch.export import ExportedProgram

from lavit_edge.artifact.payload import Payload
from lavit_edge.checkpoint import load_checkpoint
from lavit_edge.errors import UserError
from lavit_edge.export.executorch_child import ExecutorchChild
from lavit_edge.export.golden import make_payload
from lavit_edge.export.targets import TARGETS, ExecutorchOptions
from lavit_edge.quantize import int8_program


@pytest.fixture(scope="module")
def made(int8: Path) -> tuple[ExportedProgram, Payload]:
    checkpoint = load_checkpoint(int8)
    program = int8_program(checkpoint)
    return program, make_payload(program, checkpoint.contract, {"made": "für \u2028 Tests"}, 12.5)


@pytest.mark.slow
def test_its_artifact_has_the_bytes_that_this_process_would_give_it(
    made: tuple[ExportedProgram, Payload], tmp_path: Path
) -> None:
    program, payload = made
    TARGETS["executorch"].export(program, payload, tmp_path / "here.pte")
    with ExecutorchChild(program, ExecutorchOptions()) as child:
        child.begin(payload, tmp_path / "there.pte")
        child.finish()
    assert (tmp_path / "there.pte").read_bytes() == (tmp_path / "here.pte").read_bytes()


def test_what_a_user_can_mend_is_the_same_line(made: tuple[ExportedProgram, Payload], tmp_path: Path) -> None:
    with ExecutorchChild(made[0], ExecutorchOptions()) as child:
        child.begin(made[1], tmp_path / "error: model.bin")
        with pytest.raises(UserError, match=r"^'error: model\.bin' must end in \.pte$"):
            child.finish()
    assert not list(tmp_path.iterdir())


def test_a_killed_one_is_said(made: tuple[ExportedProgram, Payload], tmp_path: Path) -> None:
    with ExecutorchChild(made[0], ExecutorchOptions()) as child:
        child._process.kill()
        child._process.wait()
        with pytest.raises(UserError, match="ended by signal 9, as where memory is short"):
            child.begin(made[1], tmp_path / "model.pte")


def test_nothing_of_it_is_left_where_the_export_ends_before(made: tuple[ExportedProgram, Payload]) -> None:
    with pytest.raises(KeyboardInterrupt), ExecutorchChild(made[0], ExecutorchOptions()) as child:
        raise KeyboardInterrupt
    assert child._process.returncode is not None
    assert not child._folder.exists()
