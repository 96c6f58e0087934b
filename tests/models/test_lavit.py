from __future__ import annotations

import math
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from lavit_edge import create_model
from lavit_edge.contract import InputContract
from lavit_edge.errors import UserError
from lavit_edge.models.deployed import Deployed
from lavit_edge.models.lavit import AttentionDownsample, LaViT, LessAttention, Scores, VanillaAttention, diagonality_loss

VARIANTS = ["lavit_tiny", "lavit_small", "lavit_base"]
SHALLOW: dict[str, Any] = dict(depths=(1, 1, 2, 2), num_vanilla=(1, 1, 1, 1))
SQUARE: dict[str, Any] = dict(sr_ratios=(8, 4, 1, 1), attention_residual=(False, True, False, True))


def tiny(image_size: int = 64, num_classes: int = 10, **options: Any) -> LaViT:
    torch.manual_seed(0)
    numbers = dict(dims=(16, 32, 64, 64), heads=(1, 1, 2, 2), **SHALLOW)
    model = create_model("lavit_tiny", num_classes=num_classes, image_size=image_size, **{**numbers, **options})
    assert isinstance(model, LaViT)
    return model


def randomise_batch_norm(model: nn.Module) -> None:
    for module in model.modules():
        if isinstance(module, nn.BatchNorm2d):
            assert module.running_mean is not None
            assert module.running_var is not None
            nn.init.normal_(module.running_mean)
            nn.init.uniform_(module.running_var, 0.5, 2.0)
            nn.init.uniform_(module.weight, 0.5, 2.0)
            nn.init.normal_(module.bias)


@pytest.mark.parametrize("size", [128, 160, 224])
@pytest.mark.parametrize("name", VARIANTS)
def test_every_variant_runs_at_every_size(name: str, size: int) -> None:
    model = create_model(name, num_classes=7, image_size=size, **SHALLOW).eval()
    with torch.no_grad():
        logits = model(torch.randn(2, 3, size, size))
    assert logits.shape == (2, 7)
    assert logits.isfinite().all()


def test_less_attention_is_psi_of_theta_in_plain_loops() -> None:
    torch.manual_seed(0)
    layer = LessAttention(dim=8, heads=2, grid=4, sr_ratio=2).double()
    queries, keys = 16, 4
    carried = torch.randn(2 * 2, queries, keys, dtype=torch.float64)
    scores = layer(torch.randn(2, queries, 8, dtype=torch.float64), Scores(carried))[1].scores.tolist()
    theta, theta_bias = layer.theta.weight.tolist(), layer.theta.bias.tolist()
    psi, psi_bias = layer.psi.weight.tolist(), layer.psi.bias.tolist()
    for row, a in enumerate(carried.tolist()):
        mixed = [[sum(theta[m][k] * a[n][k] for k in range(keys)) + theta_bias[m] for m in range(keys)] for n in range(queries)]
        for n in range(queries):
            for m in range(keys):
                expected = sum(psi[n][k] * mixed[k][m] for k in range(queries)) + psi_bias[n]
                assert scores[row][n][m] == pytest.approx(expected, abs=1e-12)


