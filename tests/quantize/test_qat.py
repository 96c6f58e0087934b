"""Quantisation-aware training."""

from __future__ import annotations

import copy
import itertools

import numpy as np
import pytest
import torch

from lavit_edge.data.folder import PictureFolder
from lavit_edge.quantize.evaluate import Metrics, better, sqnr
from lavit_edge.quantize.scheme import QuantizedLayer, check_tensors, default_float_layers, quantized_model

pytest.importorskip("nncf")
from lavit_edge.quantize import qat
from lavit_edge.quantize.calibrate import calibrate, int8_form


@pytest.fixture
def calibrated(deployed, calibration):
    return calibrate(deployed, calibration[:10], default_float_layers(deployed.model))


def test_spoiled_ranges_are_repaired(deployed, calibrated, calibration, pictures):
    def lowered() -> float:
        form, float_layers = int8_form(calibrated), default_float_layers(deployed.model)
        check_tensors(deployed.model, form, float_layers, "form")
        model = copy.deepcopy(deployed)
        model.model = quantized_model(model.model, form, float_layers, "fake")
        with torch.no_grad():
            return sqnr(deployed(pictures), model(pictures))

    with torch.no_grad():
        for layer in calibrated.modules():
            if isinstance(layer, QuantizedLayer):
                layer.quantize_output.input_range.mul_(16)
                layer.quantize_output.input_low.mul_(16)
    before, losses = lowered(), []
    inputs = [(batch, torch.zeros(10)) for batch in torch.cat(calibration).split(10)]
    teacher = copy.deepcopy(deployed)
    qat.fine_tune(calibrated, teacher, lambda: iter(inputs), qat.Schedule(30, 1e-5, 0.03, 30), report=losses.append)
    assert len(losses) == 30
    assert sum(losses[-3:]) < sum(losses[:3]) / 2, "the last pass over the pictures and the first"
    assert lowered() > before + 2, "dB: 9 where the spoiled ranges had 6"
    assert all(torch.equal(a, b) for a, b in zip(teacher.parameters(), deployed.parameters(), strict=True))


def test_the_loss_is_the_noise_of_the_logits_and_the_first_step_has_the_full_rate(deployed, calibrated, calibration):
    pictures, losses, heads = torch.cat(calibration[:10]), [], [calibrated.model.head.weight.detach().clone()]
    with torch.no_grad():
        wanted = deployed(pictures)
        noise = (calibrated(pictures) - wanted).square().mean() / wanted.var()

    def look(loss):
        losses.append(loss)
        heads.append(calibrated.model.head.weight.detach().clone())

    schedule = qat.Schedule(steps=4, lr=1e-4, range_lr=0.0, freeze=4)
    qat.fine_tune(calibrated, copy.deepcopy(deployed), lambda: iter([(pictures, torch.zeros(10))]), schedule, report=look)
    assert losses[0] == pytest.approx(float(noise), rel=1e-4)
    moved = [float((after - before).abs().max()) for before, after in itertools.pairwise(heads)]
    assert moved[0] == pytest.approx(1e-4, rel=0.01), "Adam's first step is the learning rate"
    assert moved[3] < 0.3e-4


def test_every_parameter_learns_and_each_range_at_its_own_rate(calibrated):
    groups = [group for groups in qat.parameter_groups(calibrated, 1e-5, 1e-3) for group in groups]
    layer = calibrated.model.get_submodule("stages.2.blocks.0.attention.query.conv")
    rates = {parameter: group["lr"] for group in groups for parameter in group["params"]}
    assert set(rates) == {parameter for parameter in calibrated.parameters() if parameter.requires_grad}
    output = layer.quantize_output
    assert rates[output.input_low] == rates[output._input_range_param_storage] == pytest.approx(1e-3 * float(output.input_range))
    assert rates[layer.weight] == rates[calibrated.model.head.weight] == 1e-5
    # the range behind a ReLU starts at zero and stays there
    assert not calibrated.model.get_submodule("stages.0.blocks.0.ffn.expand.conv").quantize_output.input_low.requires_grad


