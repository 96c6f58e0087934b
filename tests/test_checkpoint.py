from __future__ import annotations

import itertools
import json
import pickle
import shutil
import signal
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file
from torch import Tensor

from lavit_edge.checkpoint import CARD, CONFIG, INT8, WEIGHTS, load_checkpoint, load_tensors, save_checkpoint
from lavit_edge.errors import UserError
from lavit_edge.files import file_sha256


@pytest.fixture
def checkpoint(tiny_checkpoint: Path, tmp_path: Path) -> Path:
    """A copy that may be damaged."""
    return Path(shutil.copytree(tiny_checkpoint, tmp_path / "checkpoint"))


def edit_config(checkpoint: Path, change: Callable[[dict[str, Any]], object]) -> None:
    config = json.loads((checkpoint / CONFIG).read_text(encoding="utf-8"))
    change(config)
    (checkpoint / CONFIG).write_text(json.dumps(config), encoding="utf-8")


def edit_tensors(checkpoint: Path, change: Callable[[dict[str, Tensor]], object]) -> None:
    """Changes the weights and records their new hash, as a faulty writer would."""
    tensors = load_file(checkpoint / WEIGHTS)
    change(tensors)
    save_file(tensors, checkpoint / WEIGHTS)
    edit_config(checkpoint, lambda config: config["sha256"].update({WEIGHTS: file_sha256(checkpoint / WEIGHTS)}))


def refused(path: Path) -> str:
    with pytest.raises(UserError) as caught:
        load_checkpoint(path)
    assert "\n" not in str(caught.value)
    return str(caught.value)


def save_like(source: Path, target: Path, tensors: dict[str, Tensor] | None = None, **more: Any) -> None:
    loaded = load_checkpoint(source)
    weights = tensors if tensors is not None else loaded.model.state_dict()
    save_checkpoint(target, weights, model=loaded.config["model"], contract=loaded.contract, card="# card\n", **more)


def test_saving_and_loading_is_bit_exact(checkpoint: Path, tmp_path: Path) -> None:
    loaded = load_checkpoint(checkpoint)
    weights = {name: torch.randn_like(v) if v.is_floating_point() else v + 3 for name, v in loaded.model.state_dict().items()}
    int8 = {"a.weight": torch.tensor([-127, 0, 127], dtype=torch.int8), "a.scale": torch.tensor(0.1)}
    save_like(checkpoint, tmp_path / "new" / "checkpoint", weights, facts={"metrics": {"val_top1": 0.5}}, int8=int8)

    again = load_checkpoint(str(tmp_path / "new" / "checkpoint"))
    assert {path.name for path in again.path.iterdir()} == {WEIGHTS, CONFIG, CARD, INT8}
    state = again.model.state_dict()
    assert list(state) == list(weights)
    assert all(torch.equal(state[name], value) and state[name].dtype == value.dtype for name, value in weights.items())
    assert again.contract == loaded.contract
    assert again.config["metrics"] == {"val_top1": 0.5}
    assert again.quantized
    assert not loaded.quantized
    assert not again.model.training
    stored = load_tensors(again.path / INT8, again.config)
    assert all(torch.equal(stored[name], value) and stored[name].dtype == value.dtype for name, value in int8.items())


def test_weights_in_another_memory_format_are_saved_by_value(checkpoint: Path, tmp_path: Path) -> None:
    weights = load_checkpoint(checkpoint).model.state_dict()
    strided = {name: v.to(memory_format=torch.channels_last) if v.ndim == 4 else v for name, v in weights.items()}
    save_like(checkpoint, tmp_path / "new", strided)
    again = load_checkpoint(tmp_path / "new").model.state_dict()
    assert all(torch.equal(again[name], value) for name, value in weights.items())


