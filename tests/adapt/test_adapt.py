"""From somebody's module to a checkpoint and back, and what is refused on the way."""

from __future__ import annotations

import copy
import json
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file
from torch import nn
from torch.nn.utils import weight_norm

from lavit_edge.adapt.__main__ import main, parse_options
from lavit_edge.adapt.run import adapt
from lavit_edge.adapt.weights import load_weights
from lavit_edge.checkpoint import CARD, CONFIG, WEIGHTS, load_checkpoint
from lavit_edge.contract import InputContract
from lavit_edge.errors import UserError
from lavit_edge.traced.builder import build, describe

CONTRACT = InputContract(size=32, labels=("a", "b", "c"))
PICTURE = torch.randn(2, 3, 32, 32, generator=torch.Generator().manual_seed(1))


def logits(model: nn.Module) -> torch.Tensor:
    with torch.no_grad():
        return model.eval()(PICTURE)


def test_a_checkpoint_is_the_module_and_builds_it_again(module: nn.Module, builder: str, tmp_path: Path) -> None:
    nn.init.normal_(module.head.weight)
    checkpoint = adapt(module, CONTRACT, out=tmp_path / "out", builder=builder)
    assert set(load_file(tmp_path / "out" / WEIGHTS)) == set(module.state_dict())
    again = load_checkpoint(tmp_path / "out", trust_builder=True)
    assert torch.equal(logits(again.model), logits(module))
    assert torch.equal(logits(checkpoint.model), logits(module))
    assert again.model.deploy().float_layers == ("stem", "head")
    assert "1 of 1 batch norms folded" in (tmp_path / "out" / CARD).read_text("utf-8")


def test_the_module_stays_as_it_is(module: nn.Module) -> None:
    module.train()
    adapt(module, CONTRACT)
    assert module.training
    assert isinstance(module.body[1], nn.BatchNorm2d)


def test_nothing_is_imported_without_trust(module: nn.Module, builder: str, tmp_path: Path) -> None:
    adapt(module, CONTRACT, out=tmp_path / "out", builder="nowhere:at_all")
    with pytest.raises(UserError, match=r"is built by nowhere:at_all, and importing that runs code: .*--trust-builder"):
        load_checkpoint(tmp_path / "out")
    with pytest.raises(UserError, match="builder nowhere:at_all cannot be imported"):
        load_checkpoint(tmp_path / "out", trust_builder=True)


def test_without_a_builder_a_module_takes_the_weights(module: nn.Module, tmp_path: Path) -> None:
    adapt(module, CONTRACT, out=tmp_path / "out")
    with pytest.raises(UserError, match=r"names no builder for its somebody\.Small"):
        load_checkpoint(tmp_path / "out", trust_builder=True)
    other = type(module)(3)
    again = load_checkpoint(tmp_path / "out", module=other)
    assert torch.equal(logits(again.model), logits(module))


@pytest.mark.parametrize(
    ("spec", "message"),
    [
        ({"builder": 5}, "a builder is 'package:function' with an object of options"),
        ({"builder": "somebody:small", "options": []}, "a builder is 'package:function' with an object of options"),
        ({"builder": "somebody:small", "float_layers": "head"}, "'float_layers' of the model must be a list of paths"),
        ({"builder": "somebody:small", "options": {"classes": 4}}, r"'head\.weight' has shape \(3, 8\), Small wants \(4, 8\)"),
        ({"module": 3}, "names no builder for its 3"),
        ({"float_layers": []}, "'model' must be an object with a 'name' or a 'builder'"),
    ],
)
def test_a_configuration_that_builds_nothing(module: nn.Module, tmp_path: Path, spec: dict, message: str) -> None:
    adapt(module, CONTRACT, out=tmp_path / "out", builder="somebody:small")
    config = json.loads((tmp_path / "out" / CONFIG).read_text("utf-8"))
    (tmp_path / "out" / CONFIG).write_text(json.dumps({**config, "model": spec}), encoding="utf-8")
    with pytest.raises(UserError, match=message):
        load_checkpoint(tmp_path / "out", trust_builder=True)


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("somebody", "must be package:function"),
        ("nowhere:net", "builder nowhere:net cannot be imported"),
        ("somebody:nothing", "somebody has no 'nothing'"),
        ("somebody:number", "builder somebody:number returns int, not a torch.nn.Module"),
        ("somebody:fails", "builder somebody:fails refuses .*RuntimeError: no such net"),
        ("somebody:__name__", "is a str, not a function"),
    ],
)
def test_a_builder_that_is_none(builder: str, name: str, message: str) -> None:
    with pytest.raises(UserError, match=message):
        build({"builder": name}, "here", trust=True)


