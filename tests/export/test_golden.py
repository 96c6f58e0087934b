"""The golden pictures that export chooses, and what of planted damage they show."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from torch.export import ExportedProgram

from lavit_edge.artifact.payload import Payload
from lavit_edge.artifact.runners import to_tensor
from lavit_edge.checkpoint import load_checkpoint
from lavit_edge.contract import InputContract
from lavit_edge.contract.pictures import to_input
from lavit_edge.export import adversarial, golden
from lavit_edge.export import replay as replays
from lavit_edge.export.golden import FAULTS, Chosen, choose, make_payload, photographs
from lavit_edge.export.replay import Replay
from lavit_edge.export.targets import CoremlOptions, ExecutorchOptions, OnnxOptions
from lavit_edge.models.deployed import Deployed
from lavit_edge.quantize.program import float_program, int8_program
from lavit_edge.selftest import check_close, check_logits

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def contract(int8: Path) -> InputContract:
    return load_checkpoint(int8).contract


@pytest.fixture(scope="module")
def program(int8: Path) -> ExportedProgram:
    return int8_program(load_checkpoint(int8))


@pytest.fixture(scope="module")
def chosen(program: ExportedProgram, contract: InputContract) -> Chosen:
    return choose(program, contract, {"float32", "float16"})


def passes(payload: Payload, answers: list[np.ndarray]) -> bool:
    logits = [check_logits(golden, each, payload).passed for golden, each in zip(payload.golden, answers, strict=True)]
    return all(logits) and check_close(answers, payload).passed


def answers(replay: Replay, payload: Payload, planted: tuple[str, str] | None = None) -> list[np.ndarray]:
    found = []
    for each in payload.golden:
        values = replay.run(to_input(each.image(), payload.contract))
        found.append(replay.changed(values, planted[0], FAULTS[planted[1]]) if planted else replay.logits(values))
    return found


def test_the_replay_gives_the_logits_of_the_program_to_the_bit(program: ExportedProgram, contract: InputContract) -> None:
    replay, module = Replay(program), program.module()
    for _, image in photographs():
        picture = to_input(image, contract)
        logits = module(torch.from_numpy(to_tensor(picture)))[0].detach().numpy()
        assert np.array_equal(replay.logits(replay.run(picture)), logits)


def test_layers_have_the_paths_that_they_have_in_the_model(program: ExportedProgram, int8: Path) -> None:
    layers = Replay(program).weights
    assert (
        layers.keys() <= dict(Deployed(load_checkpoint(int8).model, load_checkpoint(int8).contract).model.named_modules()).keys()
    )
    assert "head" in layers


def test_weights_that_are_computed_are_no_layers() -> None:
    class Computed(torch.nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.head = torch.nn.Linear(3, 2)

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            means = x.mean((2, 3))
            return self.head(torch.nn.functional.linear(means, means.T @ means))

    program = torch.export.export(Computed(), (torch.zeros(1, 3, 8, 8),))
    assert list(Replay(program).weights) == ["head"]


def test_the_program_itself_passes_and_planted_faults_do_as_is_said(program: ExportedProgram, chosen: Chosen) -> None:
    replay = Replay(program)
    sample = list(replay.weights)[::6]
    for kind, power in chosen.power.items():
        payload = chosen.payload(kind, {})
        assert passes(payload, answers(replay, payload))
        for path in sample:
            for fault in FAULTS:
                blind = f"{path} {fault}" in power.blind
                assert passes(payload, answers(replay, payload, (path, fault))) == blind, (path, fault)


def test_nearly_every_fault_is_seen_where_codes_are_rounded_alike(chosen: Chosen) -> None:
    power = chosen.power["float32"]
    assert power.layers > 20
    assert power.planted == 3 * power.layers
    assert len(power.blind) <= 0.1 * power.planted
    assert power.to_dict()["seen"] + len(power.blind) == power.planted
    assert not [each.name for each in chosen.golden["float32"] if each.name.startswith("made")]


def test_one_picture_as_expected_is_too_few_and_two_are_enough(program: ExportedProgram, chosen: Chosen) -> None:
    payload = chosen.payload("float32", {})
    assert payload.close_pictures == 2
    assert chosen.payload("float16", {}).close_pictures == 0
    moved = [each.logits.copy() for each in payload.golden]
    for logits in moved[2:]:
        logits[0] += np.float32(0.5 * payload.step)
    assert check_close(moved, payload).passed
    moved[0][0] += np.float32(0.5 * payload.step)
    assert not check_close(moved, payload).passed


def test_the_same_program_gets_the_same_pictures_and_tolerances(
    program: ExportedProgram, contract: InputContract, chosen: Chosen
) -> None:
    again = choose(program, contract, {"float32", "float16"})
    assert again.payload("float32", {}).metadata() == chosen.payload("float32", {}).metadata()
    assert again.power == chosen.power


def test_the_tolerance_follows_what_the_runtime_computes_in_and_not_the_suffix() -> None:
    assert [ExecutorchOptions(backend).computes_in for backend in ("xnnpack", "coreml")] == ["float32", "float16"]
    assert [CoremlOptions().computes_in, OnnxOptions().computes_in] == ["float16", "float32"]


def test_in_fp16_a_float_program_may_be_off_more(int8: Path, contract: InputContract) -> None:
    found = choose(float_program(load_checkpoint(int8)), contract, {"float16"})
    assert min(each.tolerance for each in found.payload("float16", {}).golden) >= 1
    assert len(found.power["float16"].blind) <= 0.1 * found.power["float16"].planted


def test_a_given_tolerance_is_that_of_every_picture(chosen: Chosen) -> None:
    assert {each.tolerance for each in chosen.payload("float32", {}, 50.0).golden} == {50.0}
    assert len({each.tolerance for each in chosen.payload("float32", {}).golden}) > 4


def test_of_a_float_program_the_photographs_show_every_fault_within_float_tolerances(int8: Path, contract: InputContract) -> None:
    found = choose(float_program(load_checkpoint(int8)), contract, {"float32"})
    payload = found.payload("float32", {})
    assert payload.close_pictures == 0
    assert max(each.tolerance for each in payload.golden) < 1
    assert not found.power["float32"].blind


def test_a_class_that_is_masked_stretches_no_step(program: ExportedProgram, contract: InputContract) -> None:
    class Masked(torch.nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.mask = torch.zeros(len(contract.labels))
            self.mask[2] = -1e4
            self.inner = program.module()

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return self.inner(x) + self.mask

    masked = torch.export.export(Masked(), (torch.zeros(1, 3, contract.size, contract.size),))
    steps = [make_payload(each, contract, {}, 1.0).step for each in (program, masked)]
    assert 0.5 < steps[1] / steps[0] < 2


def test_a_pattern_is_taken_when_it_shows_what_the_photographs_do_not(
    program: ExportedProgram, contract: InputContract, monkeypatch: pytest.MonkeyPatch
) -> None:
    """With one photograph that is black, and no flat colours, most of what is seen is seen on patterns."""
    name, image = next(golden.photographs())
    monkeypatch.setattr(golden, "photographs", lambda: [(name, image.point(lambda _: 0)), (name, image)])
    monkeypatch.setattr(golden, "QUIET", 0)
    monkeypatch.setattr(golden, "HEADROOM", 20.0)
    found = choose(program, contract, {"float32"})
    names = [each.name for each in found.golden["float32"]]
    assert names[:2] == [name, name]
    assert set(names[2:]) <= {each for each, _ in golden.patterns(contract)}
    assert found.close == {"float32": 0}, "no quiet colours were found"


def test_a_fault_that_a_growing_tolerance_hides_again_is_looked_for_on_every_picture(
    program: ExportedProgram, contract: InputContract, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A tolerance counts noise as no less than most pictures', so it can grow with pictures that come later."""
    choice = golden._Choice(program, contract, {"float32"})
    choice.step = 1.0
    layers = choice.layers[:2]
    monkeypatch.setattr(choice, "off", {planted: {} for planted in choice.off if planted[0] in layers})
    noises = iter([0.0, 1e6, 1e6])  # what moves logits by 0.1 shows on the first picture, until the others are there
    monkeypatch.setattr(choice, "_noise", lambda *_: next(noises))
    images = list(golden.photographs())[:3]
    for name, image in images:
        choice._add(name, image, always=True)
    passed_over = [planted for planted, off in choice.off.items() if 1 not in off]
    assert passed_over
    choice._look_again()
    values = [choice.replay.run(to_input(image, contract)) for _, image in images]
    for path, fault in choice.off:
        found = [
            golden._difference(choice.replay.changed(each, path, FAULTS[fault]), choice.replay.logits(each)) for each in values
        ]
        assert choice.off[path, fault] == dict(enumerate(found))


