"""LaViT for phones: the mechanism against plain loops, what folds, what starts as nothing, and how runtimes compute it."""

from __future__ import annotations

from collections import Counter
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from lavit_edge import create_model
from lavit_edge.checkpoint import load_checkpoint
from lavit_edge.errors import UserError
from lavit_edge.models.lavit import diagonality_loss
from lavit_edge.models.lavit_mobile import LaViTMobile, LessAttention, VanillaAttention
from lavit_edge.quantize.scheme import default_float_layers

NAMES = ("lavit_mobile_s", "lavit_mobile_m")
THIN: dict[str, Any] = dict(dims=(8, 8, 16, 16), depths=(1, 1, 1, 3), heads=(0, 0, 0, 2))


def thin(image_size: int = 64, **options: Any) -> LaViTMobile:
    torch.manual_seed(0)
    model = create_model("lavit_mobile_s", num_classes=10, image_size=image_size, **{**THIN, **options})
    assert isinstance(model, LaViTMobile)
    return model


def at_random(model: nn.Module) -> nn.Module:
    """Batch norms that have seen something, and every parameter away from its start."""
    for parameter in model.parameters():
        parameter.data += 0.05 * torch.randn_like(parameter)
    for module in model.modules():
        if isinstance(module, nn.BatchNorm1d | nn.BatchNorm2d):
            assert module.running_mean is not None
            assert module.running_var is not None
            nn.init.normal_(module.running_mean)
            nn.init.uniform_(module.running_var, 0.5, 2.0)
            nn.init.uniform_(module.weight, 0.5, 2.0)
            nn.init.normal_(module.bias)
    return model


@pytest.mark.parametrize("name", NAMES)
def test_folding_computes_the_same(name: str) -> None:
    torch.manual_seed(0)
    model = at_random(create_model(name, num_classes=10, image_size=64)).double().eval()
    deployed, x = model.deploy(), torch.randn(3, 3, 64, 64, dtype=torch.float64)  # type: ignore[operator]
    assert not [m for m in deployed.modules() if isinstance(m, nn.BatchNorm1d | nn.BatchNorm2d)]
    assert not [path for path, _ in deployed.named_parameters() if path.endswith("point")]
    with torch.no_grad():
        torch.testing.assert_close(deployed(x), model(x), rtol=1e-9, atol=1e-9)
        torch.testing.assert_close(deployed.deploy()(x), model(x), rtol=1e-9, atol=1e-9)


@pytest.mark.slow
@pytest.mark.parametrize("name", NAMES)
def test_it_runs_at_every_size(name: str) -> None:
    for size in range(32, 257, 32):
        model = create_model(name, num_classes=7, image_size=size).eval()
        with torch.no_grad():
            logits = model(torch.randn(2, 3, size, size))
        assert logits.shape == (2, 7)
        assert logits.isfinite().all()


@pytest.mark.parametrize("size", [0, 16, 31, 48, 100, 175])
@pytest.mark.parametrize("name", NAMES)
def test_other_sizes_are_one_line(name: str, size: int) -> None:
    """At 16 pixels the grid of stage 4 would vanish."""
    with pytest.raises(UserError, match="image_size must be a positive multiple of 32") as caught:
        create_model(name, image_size=size)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"heads": (0, 0, 0, 3)}, "heads"),
        ({"heads": (0, 0, 0, -4)}, "heads"),
        ({"heads": (0, 0, 2)}, "heads"),
        ({"num_vanilla": (1, 1, 1, 0)}, "num_vanilla"),
        ({"depths": (1, 1, 1, 0)}, "depths"),
        ({"value_ratio": 0.3}, "value_ratio 0.3 gives 4 channels, no multiple of 16 heads"),
        ({"value_ratio": 0.0}, "value_ratio"),
        ({"ratio": 0}, "ratio"),
        ({"key_dim": 0}, "key_dim"),
        ({"drop_path": 1.0}, "drop_path"),
        ({"chained": True}, "chained"),
    ],
)
def test_bad_options_are_one_line(options: dict[str, Any], words: str) -> None:
    if "value_ratio" in options:
        options = {**options, "heads": (0, 0, 0, 16)}
    with pytest.raises(UserError, match=words) as caught:
        thin(**options)
    assert "\n" not in str(caught.value)


