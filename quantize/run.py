"""From a checkpoint to one that carries its int8 form: calibrated, trained, judged and saved."""

from __future__ import annotations

import contextlib
import copy
import dataclasses
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn, TimeRemainingColumn
from torch import Tensor

from lavit_edge.checkpoint import Checkpoint, find_checkpoint, read_config, save_checkpoint, write_config
from lavit_edge.contract import InputContract
from lavit_edge.contract.decision import Decision, fit_decision
from lavit_edge.data.folder import FREE_PICTURES, PictureFolder
from lavit_edge.data.outside import outside
from lavit_edge.errors import UserError
from lavit_edge.files import file_sha256, new_folder
from lavit_edge.memory import keep_freed
from lavit_edge.models.deployed import Deployed, logits, to_input
from lavit_edge.quantize import kernels
from lavit_edge.quantize.config import QuantizeConfig
from lavit_edge.quantize.cost import Cost
from lavit_edge.quantize.equalize import equalize
from lavit_edge.quantize.evaluate import batches, better, measure, sqnr
from lavit_edge.quantize.in_float import in_float
from lavit_edge.quantize.program import float_program, int8_program
from lavit_edge.quantize.render import card
from lavit_edge.quantize.scheme import DESCRIPTION, check_tensors, chosen_float_layers, default_float_layers, quantized_model
from lavit_edge.quantize.sensitivity import Judge, hold_out
from lavit_edge.quantize.summands import level_summands
from lavit_edge.quantize.ties import avoid_ties
from lavit_edge.verbs import silent

PROGRAM = "int8.pt2"
EVAL_BATCH = 32
TIES_JUDGED = 8  # calibration pictures that values made of codes are looked at on
UNITS_JUDGED = 32  # calibration pictures that decide between a model's own units and equalised ones
TRAINING = ("epochs", "max_steps", "batch_size", "lr", "range_lr", "freeze_ranges", "no_teacher", "seed", "device")  # recorded


def quantize(
    checkpoint: Checkpoint | Path | str,
    data: Path | str | None,
    out: Path | str,
    config: QuantizeConfig | None = None,
    *,
    console: Console | None = None,
) -> Checkpoint:
    """Quantises a model, judges what became of it, and saves it: the command ``python -m lavit_edge.quantize``.

    Args:
        checkpoint: fp32; a folder, or the name of a bundled one.
        data: a folder with ``train/<class>/`` and ``val/<class>/``; None: the free pictures that ship with the package, whose
            classes are not the model's, so that SQNR alone is judged.
        out: a new folder.
        console: shows the progress, NNCF's too; None: nothing is shown.

    Returns:
        The checkpoint in ``out``; its ``config["quantization"]`` says what was found.

    Raises:
        UserError: nothing is written then, as after the following.
        LimitMissed: ``config.max_drop`` cannot be met.
    """
    config, console, out = config or QuantizeConfig(), console or silent(), Path(out)
    if config.device == "cuda" and not torch.cuda.is_available():
        raise UserError("--device cuda: torch sees no CUDA device; use --device cpu")
    source = find_checkpoint(checkpoint, config.trust_builder)
    pictures = choose(None if data is None else Path(data), source.contract.labels, config)
    pictures.calibration.check(strict=False)
    kernels.load(console)
    with (
        contextlib.redirect_stdout(console.file),  # NNCF's progress
        new_folder(out) as folder,
        _progress(console) as progress,
    ):
        form, facts, decision = quantized_form(source, pictures, config, progress)
        facts |= {
            "decision": decision and decision.to_dict(),
            "val_pictures": len(pictures.val) - len(pictures.val.skipped),
            "training": {name: getattr(config, name) for name in TRAINING} if config.epochs else None,
            "calibration": [
                {"path": path.relative_to(data or FREE_PICTURES).as_posix(), "sha256": file_sha256(path)}
                for path in pictures.calibration.paths
            ],
            "free_pictures": data is None,
            "versions": _versions(),
        }
        judged = dataclasses.replace(source, contract=decision.of(source.contract)) if decision else source
        saved = _save(folder, judged, form, facts)
    return dataclasses.replace(saved, path=out)


@dataclass(frozen=True)
class Chosen:
    """What each picture is for.

    Attributes:
        calibration: the ranges are measured on.
        judging: decide about float layers and about QAT; None: only the default layers are float, and ``val`` decides.
        labelled: whether their classes are the model's.
    """

    train: PictureFolder
    val: PictureFolder
    calibration: PictureFolder
    judging: PictureFolder | None
    labelled: bool