def test_an_epoch_shows_each_picture_once_and_skips_what_is_no_picture(data, checkpoint):
    folder = PictureFolder(data, "train", checkpoint.contract.labels)
    folder.paths[3] = folder.paths[3].parent / "missing.png"
    shown = list(qat.shuffled(folder, checkpoint.contract, 10, np.random.default_rng(0)))
    assert [batch.shape for batch, _ in shown] == [(10, 3, 64, 64)] * 7  # 79 pictures, the incomplete batch left out
    assert len({tuple(picture.flatten().tolist()) for batch, _ in shown for picture in batch}) == 70
    inputs = {tuple(picture.flatten().tolist()): target for picture, target in folder.inputs(checkpoint.contract)}
    turned = 0
    for batch, targets in shown:
        for picture, target in zip(batch.permute(0, 2, 3, 1).byte(), targets.tolist(), strict=True):
            plain, mirrored = (tuple(p.flatten().tolist()) for p in (picture, picture.flip(1)))
            assert target in (inputs.get(plain), inputs.get(mirrored))
            turned += plain not in inputs
    assert 20 < turned < 50, "half of them are mirrored"


def test_what_a_model_trains_slowly_is_slow_here_too(calibrated, monkeypatch):
    monkeypatch.setattr(calibrated.model, "learning_rates", {".query.": 0.01})
    weights, ranges = qat.parameter_groups(calibrated, 1e-5, 1e-3)
    attention = calibrated.model.get_submodule("stages.2.blocks.0.attention")
    rates = {parameter: group["lr"] for group in (*weights, *ranges) for parameter in group["params"]}
    assert rates[attention.query.conv.weight] == rates[attention.query.conv.bias] == pytest.approx(1e-7)
    assert rates[attention.key.conv.weight] == 1e-5
    output = attention.query.conv.quantize_output
    assert rates[output.input_low] == pytest.approx(1e-3 * float(output.input_range))


def test_ranges_stay_once_they_are_frozen(deployed, calibrated, calibration):
    inputs, snapshots = [(torch.cat(calibration[:10]), torch.zeros(10))], []
    schedule = qat.Schedule(steps=4, lr=1e-4, range_lr=0.01, freeze=2)

    def look(loss):
        snapshots.append(([p.clone() for p in watched], calibrated.model.head.weight.detach().clone()))

    watched = [value for group in qat.parameter_groups(calibrated, 1e-5, 1e-3)[1] for value in group["params"]]
    before = [value.detach().clone() for value in watched]
    qat.fine_tune(calibrated, copy.deepcopy(deployed), lambda: iter(inputs), schedule, report=look)
    steps = [before, *[ranges for ranges, _ in snapshots]]
    equal = [all(map(torch.equal, a, b)) for a, b in itertools.pairwise(steps)]
    assert equal == [False, False, True, True]
    assert not torch.equal(snapshots[1][1], snapshots[3][1]), "the weights learn on"


def test_without_a_teacher_the_labels_are_learnt(calibrated, data, checkpoint):
    folder, losses = PictureFolder(data, "train", checkpoint.contract.labels), []
    calibrated.model.head.weight.data.mul_(0.1)  # so that there is something to learn

    def epoch():
        return qat.shuffled(folder, checkpoint.contract, 40, np.random.default_rng(0))

    qat.fine_tune(calibrated, None, epoch, qat.Schedule(8, 1e-3, 1e-3, 8), report=losses.append)
    assert losses[-1] < losses[0] - 0.1


def test_top1_decides_and_sqnr_breaks_ties():
    assert better(Metrics(0.9, 20.0), Metrics(0.8, 30.0), 100)
    assert better(Metrics(0.9, 31.0), Metrics(0.9, 30.0), 100)
    assert better(Metrics(0.8974, 37.5), Metrics(0.8977, 34.1), 3531)
    assert not better(Metrics(0.8974, 37.5), Metrics(0.9074, 34.1), 3531)
    assert not better(Metrics(0.9, 30.0), Metrics(0.9, 30.0), 100)