def test_tied_weights_are_saved_twice(checkpoint: Path, tmp_path: Path) -> None:
    """As of CoaT, which uses one position encoding in several blocks: quantising it ended in safetensors' traceback."""
    source = load_checkpoint(checkpoint)
    tensors = load_file(checkpoint / WEIGHTS)
    one, other = next(pair for pair in itertools.combinations(tensors, 2) if tensors[pair[0]].shape == tensors[pair[1]].shape)
    tensors[other] = tensors[one]
    save_checkpoint(tmp_path / "tied", tensors, model=source.config["model"], contract=source.contract, card="# tied\n")
    saved = load_file(tmp_path / "tied" / WEIGHTS)
    assert torch.equal(saved[one], saved[other])


def test_truncated_weights(checkpoint: Path) -> None:
    data = (checkpoint / WEIGHTS).read_bytes()
    for kept in (0, 4, 100, len(data) // 2, len(data) - 1):
        (checkpoint / WEIGHTS).write_bytes(data[:kept])
        assert f"{WEIGHTS} is damaged" in refused(checkpoint)


def test_a_flipped_bit(checkpoint: Path) -> None:
    data = bytearray((checkpoint / WEIGHTS).read_bytes())
    data[-1000] ^= 1
    (checkpoint / WEIGHTS).write_bytes(data)
    assert "its sha256 differs" in refused(checkpoint)
    edit_config(checkpoint, lambda config: config["sha256"].clear())
    assert "its sha256 differs" in refused(checkpoint)
    edit_config(checkpoint, lambda config: config.pop("sha256"))
    assert "'sha256' must be" in refused(checkpoint)


def test_missing_weights_file(checkpoint: Path) -> None:
    (checkpoint / WEIGHTS).unlink()
    assert f"{WEIGHTS} is missing" in refused(checkpoint)


def test_missing_and_surplus_tensors(checkpoint: Path) -> None:
    edit_tensors(checkpoint, lambda tensors: tensors.pop("norm.bias"))
    assert "'norm.bias' of lavit_mobile_s is missing" in refused(checkpoint)
    edit_tensors(checkpoint, lambda tensors: tensors.update({"norm.bias": torch.zeros(64), "extra": torch.zeros(1)}))
    assert "'extra' is not part of lavit_mobile_s" in refused(checkpoint)


def test_wrong_shape(checkpoint: Path) -> None:
    edit_tensors(checkpoint, lambda tensors: tensors.update({"norm.bias": torch.zeros(65)}))
    assert "'norm.bias' has shape (65,), lavit_mobile_s wants (64,)" in refused(checkpoint)


@pytest.mark.parametrize("value", [float("nan"), float("inf")])
def test_weights_that_are_not_finite(checkpoint: Path, value: float) -> None:
    edit_tensors(checkpoint, lambda tensors: tensors["norm.bias"].__setitem__(3, value))
    assert "'norm.bias' holds NaN or inf" in refused(checkpoint)


def test_labels_that_do_not_match_the_head(checkpoint: Path) -> None:
    edit_config(checkpoint, lambda config: config["contract"]["labels"].append("one more"))
    assert "another number of labels than the head" in refused(checkpoint)


def test_a_contract_of_another_size_than_the_weights(checkpoint: Path) -> None:
    edit_config(checkpoint, lambda config: config["contract"].update(size=96))
    assert "has shape" in refused(checkpoint)


def test_a_pickle_is_refused_and_not_opened(tmp_path: Path) -> None:
    class Trap:
        def __reduce__(self) -> tuple[Any, ...]:
            return (Path.touch, (tmp_path / "opened",))

    for suffix in (".pt", ".pth", ".bin"):
        file = tmp_path / f"weights{suffix}"
        file.write_bytes(pickle.dumps(Trap()))
        assert "is a pickle, which can run code" in refused(file)
    folder = tmp_path / "folder"
    folder.mkdir()
    shutil.copy(tmp_path / "weights.bin", folder / "pytorch_model.bin")
    assert "pytorch_model.bin looks like a pickle, which is refused" in refused(folder)
    assert not (tmp_path / "opened").exists()


def test_a_pickle_under_the_name_of_the_weights(checkpoint: Path) -> None:
    torch.save({"norm.bias": torch.zeros(64)}, checkpoint / WEIGHTS)
    assert "not a safetensors file" in refused(checkpoint)


@pytest.mark.parametrize("text", ["", "{", "\udcff", "[]", "{}", '{"format": "other/1"}'])
def test_a_config_that_is_none(checkpoint: Path, text: str) -> None:
    (checkpoint / CONFIG).write_bytes(text.encode(errors="surrogateescape"))
    assert CONFIG in refused(checkpoint)


@pytest.mark.parametrize("path", ["nothing", "a/b/c"])
def test_no_such_checkpoint(tmp_path: Path, path: str) -> None:
    assert f"{path} is not a checkpoint" in refused(tmp_path / path)


@pytest.mark.parametrize(
    ("model", "words"),
    [
        ({"name": "lavit_mobil_s"}, "did you mean 'lavit_mobile_s'?"),
        ({"name": 3}, "'model' must be an object"),
        (None, "'model' must be an object"),
        ({"name": "lavit_nano", "options": {}}, "no 'lavit_nano' any more; lavit-edge 0.1.0 reads its checkpoints"),
        ({"name": "lavit_mobile_s", "options": [1]}, "'options'"),
        ({"name": "lavit_mobile_s", "options": {"num_classes": 10}}, "'options'"),
        ({"name": "lavit_mobile_s", "options": {"window": 7}}, "window"),
    ],
)
def test_a_config_with_another_model(checkpoint: Path, model: Any, words: str) -> None:
    edit_config(checkpoint, lambda config: config.update(model=model))
    assert words in refused(checkpoint)


def test_a_config_with_a_bad_contract(checkpoint: Path) -> None:
    edit_config(checkpoint, lambda config: config["contract"].update(std=[0, 1, 1]))
    assert "contract: std" in refused(checkpoint)
    edit_config(checkpoint, lambda config: config.pop("contract"))
    assert "contract" in refused(checkpoint)


def test_saving_replaces_a_checkpoint_but_nothing_else(checkpoint: Path, tmp_path: Path) -> None:
    save_like(checkpoint, checkpoint)
    assert (checkpoint / CARD).read_text() == "# card\n"
    file, folder = tmp_path / "notes.txt", tmp_path / "pictures"
    folder.mkdir()
    for path in (file, folder / "holiday.jpg"):
        path.write_text("mine")
    for target in (file, folder):
        with pytest.raises(UserError, match="already exists and is not empty"):
            save_like(checkpoint, target)
    assert file.read_text() == (folder / "holiday.jpg").read_text() == "mine"


KILLED_WHILE_SAVING = """
import os, signal, sys
from lavit_edge import checkpoint
loaded = checkpoint.load_checkpoint(sys.argv[1])
checkpoint.file_sha256 = lambda file: os.kill(os.getpid(), signal.SIGKILL)  # called once the new weights are written
tensors = {name: value + 1 for name, value in loaded.model.state_dict().items()}
checkpoint.save_checkpoint(sys.argv[1], tensors, model=loaded.config["model"], contract=loaded.contract, card="new")
"""


def test_a_kill_while_saving_leaves_the_old_checkpoint(checkpoint: Path) -> None:
    before = {path.name: path.read_bytes() for path in checkpoint.iterdir()}
    done = subprocess.run([sys.executable, "-c", KILLED_WHILE_SAVING, str(checkpoint)], capture_output=True, text=True)
    assert done.returncode == -signal.SIGKILL, done.stderr
    assert {path.name: path.read_bytes() for path in checkpoint.iterdir()} == before
    # what remains of the attempt is hidden, recognisable, and in nobody's way
    (leftover,) = (path for path in checkpoint.parent.iterdir() if path != checkpoint)
    assert leftover.name.startswith(".checkpoint.")
    assert (leftover / WEIGHTS).exists()
    save_like(checkpoint, checkpoint)
    load_checkpoint(checkpoint)