def choose(folder: Path | None, names: tuple[str, ...], config: QuantizeConfig) -> Chosen:
    """Shares the pictures of ``folder`` out; None: the free ones. Raises :class:`UserError` when there are too few."""
    if folder is None and (config.max_drop is not None or config.no_teacher):
        raise UserError("the free pictures have no labels of the model: --max-drop and --no-teacher need pictures of your own")
    data, labels = (FREE_PICTURES, None) if folder is None else (folder, names)
    train = PictureFolder(data, "train", labels)
    val = PictureFolder(data, "val", labels)
    val.spread(config.limit_val or len(val))
    if len(train) < config.calibration_pictures:
        raise UserError(
            f"{data / 'train'} has {len(train)} pictures, calibration takes {config.calibration_pictures}; "
            "add pictures or lower --calibration-pictures"
        )
    calibration = PictureFolder(data, "train", labels).spread(config.calibration_pictures)
    judging = None
    if config.max_drop is not None:
        judging, train = hold_out(train, calibration, config.judging_pictures)
    if config.epochs and len(train) < config.batch_size:
        raise UserError(f"{data / 'train'} has {len(train)} pictures to train on, fewer than one batch; lower --batch-size")
    return Chosen(train, val, calibration, judging, folder is not None)


def quantized_form(
    checkpoint: Checkpoint, folders: Chosen, config: QuantizeConfig, progress: Progress
) -> tuple[dict[str, Tensor], dict[str, Any], Decision | None]:
    """The int8 form that is kept, how it came about, for ``config["quantization"]``, and when it shall be "not sure"."""
    from lavit_edge.quantize import calibrate, mixed  # nncf, which takes seconds to import

    contract, device = checkpoint.contract, config.device
    pictures = [inputs for inputs, _ in batches(folders.calibration, contract, 1)]
    own = Deployed(checkpoint.model, contract).eval()
    float_layers = chosen_float_layers(own.model, config.float_layers)
    program, default = float_program(checkpoint), default_float_layers(own.model)

    def calibrated(float_layers: frozenset[str], start: Deployed) -> Deployed:
        return calibrate.calibrate(copy.deepcopy(start).cpu(), pictures, float_layers)

    def closeness(candidate: tuple[Deployed, Deployed]) -> float:
        """SQNR, on the calibration pictures, of a model that was calibrated; before that it computes what ``own`` does."""
        start, model = candidate
        fake = _fake(start, calibrate.int8_form(model), float_layers)
        with torch.no_grad():
            return sqnr(*(torch.cat([each(picture) for picture in pictures[:UNITS_JUDGED]]) for each in (own, fake)))

    # in units of its own or equalised: a small net with few pictures had 25.2 and 24.1 dB here, and 15.8 and 12.2 on unseen ones
    starts = dict.fromkeys((own, equalize(own, pictures)))
    deployed, model = max(((start, calibrated(float_layers, start)) for start in starts), key=closeness)

    def on_val(title: str, model: torch.nn.Module) -> tuple[Tensor, Tensor]:
        inputs = batches(folders.val, contract, EVAL_BATCH)
        return logits(model, _track(progress, inputs, -(-len(folders.val) // EVAL_BATCH), f"{title} on val"), device)

    reference, targets = on_val("fp32", deployed)
    if not folders.labelled:
        targets = reference.argmax(1)  # QAT and PTQ are told apart by what they have in common with fp32
    metrics, forms, answers = {"fp32": measure(reference, targets)}, {}, {}
    judge = found = None
    if folders.judging is not None:
        assert config.max_drop is not None
        judge = Judge(deployed, list(batches(folders.judging, contract, EVAL_BATCH)), config.max_drop, config.min_sqnr, device)
        cost = Cost(program, float_layers)
        model, float_layers, found = mixed.keep_accurate(
            deployed,
            model,
            judge,
            cost,
            lambda float_layers: calibrated(float_layers, deployed),
            lambda items, title: _track(progress, items, len(items), title),
        )

    def judge_form(row: str) -> None:
        level_summands(model, pictures[0])
        avoid_ties(model, pictures[:TIES_JUDGED])
        forms[row] = calibrate.int8_form(model)
        check_tensors(deployed.model, forms[row], float_layers, "the model just quantised")
        answers[row] = on_val(row.upper(), _fake(deployed, forms[row], float_layers))[0]
        metrics[row] = measure(answers[row], targets, reference)
        if judge and found:
            judge.use(forms[row], float_layers)
            found["metrics"][row] = judge()

    judge_form("ptq")
    if config.epochs:
        _train(model, None if config.no_teacher else deployed, folders.train, contract, config, progress)
        judge_form("qat")
    deciding = found["metrics"] if found else metrics
    kept = "ptq"
    if "qat" in deciding:
        rivals = deciding["qat"], deciding["ptq"]
        imitate = not config.no_teacher  # labels may teach more than fp32 knows
        most = metrics["fp32"].top1 if imitate else 1.0
        kept = "qat" if (judge.prefers(*rivals, imitate) if judge else better(*rivals, len(targets), most)) else "ptq"
    if judge:
        judge.check(deciding[kept], f"int8 after {kept.upper()}")
    decision = None
    if folders.labelled:
        fake = _fake(deployed, forms[kept], float_layers)
        unknown, _ = logits(fake, ((to_input(picture[None]), []) for picture in outside(contract)), device)
        wanted = config.answers_right / 100
        decision = fit_decision(answers[kept].numpy(), targets.numpy(), contract, wanted, unknown.numpy())
    order = [path for path, _ in deployed.model.named_modules()]
    facts = {
        "scheme": DESCRIPTION,
        "float_layers": sorted(float_layers, key=order.index),
        "in_float": [each.to_dict() for each in in_float(program, float_layers, default, found["kept"] if found else ())],
        "kept": kept,
        "metrics": {row: each | ({} if folders.labelled else {"top1": None}) for row, each in _plain(metrics).items()},
        "sensitivity": found
        and {
            "max_drop": config.max_drop,
            "min_sqnr": config.min_sqnr,
            **{name: _plain(value) for name, value in found.items()},
        },
    }
    return forms[kept], facts, decision


def _train(
    model: Deployed,
    teacher: Deployed | None,
    train: PictureFolder,
    contract: InputContract,
    config: QuantizeConfig,
    progress: Progress,
) -> None:
    """Quantisation-aware training of a calibrated model, in place."""
    from lavit_edge.quantize import calibrate, qat

    steps = config.epochs * (len(train) // config.batch_size)
    steps = min(steps, config.max_steps or steps)
    task = progress.add_task("QAT", total=steps)
    rng = np.random.default_rng(config.seed)
    try:
        with keep_freed():
            qat.fine_tune(
                model,
                teacher,
                lambda: qat.shuffled(train, contract, config.batch_size, rng),
                qat.Schedule(steps, config.lr, config.range_lr, round(config.freeze_ranges * steps)),
                report=lambda loss: progress.update(task, advance=1, description=f"QAT, loss {loss:.5f}"),
                device=config.device,
            )
    except calibrate.nncf.InstallationError as error:
        raise UserError("NNCF could not compile its CUDA kernels: put nvcc on the PATH, or use --device cpu") from error


def _fake(deployed: Deployed, form: dict[str, Tensor], float_layers: frozenset[str]) -> Deployed:
    """A copy that rounds as ``form`` says."""
    fake = copy.deepcopy(deployed).cpu()
    fake.model = quantized_model(fake.model, form, float_layers, "fake")
    return fake


def _plain(value: Any) -> Any:
    """``value`` for JSON."""
    return {name: figures.to_dict() for name, figures in value.items()} if isinstance(value, dict) else value


def _save(folder: Path, checkpoint: Checkpoint, tensors: dict[str, Tensor], facts: dict[str, Any]) -> Checkpoint:
    """Writes the quantised checkpoint, and the program that reloads from it with its hash."""
    own = {"format", "model", "contract", "sha256", "quantization"}
    save_checkpoint(
        folder,
        checkpoint.model.state_dict(),
        model=checkpoint.config["model"],
        contract=checkpoint.contract,
        card=card(checkpoint, facts),
        facts={**{name: value for name, value in checkpoint.config.items() if name not in own}, "quantization": facts},
        int8=tensors,
    )
    saved = dataclasses.replace(checkpoint, path=folder, config=read_config(folder))
    torch.export.save(int8_program(saved), folder / PROGRAM)
    saved.config["sha256"][PROGRAM] = file_sha256(folder / PROGRAM)
    write_config(folder, saved.config)
    return saved


def _progress(console: Console) -> Progress:
    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeElapsedColumn(), TimeRemainingColumn())
    return Progress(*columns, console=console)


def _track(progress: Progress, inputs: Iterable[Any], total: int, title: str) -> Iterator[Any]:
    task = progress.add_task(title, total=total)
    for item in inputs:
        yield item
        progress.advance(task)


def _versions() -> dict[str, str]:
    import nncf

    return {"nncf": nncf.__version__, "torch": torch.__version__}