def test_less_attention_is_psi_of_theta_in_plain_loops() -> None:
    torch.manual_seed(0)
    tokens = 4
    layer = LessAttention(8, 2, 4, tokens).double()
    carried = torch.randn(2 * 2, tokens, tokens, dtype=torch.float64)
    scores = layer(torch.randn(2, 8, 2, 2, dtype=torch.float64), carried)[1].tolist()
    theta, theta_bias = layer.theta.weight.tolist(), layer.theta.bias.tolist()
    psi, psi_bias = layer.psi.weight.tolist(), layer.psi.bias.tolist()
    for row, a in enumerate(carried.tolist()):
        mixed = [
            [sum(theta[m][k] * a[n][k] for k in range(tokens)) + theta_bias[m] for m in range(tokens)] for n in range(tokens)
        ]
        for n in range(tokens):
            for m in range(tokens):
                expected = sum(psi[n][k] * mixed[k][m] for k in range(tokens)) + psi_bias[n]
                assert scores[row][n][m] == pytest.approx(expected, abs=1e-12)


def test_vanilla_attention_is_softmax_attention() -> None:
    torch.manual_seed(0)
    layer = at_random(VanillaAttention(8, 2, 12, 5)).double().eval()
    assert isinstance(layer, VanillaAttention)
    x = torch.randn(3, 8, 2, 2, dtype=torch.float64)
    output, scores = layer(x, None)
    query, key, value = (conv(x).reshape(3, 2, -1, 4).transpose(2, 3) for conv in (layer.query, layer.key, layer.value))
    attended = nn.functional.scaled_dot_product_attention(query, key, value).transpose(2, 3).reshape(3, 12, 2, 2)
    torch.testing.assert_close(output, layer.project(attended))
    torch.testing.assert_close(scores.reshape(3, 2, 4, 4), query @ key.transpose(2, 3) / 5**0.5)
    assert torch.equal(layer(x, torch.randn(6, 4, 4, dtype=torch.float64))[1], scores), "scores that arrive are left"


def test_identity_theta_and_psi_reuse_the_scores_of_the_vanilla_layer() -> None:
    model = thin().eval()
    kept: list[Tensor] = []
    for block in model.stages[3].blocks:  # type: ignore[union-attr]
        block.attention.register_forward_hook(lambda _, __, output: kept.append(output[1]))  # type: ignore[union-attr]
    _, less = model.features(torch.randn(2, 3, 64, 64))
    vanilla, *later = kept
    assert [tuple(scores.shape) for scores in less] == [(4, 4, 4)] * 2  # (B*H, N, N), 2 x 2 tokens
    assert all(torch.equal(scores, vanilla) for scores in later)
    assert all(torch.equal(a, b) for a, b in zip(less, later, strict=True))


def test_num_vanilla_sets_the_kind_of_each_layer() -> None:
    model = thin(heads=(0, 0, 2, 2), depths=(1, 1, 3, 2), num_vanilla=(1, 1, 2, 2))
    kinds = [[type(block.attention) for block in stage.blocks] for stage in model.stages]  # type: ignore[union-attr]
    assert kinds == [[type(None)], [type(None)], [VanillaAttention] * 2 + [LessAttention], [VanillaAttention] * 2]


def test_ffns_start_as_nothing_and_attention_does_not() -> None:
    model, x = thin().train(), torch.randn(4, 3, 64, 64)
    before = model(x)
    inside = [value for path, value in model.named_parameters() if ".ffn." in path]
    gains = [value for path, value in model.named_parameters() if path.endswith("contract.norm.weight")]
    assert len(gains) == 6 + 3  # FFNs of blocks, and between stages
    for value in inside:
        if not any(value is gain for gain in gains):
            value.data += torch.randn_like(value) * (value.dim() > 1)
    torch.testing.assert_close(model(x), before)
    for block in model.stages[3].blocks:  # type: ignore[union-attr]
        nn.init.zeros_(block.attention.project.norm.weight)  # type: ignore[union-attr]
    assert (model(x) - before).abs().max() > 0.01


def test_gradients_reach_theta_and_psi() -> None:
    model = at_random(thin()).train()
    assert isinstance(model, LaViTMobile)
    nn.functional.cross_entropy(model(torch.randn(4, 3, 64, 64)), torch.tensor([0, 1, 2, 3])).backward()
    for block in list(model.stages[3].blocks)[1:]:  # type: ignore[union-attr, arg-type]
        assert block.attention.theta.weight.grad.abs().max() > 1e-6  # type: ignore[union-attr]
        assert block.attention.psi.weight.grad.abs().max() > 1e-6  # type: ignore[union-attr]


def test_the_diagonality_loss_reaches_theta_and_psi_where_it_is_asked_for() -> None:
    model, x = thin(diagonality=2.0).train(), torch.randn(4, 3, 64, 64)
    _, maps = model.features(x)
    loss = model.auxiliary_loss(maps)
    assert loss == 2 * diagonality_loss(maps)
    loss.backward()
    for block in list(model.stages[3].blocks)[1:]:  # type: ignore[union-attr]
        assert block.attention.theta.weight.grad.any()  # type: ignore[union-attr]
        assert block.attention.psi.weight.grad.any()  # type: ignore[union-attr]
    assert thin().auxiliary_loss(maps) == 0


