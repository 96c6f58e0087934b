"""``--max-drop``: which layers are found, what the choice costs, and what is saved of it."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file

from lavit_edge.checkpoint import CARD, CONFIG, INT8, load_checkpoint, save_checkpoint
from lavit_edge.data.folder import PictureFolder
from lavit_edge.errors import UserError
from lavit_edge.models.deployed import Deployed
from lavit_edge.models.paths import block_of
from lavit_edge.quantize.cost import CONVERSION, Cost
from lavit_edge.quantize.evaluate import Metrics, batches, sqnr
from lavit_edge.quantize.program import DEQUANTIZE, QUANTIZE, fake_quantized, float_program, int8_program
from lavit_edge.quantize.scheme import default_float_layers, quantizable
from lavit_edge.quantize.sensitivity import Judge, LimitMissed, hold_out, search
from lavit_edge.traced.nodes import SHAPE_OPS, is_call

pytest.importorskip("nncf")
from lavit_edge.quantize.__main__ import main

RUINED = "stages.1.blocks.0.ffn.contract.conv"
LAYERS = (torch.ops.aten.linear.default, torch.ops.aten.conv2d.default)
ADD = torch.ops.aten.add.Tensor
DEQUANTIZE_WEIGHT = torch.ops.quantized_decomposed.dequantize_per_channel.default


def command(checkpoint: Path, data: Path, out: Path, *more: str) -> list[str]:
    fixed = ["--epochs", "0", "--calibration-pictures", "20", "--judging-pictures", "60"]
    return ["--checkpoint", str(checkpoint), "--data", str(data), "--out", str(out), *fixed, *more]


@pytest.fixture(scope="module")
def ruined(fp32: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The tiny model with one layer that int8 ruins: each output channel has a huge weight, for an input that is always zero."""
    checkpoint = load_checkpoint(fp32)
    tensors = {name: value.clone() for name, value in checkpoint.model.state_dict().items()}
    norm = RUINED.replace("contract.conv", "expand.norm")
    tensors[f"{norm}.weight"][0] = 0
    tensors[f"{norm}.bias"][0] = 0
    tensors[f"{RUINED}.weight"][:, 0] = 1e3
    path = tmp_path_factory.mktemp("ruined") / "checkpoint"
    save_checkpoint(path, tensors, model=checkpoint.config["model"], contract=checkpoint.contract, card="# Ruined\n")
    return path


def test_the_ruined_layer_is_found_and_no_other(ruined, data, tmp_path, capsys):
    out = tmp_path / "out"
    more = ["--epochs", "1", "--max-steps", "2", "--batch-size", "10"]  # the mixed model trains, too
    assert main(command(ruined, data, out, "--max-drop", "2", "--min-sqnr", "12", "--json", *more)) == 0
    result = json.loads(capsys.readouterr().out)
    found = result["sensitivity"]
    assert found["kept"] == [RUINED]
    assert (found["max_drop"], found["pictures"], found["allowed"]) == (2, 60, 1)
    lost = {row: round(60 * (found["metrics"]["fp32"]["top1"] - found["metrics"][row]["top1"])) for row in ("ptq", "qat")}
    # the layer's corrected bias still gives its mean, which is enough for top-1 on gratings: it is --min-sqnr that int8 misses
    assert found["metrics"]["int8"]["sqnr_db"] < 12
    assert lost["ptq"] <= 1
    assert lost[result["kept"]] <= 1
    assert result["metrics"]["ptq"]["sqnr_db"] > 15
    for kind, worst in (("blocks", block_of(RUINED)), ("layers", RUINED)):
        noisy = {path: figures["sqnr_db"] for path, figures in found[kind].items() if figures["sqnr_db"] is not None}
        assert min(noisy, key=noisy.__getitem__) == worst
    assert set(found["layers"]) == {path for path in found["layers"] if block_of(path) == block_of(RUINED)}

    checkpoint = load_checkpoint(out)
    default = default_float_layers(checkpoint.model)
    assert set(checkpoint.config["quantization"]["float_layers"]) == default | {RUINED}
    tensors = load_file(out / INT8)
    assert tensors[f"{RUINED}.weight"].dtype == torch.float32
    assert f"{RUINED}.output_scale" not in tensors
    text = (out / CARD).read_text()
    assert "### Sensitivity" in text
    assert f"| {RUINED} |" in text

    folder = PictureFolder(data, "val", checkpoint.contract.labels)
    pictures = next(batches(folder, checkpoint.contract, len(folder)))[0]
    with torch.no_grad():
        reference = Deployed(checkpoint.model, checkpoint.contract).eval()(pictures)
        fake = fake_quantized(checkpoint)(pictures)
    assert sqnr(reference, fake) == pytest.approx(result["metrics"][result["kept"]]["sqnr_db"], abs=1e-3), (
        "what is saved is what was judged"
    )


