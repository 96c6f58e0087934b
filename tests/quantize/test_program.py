"""The programs: their form, their agreement, and what is refused."""

from __future__ import annotations

import hashlib
import json
import shutil
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file
from torch import fx

import lavit_edge
from lavit_edge.checkpoint import CONFIG, INT8, load_checkpoint
from lavit_edge.errors import UserError
from lavit_edge.quantize.evaluate import sqnr
from lavit_edge.quantize.program import DEQUANTIZE, QUANTIZE, fake_quantized, float_program, int8_program

ATEN = torch.ops.aten
LAYERS = (ATEN.linear.default, ATEN.conv2d.default)
ADD = ATEN.add.Tensor
DEQUANTIZE_WEIGHT = torch.ops.quantized_decomposed.dequantize_per_channel.default


@pytest.fixture(scope="module")
def program(int8):
    return int8_program(load_checkpoint(int8))


def nodes(program, *targets) -> list[fx.Node]:
    return [node for node in program.graph.nodes if node.target in targets]


def run(program, pictures) -> torch.Tensor:
    module = program.module()
    with torch.no_grad():
        return torch.cat([module(picture[None]) for picture in pictures])


def test_each_layer_stands_between_dequantize_and_quantize(program):
    layers = nodes(program, *LAYERS)
    float_layers = [node for node in layers if node.args[0].target is not DEQUANTIZE]
    assert len(layers) == 49
    assert len(float_layers) == 2
    for node in layers:
        if node not in float_layers:
            assert node.args[1].target is DEQUANTIZE_WEIGHT
            assert [user.target for user in node.users] == [QUANTIZE]


def test_each_addition_stands_between_two_dequantizes_and_a_quantize(program):
    normalisation, *additions = nodes(program, ADD)
    assert DEQUANTIZE not in [source.target for source in normalisation.args]
    assert len(additions) == 6 + 3 + 4  # FFNs of blocks, FFNs between stages, attention
    for node in additions:
        assert [source.target for source in node.args] == [DEQUANTIZE, DEQUANTIZE]
        assert [user.target for user in node.users] == [QUANTIZE]


def test_nothing_is_rounded_twice(program):
    quantize = nodes(program, QUANTIZE)
    assert len({node.args for node in quantize}) == len(quantize), "one quantize for all consumers of a tensor"
    assert not [node for node in quantize if node.args[0].target is DEQUANTIZE]
    assert all(len(node.users) == 1 for node in nodes(program, DEQUANTIZE))
    # a tensor that is already on a grid reaches the next quantised layer on that grid
    for node in [node for node in nodes(program, *LAYERS) if node.args[0].target is DEQUANTIZE]:
        source = node.args[0].args[0]
        while source.op == "call_function":
            if source.target is QUANTIZE and source.args[0].target in (*LAYERS, ADD):
                assert source.args[1:3] == node.args[0].args[1:3]
            elif source.target is not QUANTIZE and source.target is not DEQUANTIZE and len(source.all_input_nodes) > 1:
                break
            source = source.args[0]


def test_query_and_key_enter_their_product_as_int8(program):
    products = nodes(program, ATEN.bmm.default)
    int8_products = [node for node in products if all(source.target is DEQUANTIZE for source in node.args)]
    assert len(products) == 6
    assert len(int8_products) == 2


def test_the_relu_is_done_by_the_rounding(program, int8):
    assert len(nodes(program, ATEN.relu.default)) == 1  # that of the float stem
    tensors = load_file(int8 / INT8)
    assert tensors["stages.2.blocks.1.ffn.expand.conv.output_zero_point"] == -128


def test_the_fake_quantised_model_agrees(program, int8, pictures):
    outputs = run(program, pictures)
    with torch.no_grad():
        fake = torch.cat([fake_quantized(load_checkpoint(int8))(picture[None]) for picture in pictures])
    # a convolution may sum in another order for another memory layout, and a sum on a tie then rounds the other way
    assert float((outputs == fake).all(1).double().mean()) >= 0.8
    assert sqnr(fake, outputs) > 40


def test_it_is_close_to_the_float_program(program, checkpoint, deployed, pictures):
    reference = run(float_program(checkpoint), pictures)
    with torch.no_grad():
        assert sqnr(deployed(pictures), reference) > 100
    assert sqnr(reference, run(program, pictures)) > 10  # 12 measured, on pictures that the 30 of calibration did not show


def test_it_is_rebuilt_bit_for_bit(program, int8, pictures):
    outputs = run(program, pictures)
    assert torch.equal(run(int8_program(load_checkpoint(int8)), pictures), outputs)
    assert torch.equal(run(torch.export.load(int8 / "int8.pt2"), pictures), outputs)


def test_the_saved_program_names_no_folder_of_this_machine(int8):
    content = (int8 / "int8.pt2").read_bytes()
    for module in (lavit_edge, torch):
        assert str(Path(module.__file__).parent).encode() not in content


def test_an_fp32_checkpoint_is_refused_with_the_command(checkpoint):
    with pytest.raises(UserError, match=r"not quantised.*python -m lavit_edge.quantize"):
        int8_program(checkpoint)


def test_a_changed_file_is_refused(int8, tmp_path):
    path = shutil.copytree(int8, tmp_path / "changed")
    tensors = load_file(path / INT8)
    tensors["stages.1.embedding.channels.conv.input_scale"].zero_()
    save_file(tensors, path / INT8)
    with pytest.raises(UserError, match="sha256"):
        int8_program(load_checkpoint(path))
    config = json.loads((path / CONFIG).read_text())
    config["sha256"][INT8] = hashlib.sha256((path / INT8).read_bytes()).hexdigest()
    (path / CONFIG).write_text(json.dumps(config))
    with pytest.raises(UserError, match=r"input_scale.*not positive"):
        int8_program(load_checkpoint(path))
