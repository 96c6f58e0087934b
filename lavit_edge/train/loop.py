"""The training loop: one device, or one process for each of several."""

from __future__ import annotations

import contextlib
import csv
import io
import json
import os
import signal
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from types import FrameType
from typing import Any

import torch
from rich.console import Console
from rich.progress import BarColumn, Progress, TextColumn, TimeRemainingColumn
from torch import Tensor, nn
from torch.nn import functional as F
from torch.optim import AdamW

from lavit_edge.checkpoint import save_checkpoint
from lavit_edge.cli import new_console
from lavit_edge.contract import InputContract
from lavit_edge.data.augment import mix
from lavit_edge.data.folder import Pictures, batches
from lavit_edge.errors import UserError
from lavit_edge.models.classifier import Classifier
from lavit_edge.train.average import Average
from lavit_edge.train.card import training_card
from lavit_edge.train.config import TrainConfig
from lavit_edge.train.meter import Meter, training_flops
from lavit_edge.train.optimizer import Muon, parameter_groups
from lavit_edge.train.recipe import Recipe
from lavit_edge.train.source import Source
from lavit_edge.train.state import load_optimizer, load_state, optimizer_tensors, save_state, under
from lavit_edge.train.teacher import Teacher, probabilities, stored_views
from lavit_edge.train.transfer import Transfer
from lavit_edge.train.world import World

STATE, LOG, CHECKPOINT = "state.safetensors", "log.csv", "checkpoint"
CHECK_EVERY = 20  # steps between looks at the loss, for which a GPU must be waited for


class Stopped(Exception):
    """SIGTERM came, and the run is saved."""


class Student(nn.Module):
    """The model, plus a linear map from its pooled features to the teacher's classes that is dropped after training."""

    def __init__(self, model: Classifier, teacher_classes: int) -> None:
        super().__init__()
        self.model = model
        self.to_teacher = nn.Linear(model.head.in_features, teacher_classes) if teacher_classes else None

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor | None, list[Tensor]]:
        features, maps = self.model.features(x)
        return self.model.head(features), self.to_teacher(features) if self.to_teacher else None, maps


@dataclass(frozen=True)
class Parts:
    """What a run trains, and on what.

    Attributes:
        val: to judge on.
        facts: of the run, for ``config.json``.
        teacher_file: where what the teacher says of each picture is kept; None: in the run's folder.
    """

    model: Classifier
    contract: InputContract
    source: Source
    val: Pictures
    teacher: Teacher | None
    facts: dict[str, Any]
    teacher_file: Path | None = None