def test_a_healthy_model_keeps_no_further_layer_in_float(fp32, data, tmp_path, capsys):
    assert main(command(fp32, data, tmp_path / "out", "--max-drop", "2")) == 0
    assert "no further layer becomes float" in capsys.readouterr().out
    facts = load_checkpoint(tmp_path / "out").config["quantization"]
    assert facts["sensitivity"]["kept"] == []
    assert facts["sensitivity"]["layers"] == {}
    assert set(facts["float_layers"]) == default_float_layers(load_checkpoint(fp32).model)
    assert len(facts["sensitivity"]["blocks"]) == 6 + 4  # blocks and embeddings


def test_a_limit_that_cannot_be_met_is_one_line_and_nothing_is_saved(fp32, data, tmp_path, capsys, monkeypatch):
    monkeypatch.setattr(Judge, "accepts", lambda *_: False)
    assert main(command(fp32, data, tmp_path / "out", "--max-drop", "0")) == 1
    assert capsys.readouterr().err.splitlines()[-1].startswith("--max-drop cannot be met: with stages.")
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize(
    ("more", "message"),
    [
        (["--max-drop", "-1"], "points of top-1, from 0 to 100"),
        (["--max-drop", "nan"], "points of top-1, from 0 to 100"),
        (["--max-drop", "1", "--calibration-pictures", "80"], "leaves none to judge --max-drop on"),
        (["--max-drop", "1", "--epochs", "1", "--batch-size", "32"], "20 pictures to train on, fewer than one batch"),
    ],
)
def test_bad_input_is_refused(more, message, fp32, data, tmp_path):
    with pytest.raises(UserError, match=message):
        main(command(fp32, data, tmp_path / "out", *more))
    assert not list(tmp_path.iterdir())


def test_pictures_that_judge_neither_calibrate_nor_train(data):
    calibration = PictureFolder(data, "train").spread(20)
    judging, rest = hold_out(PictureFolder(data, "train"), calibration, 30)
    assert len(judging) == 30
    assert not set(judging.paths) & set(calibration.paths)
    assert not set(judging.paths) & set(rest.paths)
    assert len(rest) == 50
    assert [judging.targets.count(label) for label in range(5)] == [6] * 5
    assert all(path.parent.name == f"direction{target}" for path, target in zip(judging.paths, judging.targets, strict=True))


def test_all_layers_in_float_is_fp32_and_back_again(in_units, int8, pictures):
    judge = Judge(in_units, [(pictures, [0] * len(pictures))], 0)
    judge.use(load_file(int8 / INT8), default_float_layers(in_units.model))
    before = judge()
    assert judge(judge.in_int8).sqnr_db == float("inf")
    one = judge(["stages.2.blocks.0.attention.value.conv"])
    assert before.sqnr_db not in (None, one.sqnr_db)
    judge.known.clear()
    assert judge() == before


class Additive:
    """Stands for the judge: every layer has its share of noise, and as many pictures are lost as there is noise in int8."""

    def __init__(self, noise: dict[str, float], allowed: float) -> None:
        self.in_int8, self.allowed, self.targets = noise, allowed, [0] * 1000

    def __call__(self, kept=()) -> Metrics:
        noise = sum(value for path, value in self.in_int8.items() if path not in kept)
        return Metrics(1 - noise / 1000, float("inf") if noise == 0 else -10 * torch.tensor(noise).log10().item())

    def lost(self, metrics: Metrics) -> int:
        return round(1000 * (1 - metrics.top1))

    def accepts(self, metrics: Metrics) -> bool:
        return self.lost(metrics) <= self.allowed


def chosen(noise: dict[str, float], allowed: float, deployed, checkpoint) -> set[str]:
    """What the search finds among the tiny model's layers, of which those in ``noise`` are bad and the others nearly good."""
    float_layers = default_float_layers(deployed.model)
    judge = Additive({path: noise.get(path, 0.01) for path in quantizable(deployed.model, float_layers)}, allowed)
    kept, _ = search(judge, Cost(float_program(checkpoint), float_layers), lambda items, _: items)  # type: ignore[arg-type]
    return set(kept)


FFN = "stages.3.blocks.1.ffn"
VALUE = "stages.3.blocks.1.attention.value.conv"


def test_of_layers_as_noisy_as_each_other_the_cheaper_becomes_float(deployed, checkpoint):
    # one of these two must go: between int8 layers it adds two conversions, before the product with the scores none
    assert chosen({f"{FFN}.expand.conv": 10, VALUE: 10}, 15, deployed, checkpoint) == {VALUE}


def test_a_noisy_sub_block_becomes_float_as_a_whole(deployed, checkpoint):
    whole = {f"{FFN}.{name}.conv": 10.0 for name in ("expand", "contract")}
    assert chosen(whole, 5, deployed, checkpoint) == set(whole)