def test_options_that_the_builder_does_not_know(builder: str) -> None:
    with pytest.raises(UserError, match=r'builder somebody:small refuses \{"width": 2\} \(TypeError'):
        build({"builder": builder, "options": {"width": 2}}, "here", trust=True)


def test_what_is_no_module_or_holds_nan(module: nn.Module) -> None:
    with pytest.raises(UserError, match=r"adapt takes a torch\.nn\.Module, not 'resnet18'"):
        adapt("resnet18", CONTRACT)  # type: ignore[arg-type]
    nn.init.constant_(module.head.weight, torch.nan)
    with pytest.raises(UserError, match=r"tensor 'head\.weight' holds NaN or inf"):
        adapt(module, CONTRACT)


class Normed(nn.Sequential):
    """With a weight that is computed in each call, which cannot be copied."""

    def __init__(self) -> None:
        super().__init__(weight_norm(nn.Conv2d(3, 3, 1)), nn.AdaptiveAvgPool2d(1), nn.Flatten())


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize(
    ("make", "message"),
    [
        (torch.jit.script, "RecursiveScriptModule is TorchScript, which is not traced again"),
        (lambda module: module.to("meta"), "'stem.weight' is on the meta device and has no values"),
        (lambda module: nn.Sequential(nn.LazyConv2d(3, 1)), "'0.weight' has no shape yet; call the module once on a picture"),
        (lambda module: Normed(), r"Normed cannot be copied; parametrizations\.weight_norm makes a module that can"),
    ],
    ids=["TorchScript", "meta", "lazy", "weight norm"],
)
def test_a_module_that_cannot_be_taken_is_refused_in_a_line(
    module: nn.Module, make: Callable[[nn.Module], nn.Module], message: str
) -> None:
    with pytest.raises(UserError, match=message) as caught:
        adapt(make(module), CONTRACT)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("wrap", [torch.compile, nn.DataParallel, lambda module: torch.compile(nn.DataParallel(module))])
def test_wrappers_are_taken_off(module: nn.Module, wrap: Callable[[nn.Module], nn.Module]) -> None:
    checkpoint = adapt(wrap(module), CONTRACT)
    assert checkpoint.config["adapted"]["module"] == describe(module)
    assert checkpoint.model.state_dict().keys() == module.state_dict().keys()


def test_labels_that_do_not_match_the_head(module: nn.Module) -> None:
    with pytest.raises(UserError, match="Small gives 3 logits, but the contract has 2 labels"):
        adapt(module, InputContract(size=32, labels=("a", "b")))


def test_half_precision_becomes_single(module: nn.Module) -> None:
    assert adapt(module.half(), CONTRACT).model.state_dict()["head.weight"].dtype == torch.float32


@pytest.mark.parametrize("prefix", ["module.", "_orig_mod.module.", "model."])
def test_weights_are_mended_where_that_is_safe_and_it_is_said(module: nn.Module, tmp_path: Path, prefix: str) -> None:
    nn.init.normal_(module.head.bias)
    state = copy.deepcopy(module).half().state_dict()
    save_file({f"{prefix}{name}": value for name, value in state.items()}, tmp_path / "w.safetensors")
    other = type(module)(3)
    assert load_weights(other, tmp_path / "w.safetensors") == [
        f"weights: prefix {prefix!r} taken off every name",
        "weights: float16 turned to float32",
    ]
    assert torch.allclose(logits(other), logits(module), atol=1e-2)


def test_shards_are_read_by_their_index(module: nn.Module, tmp_path: Path) -> None:
    names = sorted(module.state_dict())
    parts = {"one.safetensors": names[::2], "two.safetensors": names[1::2]}
    for file, part in parts.items():
        save_file({name: module.state_dict()[name] for name in part}, tmp_path / file)
    index = tmp_path / "model.safetensors.index.json"
    index.write_text(json.dumps({"weight_map": {name: file for file, part in parts.items() for name in part}}), encoding="utf-8")
    for source in (index, tmp_path):
        other = type(module)(3)
        assert load_weights(other, source) == []
        assert torch.equal(logits(other), logits(module))
    (tmp_path / "two.safetensors").unlink()
    with pytest.raises(UserError, match=r"there are no weights at .*two\.safetensors"):
        load_weights(module, index)
    index.write_text(json.dumps({"weight_map": {"x": "../one.safetensors"}}), encoding="utf-8")
    with pytest.raises(UserError, match=r"names a shard '\.\./one\.safetensors' outside its folder"):
        load_weights(module, index)