class Run:
    """One training run in ``out``: ``log.csv``, ``state.safetensors`` (to resume from) and ``checkpoint/`` (the EMA weights).

    All chance follows from the recipe's seed, the epoch, the step and the process, so that a resumed run does what it would have
    done.
    """

    def __init__(
        self, recipe: Recipe, parts: Parts, out: Path, world: World, config: TrainConfig, console: Console | None = None
    ) -> None:
        self.recipe, self.out, self.world, self.device, self.facts = recipe, out, world, world.device, parts.facts
        self.contract, self.source, self.teacher = parts.contract, parts.source, parts.teacher
        model, contract, teacher = parts.model, parts.contract, parts.teacher
        self.teacher_file = parts.teacher_file or out / "teacher.safetensors"
        self.precision = torch.bfloat16 if config.precision == "bf16" else torch.float32
        self.steps = self.source.steps()  # of an epoch
        self.val_set = parts.val.part(world.rank, world.size)
        self.save_seconds = None if config.save_minutes is None else 60 * config.save_minutes
        torch.manual_seed(recipe.seed)
        self.student = Student(model, teacher.classes if teacher else 0)
        self.student.to(self.device, memory_format=torch.channels_last)  # type: ignore[call-overload]
        self.ema = Average(self.student, recipe.ema)
        self.ema_model: nn.Module = self.ema.module.model  # type: ignore[assignment]
        groups = parameter_groups(self.student, model, recipe.weight_decay)
        self.optimizer = Muon(groups, recipe.lr) if recipe.optimizer == "muon" else AdamW(groups, recipe.lr, fused=True)
        self.parallel = world.parallel(torch.compile(self.student) if config.compile else self.student)  # type: ignore[arg-type]
        self.mean, self.std = (
            torch.tensor(x, device=self.device).reshape(1, 3, 1, 1) * 255 for x in (contract.mean, contract.std)
        )
        self.transfer = Transfer(self.device)
        self.flops = training_flops(model, contract.size)
        self.epoch, self.step, self.seconds, self.val_pictures = 0, 0, 0.0, len(parts.val)
        self.top1: float | None = None  # of the last epoch, if it was judged
        self.total = torch.zeros((), dtype=torch.float64, device=self.device)  # of the losses of this epoch, in this process
        self.rows: list[dict[str, str]] = []  # of the log
        self.terminated, self.intact, self.saved = False, True, 0.0
        self.console = console or new_console(stderr=True, quiet=not world.main)

    def fit(self, plan: Callable[[int], int] | None = None) -> float:
        """Trains to the last epoch and returns the EMA model's top-1 on the val split.

        Args:
            plan: asked before each epoch, with its number from 0, how many epochs there shall be, at least one more: for a run
                that must end by the clock. Such a run is short, and saved only when it is judged.

        Raises:
            Stopped: on SIGTERM; the run is saved at the step that it had reached.
            UserError: the loss diverged, or a batch does not fit into the device.
        """
        logits = self._teacher_logits()
        with self._on_sigterm():
            while self.epoch < self.recipe.epochs:
                if plan:
                    self.recipe = replace(self.recipe, epochs=plan(self.epoch))
                self.saved = start = time.monotonic()
                figures = self._train_epoch(logits, start)
                measured = (self.epoch + 1) % self.recipe.val_every == 0 or self.epoch + 1 == self.recipe.epochs
                self.top1 = self.evaluate() if measured else None
                (loss,) = self.world.sum(self.total.item())
                loss /= self.world.size * self.recipe.accumulate * self.steps
                self.seconds += time.monotonic() - start
                self.epoch, self.step = self.epoch + 1, 0
                self.total.zero_()
                self._log(loss, "" if self.top1 is None else f"{self.top1:.4f}", time.monotonic() - start, figures)
                if measured or not plan:
                    self._save(checkpoint=True)
        assert self.top1 is not None  # the last epoch is always judged
        if not self.world.main:
            return self.top1
        if not self.intact:
            raise UserError(f"the end of the run could not be saved in {self.out}: make room there, then --resume")
        return self.top1

    def _train_epoch(self, logits: Tensor | None, start: float) -> dict[str, str]:
        """The steps that are left of this epoch; returns how fast they were."""
        r, steps = self.recipe, self.steps
        batches = self.source.batches(self.epoch, self.step, logits)
        self.student.train()
        scale = r.accumulate * self.world.size  # the recipe's rate is for a global batch of batch_size
        diverged = torch.full((), -1, device=self.device)  # the first step whose gradient is not finite
        meter = Meter()
        meter.start()
        with self._progress() as progress:
            bar = progress.add_task(f"epoch {self.epoch + 1}/{r.epochs}", total=steps, completed=self.step, loss=float("nan"))
            for step in range(self.step, steps):
                torch.manual_seed(_seed(r.seed, self.epoch, step, self.world.rank))
                for group in self.optimizer.param_groups:
                    group["lr"] = r.learning_rate(self.epoch + step / steps, scale * group["share"])
                for index in range(r.accumulate):
                    batch = self.transfer(meter.waiting(batches))
                    self.total += self._backward(batch, last=index + 1 == r.accumulate).double()
                norm = nn.utils.clip_grad_norm_(self.student.parameters(), r.clip_norm)
                diverged = torch.where(norm.isfinite() | (diverged >= 0), diverged, step)
                self.optimizer.step()
                self.optimizer.zero_grad()
                self.ema.update_parameters(self.student)
                self.step = step + 1
                meter.pictures += r.batch_size * r.accumulate
                meter.steps += 1
                if self.step % CHECK_EVERY == 0 or self.step == steps:
                    self._check(diverged)
                    progress.update(bar, completed=self.step, loss=self.total.item() / (self.step * r.accumulate))
                self._save_or_stop(start, diverged)
        return meter.figures(self.world.size, self.flops, self.device)

    def _backward(self, batch: list[Tensor], last: bool) -> Tensor:
        """One batch's loss, its gradients added up; the processes average theirs behind the last batch of a step."""
        accumulating = contextlib.nullcontext() if last or self.world.size == 1 else self.parallel.no_sync()  # type: ignore[operator]
        try:
            with accumulating:
                loss = self._loss(*batch)
                (loss / self.recipe.accumulate).backward()
        except torch.OutOfMemoryError as error:
            raise UserError(self._what_fits()) from error
        return loss.detach()

    def _what_fits(self) -> str:
        """The largest batch, of halves of this one, that the device takes."""
        size, targets = self.recipe.batch_size, self.recipe.batch_size
        while size > 1:
            size //= 2
            self.optimizer.zero_grad()
            torch.cuda.empty_cache()
            shape = (size, self.contract.size, self.contract.size, 3)
            pictures = torch.zeros(shape, dtype=torch.uint8, device=self.device)
            teacher = torch.zeros(size, 2, self.teacher.kept if self.teacher else 0, device=self.device)
            with contextlib.suppress(torch.OutOfMemoryError):
                self._loss(pictures, torch.zeros(size, dtype=torch.long, device=self.device), teacher).backward()
                break
        return (
            f"a batch of {targets} does not fit into the memory of {self.facts['device']}; {size} does: --set batch_size={size}"
        )

    def _check(self, diverged: Tensor) -> None:
        step = int(diverged)
        if step < 0:
            return
        where = f"epoch {self.epoch + 1}, step {step + 1}, with {self.source.describe(self.epoch, step)}"
        good = f"the checkpoint of epoch {self.epoch} in {self.out / CHECKPOINT} is sound" if self.epoch else "no epoch was saved"
        raise UserError(f"the gradient is not finite in {where}; {good}; start again with a lower lr")

    def _save_or_stop(self, start: float, diverged: Tensor) -> None:
        """Saves in the middle of an epoch when it is time to; and ends when SIGTERM has come to any process."""
        if self.world.size > 1 and self.step % CHECK_EVERY:
            return  # asking the other processes makes a GPU wait
        late = self.save_seconds is not None and time.monotonic() - self.saved >= self.save_seconds
        stop, due = self.world.sum(float(self.terminated), float(late and self.world.main))
        if not stop and not due:
            return
        self._check(diverged)
        now = time.monotonic()
        seconds, self.seconds = self.seconds, self.seconds + now - start
        self._save(checkpoint=False)
        self.seconds, self.saved = seconds, time.monotonic()
        if stop:
            raise Stopped(
                f"stopped in epoch {self.epoch + 1} after step {self.step}, saved in {self.out}; --resume goes on from there"
            )

    @contextlib.contextmanager
    def _on_sigterm(self) -> Iterator[None]:
        def terminate(number: int, frame: FrameType | None) -> None:
            self.terminated = True

        if threading.current_thread() is not threading.main_thread():  # which alone gets signals
            yield
            return
        before = signal.signal(signal.SIGTERM, terminate)
        try:
            yield
        finally:
            signal.signal(signal.SIGTERM, before)

    def _loss(self, pixels: Tensor, targets: Tensor, teacher_views: Tensor, *chance: Tensor) -> Tensor:
        r = self.recipe
        planes = self.source.augment(pixels, *chance).permute(0, 3, 1, 2)
        x = (planes.to(torch.float32, memory_format=torch.channels_last) - self.mean) / self.std
        partner, share = torch.arange(len(x), device=x.device), 1.0
        if torch.rand(()) < r.mix_probability:
            x, partner, share = mix(x, r.mixup, r.cutmix)
        with torch.autocast(self.device.type, self.precision, enabled=self.precision != torch.float32):
            logits, to_teacher, maps = self.parallel(x)
        logits = logits.float()
        loss = share * F.cross_entropy(logits, targets, label_smoothing=r.label_smoothing)
        loss = loss + (1 - share) * F.cross_entropy(logits, targets[partner], label_smoothing=r.label_smoothing)
        if to_teacher is not None:
            soft = probabilities(teacher_views, to_teacher.shape[1])
            soft = share * soft + (1 - share) * soft[partner]
            loss = loss + r.distill_weight * F.kl_div(to_teacher.float().log_softmax(-1), soft, reduction="batchmean")
        if r.diagonality:
            loss = loss + r.diagonality * self.student.model.auxiliary_loss(maps)
        return loss

    @torch.inference_mode()
    def evaluate(self) -> float:
        """Top-1 of the EMA weights on the val split, preprocessed by the contract."""
        model = self.ema_model.eval()
        self.world.share(model.buffers())  # each process has averaged over its own batches
        hits = 0
        for pictures, targets in batches(self.val_set, self.contract, 64):
            x = (torch.from_numpy(pictures).to(self.device).permute(0, 3, 1, 2).float() - self.mean) / self.std
            with torch.autocast(self.device.type, self.precision, enabled=self.precision != torch.float32):
                predicted = model(x).argmax(1)
            hits += int((predicted.cpu() == torch.from_numpy(targets)).sum())
        (of_all,) = self.world.sum(hits)
        return of_all / self.val_pictures

    def _teacher_logits(self) -> Tensor | None:
        if self.teacher is None:
            return None
        r, key = self.recipe, views_key(self.teacher, self.recipe, self.source)
        if not self.world.main:
            self.world.wait()  # until the first process has written them
        views = stored_views(self.teacher, self.source, r.teacher_views, self.teacher_file, key, self.device, self.precision)
        if self.world.main:
            self.world.wait()
        return views

    def _progress(self) -> Progress:
        loss = TextColumn("loss {task.fields[loss]:.3f}")
        columns = (TextColumn("{task.description}"), BarColumn(), loss, TimeRemainingColumn())
        return Progress(*columns, console=self.console, transient=True)

    def _save(self, *, checkpoint: bool) -> None:
        """Writes the state and, at the end of an epoch, checkpoint and log. A full disk is reported, and training goes on."""
        (total,) = self.world.sum(self.total.item())
        if not self.world.main:
            return
        tensors = {f"student.{k}": v for k, v in self.student.state_dict().items()}
        tensors |= {f"ema.{k}": v for k, v in self.ema.state_dict().items()}
        tensors |= {f"optimizer.{k}": v for k, v in optimizer_tensors(self.optimizer).items()}
        progress = {"epoch": self.epoch, "step": self.step, "total": total, "seconds": self.seconds, "top1": self.top1}
        facts = {"progress": json.dumps({**progress, "rows": self.rows}), **self._identity()}
        try:
            if checkpoint:
                self._save_checkpoint()
                self._write_log()
            save_state(self.out / STATE, tensors, facts)
            self.intact = True
        except (OSError, UserError) as error:
            self.intact = False
            last = "the state before is intact" if (self.out / STATE).exists() else "there is no state yet"
            self.console.print(f"could not save ({error}); {last}, training goes on", style="yellow")

    def _save_checkpoint(self) -> None:
        r = asdict(self.recipe)
        metrics = {
            "val_top1": None if self.top1 is None else round(self.top1, 5),
            "val_pictures": self.val_pictures,
            "epoch": self.epoch,
            "seconds": round(self.seconds),
        }
        training = {**self.facts, "recipe": r, "teacher_exposure": self.teacher.exposure if self.teacher else None}
        card = training_card(self.recipe.model, self.contract, training, metrics)
        save_checkpoint(
            self.out / CHECKPOINT,
            self.ema_model.state_dict(),
            model={"name": r["model"], "options": {}},
            contract=self.contract,
            card=card,
            facts={"training": training, "metrics": metrics},
        )

    def _identity(self) -> dict[str, str]:
        """What a run to be resumed must have in common with the state it resumes from."""
        recipe = json.dumps(asdict(self.recipe), sort_keys=True)
        shared = {"recipe": recipe, "contract": self.contract.sha256, "number of processes": str(self.world.size)}
        return shared | self.source.order()

    def resume(self) -> None:
        """Goes on from ``state.safetensors``, if there is one. Raises :class:`UserError` if it is damaged, or another run's."""
        file = self.out / STATE
        if not file.exists():
            return
        tensors, facts = load_state(file, self._identity())
        try:
            self.student.load_state_dict(under("student.", tensors))
            self.ema.load_state_dict(under("ema.", tensors))
            load_optimizer(self.optimizer, under("optimizer.", tensors))
            progress = json.loads(facts["progress"])
            self.epoch, self.step, self.seconds, self.top1 = (progress[name] for name in ("epoch", "step", "seconds", "top1"))
            self.rows = progress["rows"]
        except (RuntimeError, ValueError, KeyError, IndexError) as error:  # tensors or numbers that do not fit this run
            raise UserError(f"{file} does not fit this run ({error}); choose another --out") from error
        if self.world.main:
            self.total.fill_(progress["total"])  # of all processes
            self._write_log()

    def _log(self, loss: float, top1: str, seconds: float, figures: dict[str, str]) -> None:
        rate = self.recipe.learning_rate(self.epoch, self.recipe.accumulate * self.world.size)
        row = {"epoch": str(self.epoch), "lr": f"{rate:.3g}", "loss": f"{loss:.4f}", "val_top1": top1}
        self.rows.append({**row, "seconds": f"{seconds:.0f}", **figures})
        self.console.print("  ".join(f"{name} {value}" for name, value in self.rows[-1].items() if value), soft_wrap=True)

    def _write_log(self) -> None:
        text = io.StringIO(newline="")
        if self.rows:
            writer = csv.DictWriter(text, list(self.rows[0]))
            writer.writeheader()
            writer.writerows(self.rows)
        temporary = self.out / f"{LOG}.part"
        temporary.write_text(text.getvalue(), encoding="utf-8", newline="")
        os.replace(temporary, self.out / LOG)


def views_key(teacher: Teacher, recipe: Recipe, source: Source) -> str:
    """What the stored views of a teacher depend on."""
    r = recipe
    return json.dumps([teacher.name, teacher.size, teacher.kept, r.seed, r.min_scale, r.teacher_views, source.identity()])


def _seed(*numbers: int) -> int:
    """One seed from several numbers."""
    import numpy as np

    return int(np.random.SeedSequence(numbers).generate_state(1, np.uint64)[0] >> 1)