def test_what_a_later_layer_made_unnecessary_goes_back_to_int8(deployed, checkpoint):
    # the value removes more noise for its cost and comes first; it is not enough, the other would have been
    noise = {VALUE: 45.0, f"{FFN}.expand.conv": 60.0}
    assert chosen(noise, 50, deployed, checkpoint) == {f"{FFN}.expand.conv"}
    assert chosen(noise, 65, deployed, checkpoint) == {VALUE}
    assert chosen(noise, 40, deployed, checkpoint) == set(noise)


def test_all_but_one_block_in_float_is_the_last_resort(deployed, checkpoint):
    blocks = {block_of(path) for path in quantizable(deployed.model, default_float_layers(deployed.model))}
    layers = quantizable(deployed.model, default_float_layers(deployed.model))
    bad = {next(path for path in layers if block_of(path) == block): 10.0 for block in blocks}
    assert chosen(bad, 10.5, deployed, checkpoint) < set(bad)
    with pytest.raises(LimitMissed, match="alone in int8, top-1 loses 10 of 1000 training pictures, 9 allowed"):
        chosen(bad, 9, deployed, checkpoint)


def converted(program: torch.export.ExportedProgram) -> int:
    """Tensors that a program quantises from float or dequantises to float, counted in its graph."""

    def int8_layer(node) -> bool:
        if node.target is ADD:
            return all(source.target is DEQUANTIZE for source in node.args)
        return node.target in LAYERS and node.args[1].target is DEQUANTIZE_WEIGHT

    def source(node):
        while is_call(node, *SHAPE_OPS):
            node = node.args[0]
        return node

    def origin(node):
        """The tensor that a dequantize gives back, before anything quantised it."""
        node = source(node.args[0].args[0])
        return origin(node) if node.target is DEQUANTIZE else node

    def users(node):
        for user in node.users:
            yield from users(user) if is_call(user, *SHAPE_OPS) else [user]

    entering = {source(node.args[0]) for node in program.graph.nodes if node.target is QUANTIZE}
    leaving = {
        origin(node)
        for node in program.graph.nodes
        if node.target is DEQUANTIZE and any(user.target is not QUANTIZE and not int8_layer(user) for user in users(node))
    }
    return len([node for node in entering if node.target is not DEQUANTIZE and not int8_layer(node)]) + len(leaving)


def test_the_cost_counts_the_conversions_that_the_program_has(checkpoint, deployed, int8, mixed):
    default = default_float_layers(deployed.model)
    cost = Cost(float_program(checkpoint), default)
    assert converted(int8_program(load_checkpoint(int8))) == cost.conversions(())
    extra = set(load_checkpoint(mixed).config["quantization"]["float_layers"]) - default
    assert converted(int8_program(load_checkpoint(mixed))) == cost.conversions(extra) != cost.conversions(())


def test_neighbours_cost_less_than_scattered_layers(checkpoint, deployed):
    cost = Cost(float_program(checkpoint), default_float_layers(deployed.model))
    assert cost(()) == 0
    middle = [f"stages.{stage}.blocks.0.ffn.expand.conv" for stage in range(3)]
    whole = [f"stages.2.blocks.0.attention.{name}.conv" for name in ("query", "key", "value")]
    assert cost(middle) == 3 + 3 * 2 * CONVERSION  # one more on either side of each
    assert cost(whole) == 3 - 2 * CONVERSION  # one more for the map, none any more for each of the three products' sides
    assert cost(whole[:1]) == 1
    contract = "stages.2.blocks.0.ffn.contract.conv"  # the addition after it is in float then
    assert cost([contract]) == 1 + 3 * CONVERSION


def test_a_checkpoint_that_names_no_float_layers_has_the_default_ones(int8, pictures, tmp_path):
    path = shutil.copytree(int8, tmp_path / "old")
    config = json.loads((path / CONFIG).read_text())
    del config["quantization"]["float_layers"]
    (path / CONFIG).write_text(json.dumps(config))
    with torch.no_grad():
        assert torch.equal(fake_quantized(load_checkpoint(path))(pictures), fake_quantized(load_checkpoint(int8))(pictures))


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda layers: layers.append("stages.9.blocks.0.ffn.expand.conv"), "must list linear or convolution layers"),
        (lambda layers: layers.append(3), "must list linear or convolution layers"),
        (lambda layers: layers.remove("head"), "'head.input_scale' is missing"),
        (lambda layers: layers.append("stages.1.embedding.channels.conv"), "is not part of this model"),
    ],
)
def test_float_layers_that_do_not_fit_are_refused(change, message, int8, tmp_path):
    path = shutil.copytree(int8, tmp_path / "changed")
    config = json.loads((path / CONFIG).read_text())
    change(config["quantization"]["float_layers"])
    (path / CONFIG).write_text(json.dumps(config))
    with pytest.raises(UserError, match=message):
        fake_quantized(load_checkpoint(path))