def test_pictures_made_for_layers_show_what_fp16_hides(
    program: ExportedProgram, contract: InputContract, monkeypatch: pytest.MonkeyPatch
) -> None:
    """With tolerances at which photographs and patterns show little; a sound artifact whose fp16 rounds otherwise passes."""
    monkeypatch.setattr(golden, "HEADROOM", 100.0)
    monkeypatch.setattr(golden, "COLOURS", golden.QUIET)
    monkeypatch.setattr(golden, "MOST_LAYERS", 12)
    monkeypatch.setattr(adversarial, "CHANGES", 40)
    monkeypatch.setattr(golden, "MADE", 0)
    without = choose(program, contract, {"float16"})
    monkeypatch.setattr(golden, "MADE", 1)
    found = choose(program, contract, {"float16"})
    assert set(found.power["float16"].blind) < set(without.power["float16"].blind)
    made = [each for each in found.golden["float16"] if each.name.startswith("made")]
    assert len(made) == 1
    replay, payload, random = Replay(program), found.payload("float16", {}), torch.Generator().manual_seed(7)

    def rounding(value: torch.Tensor) -> torch.Tensor:
        return value * (1 + golden.ROUNDING["float16"] * (2 * torch.rand(value.shape, generator=random) - 1))

    for each in made:
        picture = to_input(each.image(), contract)
        for _ in range(8):
            assert check_logits(each, replay.logits(replay.run(picture, rounding)), payload).passed