def test_weights_that_do_not_fit(module: nn.Module, tmp_path: Path) -> None:
    file, state = tmp_path / "w.safetensors", module.state_dict()
    for change, message in (
        ({"head.bias": None, "stem.bias": None}, r"tensor 'head\.bias' of Small is missing \(2 in all\)"),
        ({"neck.bias": torch.zeros(1)}, r"tensor 'neck\.bias' is not part of Small \(1 in all\)"),
        ({"stem.bias": torch.zeros(9)}, r"'stem\.bias' has shape \(9,\), Small wants \(8,\)"),
        (dict.fromkeys(state) | {"a.b.stem.bias": torch.zeros(8)}, r"tensor 'body\.0\.weight' of Small is missing \(9 in all\)"),
        ({"head.bias": torch.zeros(4)}, "another number of labels than the head"),
    ):
        save_file({name: value for name, value in {**state, **change}.items() if value is not None}, file)
        with pytest.raises(UserError, match=message):
            load_weights(module, file)


def test_a_pickle_is_refused(module: nn.Module, tmp_path: Path) -> None:
    torch.save(module.state_dict(), tmp_path / "w.pth")
    with pytest.raises(UserError, match=r"w\.pth is a pickle, which can run code"):
        load_weights(module, tmp_path / "w.pth")
    (tmp_path / "w.safetensors").write_bytes((tmp_path / "w.pth").read_bytes())
    with pytest.raises(UserError, match="is damaged or not a safetensors file"):
        load_weights(module, tmp_path / "w.safetensors")


def test_the_command_fills_the_contract_from_timms_configuration(
    builder: str, module: nn.Module, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    save_file(module.state_dict(), tmp_path / "w.safetensors")
    (tmp_path / "labels.txt").write_text("cat\ndog\n\nfish\n", encoding="utf-8")
    cfg = {"input_size": [3, 64, 64], "crop_pct": 0.9, "interpolation": "bilinear", "mean": [0.5] * 3, "std": [0.25] * 3}
    arguments = ["--builder", builder, "--set", f"cfg={json.dumps(cfg)}", "pretrained=true", "--out", str(tmp_path / "out")]
    assert main([*arguments, "--labels", str(tmp_path / "labels.txt"), "--weights", str(tmp_path / "w.safetensors")]) == 0
    contract = load_checkpoint(tmp_path / "out", trust_builder=True).contract
    assert contract.labels == ("cat", "dog", "fish")
    assert (contract.size, contract.resize, contract.interpolation) == (64, "crop", "bilinear")
    assert round(contract.size / contract.crop_fraction) == 71, "timm's floor(64 / 0.9)"
    assert (contract.mean, contract.std) == ((0.5,) * 3, (0.25,) * 3)
    spec = json.loads((tmp_path / "out" / CONFIG).read_text("utf-8"))["model"]
    assert spec == {"builder": builder, "options": {"cfg": cfg, "pretrained": False}}
    assert "1 of 1 batch norms folded into the layers before them" in capsys.readouterr().out


def test_the_command_takes_part_of_a_contract(builder: str, tmp_path: Path) -> None:
    (tmp_path / "contract.json").write_text(json.dumps({"size": 32, "labels": ["a", "b", "c"]}), encoding="utf-8")
    arguments = ["--builder", builder, "--contract", str(tmp_path / "contract.json"), "--out", str(tmp_path / "out")]
    assert main(arguments) == 0
    assert load_checkpoint(tmp_path / "out", trust_builder=True).contract.to_json() == CONTRACT.to_json()


@pytest.mark.parametrize(
    ("contract", "message"),
    [
        ({"size": 32}, "there are no labels"),
        ({"labels": ["a", "b", "c"]}, "Small does not say its picture size"),
        ({"labels": ["a", "b", "c"], "size": 0}, "size must be a whole number of pixels"),
        ({"labels": ["a", "b", "c"], "size": 32, "colour": 1}, "unknown field 'colour'"),
    ],
)
def test_a_contract_that_cannot_be(builder: str, tmp_path: Path, contract: dict, message: str) -> None:
    (tmp_path / "contract.json").write_text(json.dumps(contract), encoding="utf-8")
    with pytest.raises(UserError, match=message):
        main(["--builder", builder, "--contract", str(tmp_path / "contract.json"), "--out", str(tmp_path / "out")])
    assert not (tmp_path / "out").exists()


def test_options_are_json_where_they_are_that() -> None:
    assert parse_options(["a=1", "b=true", "c=name", "d=[1, 2]"]) == {"a": 1, "b": True, "c": "name", "d": [1, 2]}
    with pytest.raises(UserError, match="--set x: options are name=value"):
        parse_options(["x"])