@pytest.mark.parametrize("name", NAMES)
def test_first_convolution_and_head_alone_stay_float(name: str) -> None:
    with torch.device("meta"):
        model = create_model(name)
    assert default_float_layers(model.deploy()) == {"stages.0.embedding.0.conv", "head"}


def test_weights_go_to_another_size() -> None:
    old, new = at_random(thin(96)).eval(), thin(160).eval()
    assert isinstance(old, LaViTMobile)
    resized = old.resized(new.state_dict())
    new.load_state_dict(resized)
    changed = {name for name, value in old.state_dict().items() if value.shape != resized[name].shape}
    layers = [f"stages.3.blocks.{index}.attention.{part}" for index in (1, 2) for part in ("theta", "psi")]
    assert changed == {f"{layer}.{name}" for layer in layers for name in ("weight", "bias")}
    for layer in layers:  # the sum over inputs stays, for a constant map
        sums = [float(state[f"{layer}.weight"].sum(1).mean()) for state in (old.state_dict(), resized)]
        assert sums[1] == pytest.approx(sums[0], abs=0.05)
    fresh = thin(96)
    identity = fresh.resized(new.state_dict())[f"{layers[0]}.weight"]
    assert torch.equal(identity, torch.eye(25))
    with torch.no_grad():
        assert new(torch.randn(1, 3, 160, 160)).isfinite().all()


def test_the_point_and_the_identity_of_the_depthwise_are_in_its_kernel() -> None:
    torch.manual_seed(0)
    mixer = at_random(thin()).stages[0].blocks[0].mixer.double().eval()  # type: ignore[union-attr, index]
    x = torch.randn(2, 8, 5, 5, dtype=torch.float64)
    separate = mixer.conv(x) + mixer.point.reshape(-1, 1, 1) * x + x
    torch.testing.assert_close(mixer(x), mixer.norm(separate))


@pytest.fixture(scope="module")
def quantised(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A checkpoint of the whole ``lavit_mobile_s`` at 64 pixels, random weights, with its int8 form."""
    from lavit_edge.checkpoint import save_checkpoint
    from lavit_edge.contract import InputContract
    from lavit_edge.doctor.smallest import int8_form
    from lavit_edge.models.deployed import Deployed

    torch.manual_seed(0)
    model = at_random(create_model("lavit_mobile_s", num_classes=10, image_size=64)).eval()
    assert isinstance(model, LaViTMobile)
    contract = InputContract(64, tuple("abcdefghij"))
    path = tmp_path_factory.mktemp("mobile") / "checkpoint"
    with torch.no_grad():
        int8 = int8_form(Deployed(model, contract).eval(), torch.randint(0, 256, (4, 3, 64, 64)).float())
    spec = {"name": "lavit_mobile_s"}
    save_checkpoint(path, model.state_dict(), model=spec, contract=contract, card="# Mobile\n", int8=int8)
    return path


def test_onnx_runtime_computes_in_int8_all_but_the_first_convolution(quantised: Path, tmp_path: Path) -> None:
    onnx = pytest.importorskip("onnx")
    onnxruntime = pytest.importorskip("onnxruntime")
    from lavit_edge.export.onnx import to_onnx
    from lavit_edge.quantize.program import int8_program
    from lavit_edge.toolchain import quiet

    with quiet():
        model = to_onnx(int8_program(load_checkpoint(quantised)))
    options = onnxruntime.SessionOptions()
    options.optimized_model_filepath = str(tmp_path / "optimised.onnx")
    onnxruntime.InferenceSession(model.SerializeToString(), options, providers=["CPUExecutionProvider"])
    counts = Counter(node.op_type for node in onnx.load(tmp_path / "optimised.onnx").graph.node)
    deployed = load_checkpoint(quantised).model.deploy()
    convolutions = sum(isinstance(module, nn.Conv2d) for module in deployed.modules())
    blocks = [block for stage in deployed.stages for block in stage.blocks]  # type: ignore[union-attr]
    additions = sum(1 + (block.attention is not None) for block in blocks) + len(deployed.stages) - 1
    assert counts["QLinearConv"] == convolutions - 1
    assert counts["Conv"] + counts["FusedConv"] == 1
    assert counts["QLinearAdd"] == additions
    assert counts["Add"] == 1, "that of the normalisation"