def test_identity_theta_and_psi_reuse_the_scores() -> None:
    model = tiny(64).double()
    layer = model.stages[2].blocks[1].attention  # type: ignore[union-attr, index]
    assert isinstance(layer, LessAttention)
    batch, heads, grid, dim, keys = 2, 2, 4, 64, 4
    carried = torch.randn(batch * heads, grid**2, keys, dtype=torch.float64)
    x = torch.randn(batch, grid**2, dim, dtype=torch.float64)
    output, scores = layer(x, Scores(carried))
    assert torch.equal(scores.scores, carried)

    reduced = layer.reduce(x.reshape(batch, grid, grid, dim).permute(0, 3, 1, 2))
    values = layer.value(layer.reduce_norm(reduced.permute(0, 2, 3, 1).reshape(batch, keys, dim)))
    values = values.reshape(batch, keys, heads, dim // heads)
    probs = carried.reshape(batch, heads, grid**2, keys).softmax(-1)
    expected = layer.project(torch.einsum("bhnm,bmhd->bnhd", probs, values).reshape(batch, grid**2, dim))
    torch.testing.assert_close(output, expected)


def test_vanilla_attention_adds_the_carried_scores_before_the_softmax() -> None:
    torch.manual_seed(0)
    layer = VanillaAttention(dim=8, heads=2, grid=2, sr_ratio=1, adds=True).double()
    x, carried = torch.randn(3, 4, 8, dtype=torch.float64), torch.randn(6, 4, 4, dtype=torch.float64)
    output, scores = layer(x, Scores(carried))
    query, key, value = (linear(x).reshape(3, 4, 2, 4).transpose(1, 2) for linear in (layer.query, layer.key, layer.value))
    torch.testing.assert_close(scores.scores, layer(x, None)[1].scores + carried)
    assert scores.query is None  # no product of factors any more
    attended = nn.functional.scaled_dot_product_attention(query, key, value, attn_mask=carried.reshape(3, 2, 4, 4))
    torch.testing.assert_close(output, layer.project(attended.transpose(1, 2).reshape(3, 4, 8)))


def test_factored_less_attention_computes_the_same() -> None:
    """In float64, through three layers in a row with random Theta, Psi and biases, on maps that are square or not."""
    for sr_ratios, residual in (((8, 4, 1, 1), (False, True, False, True)), ((8, 4, 2, 1), (False,) * 4)):
        options: dict[str, Any] = dict(sr_ratios=sr_ratios, attention_residual=residual, depths=(1, 1, 4, 3))
        model = tiny(64, factored=True, **options).double().eval()
        for parameter in model.parameters():
            parameter.data += 0.1 * torch.randn_like(parameter)
        deployed = model.deploy()
        factored = [m for m in deployed.modules() if isinstance(m, LessAttention) and m.constant is not None]
        assert len(factored) == (3 if residual[3] else 5)  # into stage 4 of the first goes a residual
        x = torch.randn(2, 3, 64, 64, dtype=torch.float64)
        torch.testing.assert_close(deployed(x), model(x), rtol=1e-9, atol=1e-9)
        torch.testing.assert_close(deployed.deploy()(x), model(x), rtol=1e-9, atol=1e-9)
        torch.testing.assert_close(deployed.features(x)[1], model.features(x)[1], rtol=1e-9, atol=1e-9)


def test_only_the_first_layer_of_a_stage_adds_scores() -> None:
    model = tiny(64, depths=(1, 1, 2, 2), num_vanilla=(1, 1, 2, 2))
    for stage in model.stages[2:]:
        first, second = (block.attention for block in stage.blocks)  # type: ignore[union-attr]
        assert (first.adds, second.adds) == (True, False)  # type: ignore[union-attr]
    assert not [m for m in create_model("pvt_nano").modules() if isinstance(m, AttentionDownsample)]
    blocks = create_model("pvt_nano", image_size=64).stages[2].blocks  # type: ignore[union-attr]
    x, carried = torch.randn(1, 16, 160), Scores(torch.randn(5, 16, 4))
    for block in list(blocks)[1:]:  # type: ignore[arg-type]
        assert torch.equal(block(x, carried)[0], block(x, None)[0])


def test_attention_residual_averages_query_neighbours_at_the_start() -> None:
    layer = AttentionDownsample(heads=1, new_heads=1, grid=4, keys=4, new_keys=4)
    nn.init.constant_(layer.queries.weight, 0.25)
    nn.init.ones_(layer.mix.weight)
    for bias in (layer.queries.bias, layer.mix.bias):
        assert bias is not None
        nn.init.zeros_(bias)
    scores = torch.randn(2, 16, 4)
    blocks = scores.reshape(2, 2, 2, 2, 2, 4).mean((2, 4)).reshape(2, 4, 4)  # rows and columns of the 4 x 4 grid, in pairs
    torch.testing.assert_close(layer(scores), blocks)


# A constant added to a whole row of scores drops out of the softmax, so these have next to no gradient by design.
SOFTMAX_BLIND = ("key.bias", "psi.bias", "mix.bias", "key_pool.bias")


@pytest.mark.parametrize("options", [{}, SQUARE, {"convolutional": True}, {"convolutional": True, **SQUARE}])
def test_gradients_reach_every_parameter_of_both_styles(options: dict[str, Any]) -> None:
    check_gradients(tiny(64, **options), 64)


@pytest.mark.parametrize("name", VARIANTS)
def test_gradients_reach_every_parameter_of_every_variant(name: str) -> None:
    torch.manual_seed(0)
    check_gradients(create_model(name, num_classes=10, image_size=64, **SHALLOW), 64)


def check_gradients(model: nn.Module, size: int) -> None:
    loss = nn.functional.cross_entropy(model(torch.randn(2, 3, size, size)), torch.tensor([1, 2]))
    loss.backward()
    for name, parameter in model.named_parameters():
        assert parameter.grad is not None, name
        assert parameter.grad.isfinite().all(), name
        assert name.endswith(SOFTMAX_BLIND) or parameter.grad.any(), name


def reference_loss(scores: Tensor, grid: int, ratio: int) -> float:
    """The docstring's formula in plain loops, for ``(rows, grid^2, (grid / ratio)^2)``."""
    total, keys, key_grid = 0.0, scores.shape[2], grid // ratio
    for row in scores.softmax(-1).tolist():
        p = [[0.0] * keys for _ in range(keys)]
        for query, values in enumerate(row):
            block = (query // grid // ratio) * key_grid + query % grid // ratio
            p[block] = [mean + value / ratio**2 for mean, value in zip(p[block], values, strict=True)]
        for i in range(keys):
            total += sum(abs(p[i][j] - p[j][i]) for j in range(keys)) / keys
            total += (sum(p[i][j] for j in range(keys) if j != i) / (keys - 1) - p[i][i]) / keys
    return total / len(scores)


@pytest.mark.parametrize(("grid", "ratio"), [(2, 1), (3, 1), (4, 2)])
def test_diagonality_loss_is_its_formula(grid: int, ratio: int) -> None:
    torch.manual_seed(0)
    maps = [torch.randn(3, grid**2, (grid // ratio) ** 2) * 2 for _ in range(2)]
    expected = sum(reference_loss(scores.double(), grid, ratio) for scores in maps) / 2
    assert float(diagonality_loss(maps)) == pytest.approx(expected, abs=1e-6)


def test_diagonality_loss_without_less_attention_is_zero() -> None:
    assert float(diagonality_loss([])) == 0.0


@pytest.mark.parametrize(("queries", "keys"), [(16, 16), (64, 16)])
def test_diagonality_loss_pulls_the_diagonal_up(queries: int, keys: int) -> None:
    def diagonal(scores: Tensor) -> float:
        grid, ratio = math.isqrt(queries), math.isqrt(queries // keys)
        image = scores.detach().softmax(-1).transpose(1, 2).reshape(1, keys, grid, grid)
        return float(nn.functional.avg_pool2d(image, ratio).flatten(2).diagonal(dim1=1, dim2=2).mean())

    torch.manual_seed(0)
    scores = torch.randn(1, queries, keys, requires_grad=True)
    start = diagonal(scores)
    optimizer = torch.optim.Adam([scores], lr=0.1)
    for _ in range(100):
        optimizer.zero_grad()
        diagonality_loss([scores]).backward()
        optimizer.step()
    assert start < 0.15
    assert diagonal(scores) > 0.5


def test_the_printed_sign_would_pull_the_diagonal_down() -> None:
    """Why ours differs from the paper's equation: its second term is (N-1) A_ii - sum_(j!=i) A_ij."""
    torch.manual_seed(0)
    scores = torch.randn(1, 16, 16, requires_grad=True)
    start = float(scores.detach().softmax(-1).diagonal(dim1=1, dim2=2).mean())
    optimizer = torch.optim.Adam([scores], lr=0.1)
    for _ in range(100):
        optimizer.zero_grad()
        probs = scores.softmax(-1)
        diagonal = probs.diagonal(dim1=1, dim2=2).sum()
        ((probs - probs.transpose(1, 2)).abs().sum() + 15 * diagonal - (probs.sum() - diagonal)).backward()
        optimizer.step()
    assert float(scores.detach().softmax(-1).diagonal(dim1=1, dim2=2).mean()) < 0.5 * start


def test_features_hand_out_the_less_attention_scores() -> None:
    features, scores = tiny(64).features(torch.randn(3, 3, 64, 64))
    assert features.shape == (3, 64)
    assert [tuple(s.shape) for s in scores] == [(6, 16, 4), (6, 4, 4)]  # (B*H, N, M) of stages 3 and 4


def test_num_vanilla_sets_the_kind_of_each_layer() -> None:
    model = tiny(64, depths=(1, 2, 3, 2), num_vanilla=(1, 1, 2, 2))
    kinds = [[type(block.attention) for block in stage.blocks] for stage in model.stages]  # type: ignore[union-attr]
    vanilla, less = VanillaAttention, LessAttention
    assert kinds == [[vanilla], [vanilla, less], [vanilla, vanilla, less], [vanilla, vanilla]]


def test_attention_residual_has_parameters_and_an_effect_only_where_it_is_on() -> None:
    on, off = tiny(64), tiny(64, attention_residual=(False,) * 4)
    names = set(on.state_dict())
    assert {name.split(".")[1] for name in names if ".downsample." in name} == {"1", "2", "3"}
    assert set(off.state_dict()) == {name for name in names if ".downsample." not in name}

    off.load_state_dict({name: value for name, value in on.state_dict().items() if ".downsample." not in name})
    x = torch.randn(1, 3, 64, 64)
    with torch.no_grad():
        assert not torch.equal(on.eval()(x), off.eval()(x))
        for stage in on.stages[1:]:
            nn.init.zeros_(stage.downsample.mix.weight)  # type: ignore[union-attr, arg-type]
        torch.testing.assert_close(on(x), off(x))


def test_without_reduction_in_stage_3_maps_are_square_and_the_residual_shrinks_keys() -> None:
    model = tiny(64, **SQUARE)
    _, scores = model.features(torch.randn(1, 3, 64, 64))
    assert [tuple(s.shape) for s in scores] == [(2, 16, 16), (2, 4, 4)]
    downsample = model.stages[3].downsample
    assert isinstance(downsample, AttentionDownsample)
    assert downsample(torch.randn(2, 16, 16)).shape == (2, 4, 4)
    assert model.state_dict()["stages.3.downsample.key_pool.weight"].shape == (4, 1, 2, 2)


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"sr_ratios": (8, 4, 1, 1)}, "attention_residual"),
        ({"sr_ratios": (7, 4, 2, 1)}, "sr_ratios"),
        ({"sr_ratios": (8, 4, 2)}, "sr_ratios"),
        ({"num_vanilla": (0, 1, 1, 1)}, "num_vanilla"),
        ({"depths": (0, 1, 1, 1)}, "depths"),
        ({"dims": (16, 32, 64)}, "dims"),
        ({"heads": (1, 1, 3, 2)}, "heads"),
        ({"heads": 4}, "lavit_tiny"),
        ({"attention_residual": (True, True, True, True)}, "attention_residual"),
        ({"drop_path": 1.0}, "drop_path"),
        ({"window": 7}, "window"),
        ({"chained": True}, "chained"),
        ({"num_classes": 0}, "num_classes"),
        ({"image_size": 100}, "image_size"),
        ({"image_size": 0}, "image_size"),
    ],
)
def test_bad_options_are_one_line_errors(options: dict[str, Any], words: str) -> None:
    with pytest.raises(UserError, match=words) as caught:
        tiny(**options)
    assert "\n" not in str(caught.value)


def test_an_unknown_model_suggests_the_nearest_name() -> None:
    with pytest.raises(UserError, match=r"unknown model 'lavit_tinny'; did you mean 'lavit_tiny'\?"):
        create_model("lavit_tinny")
    with pytest.raises(UserError, match=r"no 'lavit_nano' any more; lavit-edge 0\.1\.0 reads its checkpoints"):
        create_model("lavit_nano")
    with pytest.raises(UserError, match=r"known models: .*lavit_base, lavit_mobile_m"):
        create_model("resnet50")


@pytest.mark.parametrize("options", [{}, {"convolutional": True, **SQUARE}])
def test_exported_attention_is_three_dimensional(options: dict[str, Any]) -> None:
    model = tiny(64, **options).deploy()
    graph = torch.export.export(model, (torch.randn(1, 3, 64, 64),)).graph
    called = [(str(node.target), node) for node in graph.nodes if node.op == "call_function"]
    softmax = [node for name, node in called if "softmax" in name]
    assert len(softmax) == 6  # one per layer
    assert all(node.args[0].meta["val"].ndim == 3 for node in softmax)
    names = [name for name, _ in called]
    assert not [name for name in names if "matmul" in name]
    assert names.count("aten.bmm.default") == 2 * 4 + 2  # Q K^T and P V in four vanilla layers, P V in two others


@pytest.mark.parametrize("convolutional", [True, False])
def test_deploy_computes_the_same(convolutional: bool) -> None:
    model = tiny(64, convolutional=convolutional).eval()
    randomise_batch_norm(model)
    deployed = model.deploy()
    assert not [module for module in deployed.modules() if isinstance(module, nn.BatchNorm2d)]
    before = {name: value.clone() for name, value in model.state_dict().items()}
    x = torch.randn(4, 3, 64, 64)
    with torch.no_grad():
        expected = model(x)
        torch.testing.assert_close(deployed(x), expected, rtol=1e-4, atol=1e-5)
        torch.testing.assert_close(deployed.deploy()(x), expected, rtol=1e-4, atol=1e-5)
    assert all(torch.equal(value, before[name]) for name, value in model.state_dict().items())


def test_deployed_takes_pictures_in_0_to_255() -> None:
    model = tiny(64).eval()
    randomise_batch_norm(model)
    contract = InputContract(size=64, labels=tuple("abcdefghij"))
    pictures = torch.randint(0, 256, (4, 3, 64, 64)).float()
    mean, std = (torch.tensor(three)[:, None, None] for three in (contract.mean, contract.std))
    with torch.no_grad():
        expected = model((pictures / 255 - mean) / std)
        torch.testing.assert_close(Deployed(model, contract)(pictures), expected, rtol=1e-4, atol=1e-5)


def test_drop_path_drops_whole_branches_in_training_only() -> None:
    model = tiny(64, drop_path=0.9)
    x = torch.randn(1, 3, 64, 64).expand(16, -1, -1, -1)
    torch.manual_seed(0)
    assert len({tuple(row) for row in model.train()(x).tolist()}) > 1
    with torch.no_grad():
        same = model.eval()(x)
    torch.testing.assert_close(same, same[:1].expand(16, -1))