@pytest.mark.parametrize(("largest", "steps"), [(9.0, 24.0), (30.0, 45.0)], ids=["by the median", "by the largest"])
def test_the_tolerance_of_a_made_picture_follows_how_far_its_logits_move(
    program: ExportedProgram, contract: InputContract, monkeypatch: pytest.MonkeyPatch, largest: float, steps: float
) -> None:
    """Three times the median or one and a half times the largest; here nearly all move by 8 steps."""
    monkeypatch.setattr(golden, "HEADROOM", 100.0)
    monkeypatch.setattr(golden, "COLOURS", golden.QUIET)
    monkeypatch.setattr(golden, "MOST_LAYERS", 4)
    monkeypatch.setattr(golden, "MADE", 1)
    monkeypatch.setattr(golden, "steepest", lambda *_: 0)
    picture = np.random.default_rng(0).integers(0, 256, (contract.size, contract.size, 3), dtype=np.uint8)
    monkeypatch.setattr(golden, "make_input", lambda *_: picture)
    monkeypatch.setattr(
        golden._Choice,
        "_draws",
        lambda self, picture, logits, size, draws, grey=0: self.step * np.r_[[8.0] * (draws - 1), largest],
    )
    (made,) = (each for each in choose(program, contract, {"float16"}).golden["float16"] if each.name.startswith("made"))
    assert made.tolerance == pytest.approx(steps, abs=0.11)


def test_effects_are_what_a_fault_does_to_a_program_that_does_not_round(int8: Path, contract: InputContract) -> None:
    replay = Replay(float_program(load_checkpoint(int8)))
    picture = to_input(next(golden.photographs())[1], contract)
    values, pixels = replay.run(picture), torch.from_numpy(picture.copy()).permute(2, 0, 1)[None].float()
    faults = [(path, fault) for path in list(replay.weights)[::8] for fault in FAULTS]
    with torch.no_grad():
        effects = replay.effects(pixels, [(path, FAULTS[fault]) for path, fault in faults])
    for (path, fault), effect in zip(faults, effects, strict=True):
        off = replay.changed(values, path, FAULTS[fault]) - replay.logits(values)
        np.testing.assert_allclose(effect.numpy(), off - off.mean(), atol=1e-4)


def test_codes_that_are_moved_before_they_are_dequantised_are_not_rounded_for_effects() -> None:
    decomposed, grid = torch.ops.quantized_decomposed, (0.5, 3, -128, 127, torch.int8)
    graph = torch.fx.Graph()
    value = graph.placeholder("value")
    codes = graph.call_function(decomposed.quantize_per_tensor.default, (value, *grid))
    moved = graph.call_function(torch.ops.aten.reshape.default, (codes, [4]))
    back = graph.call_function(decomposed.dequantize_per_tensor.default, (moved, *grid))
    values: dict[torch.fx.Node, Any] = {value: torch.tensor([[0.3, 100.0], [-100.0, 1.1]])}
    for node in (codes, moved, back):
        values[node] = replays._call_unrounded(node, values)
    np.testing.assert_allclose(values[back].numpy(), [0.3, 62.0, -65.5, 1.1], rtol=1e-6)


def test_a_fault_moves_logits_much_farther_on_a_made_picture(
    program: ExportedProgram, contract: InputContract, monkeypatch: pytest.MonkeyPatch
) -> None:
    """7 to 30 times as far as on the noise that it began as; 1 to 4 times with changes that grow, or that are not scaled."""
    monkeypatch.setattr(adversarial, "CHANGES", 40)
    replay, noise = Replay(program), adversarial._noise(contract.size)
    paths = list(replay.weights)
    for path in (paths[3], paths[len(paths) // 2], paths[-2]):
        fault = (path, FAULTS["negated"])
        made = torch.from_numpy(adversarial.make_input(replay, contract.size, fault)).permute(2, 0, 1)[None].float()
        with torch.no_grad():
            before, after = (float(replay.effects(pixels, [fault])[0].abs().max()) for pixels in (noise, made))
        assert after > 5 * before


def test_no_picture_is_made_where_no_fault_can_show(program: ExportedProgram, contract: InputContract) -> None:
    replay = Replay(program)
    path = next(iter(replay.weights))
    nothing, negated = (path, torch.clone), (path, FAULTS["negated"])
    assert adversarial.steepest(replay, contract.size, [nothing, nothing]) is None
    assert adversarial.steepest(replay, contract.size, [nothing, negated]) == 1


@pytest.mark.parametrize("crop_fraction", [1.0, 0.875, 0.95, 0.9])
@pytest.mark.parametrize("size", [32, 96, 161])
def test_a_made_input_is_what_an_artifact_gets_of_its_picture(size: int, crop_fraction: float) -> None:
    picture = np.random.default_rng(0).integers(0, 256, (size, size, 3), dtype=np.uint8)
    for resize in ("squash", "crop"):
        contract = InputContract(size, ("one", "two"), resize=resize, crop_fraction=crop_fraction)
        assert np.array_equal(to_input(Image.fromarray(adversarial.uncropped(picture, contract)), contract), picture)
