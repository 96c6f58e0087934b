"""The training loop: one device, or one process for each of several."""

from __future__ import annotations

import contextlib
import json
import signal
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import asdict, replace
from pathlib import Path
from types import FrameType
from typing import Any

import torch
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn, TimeRemainingColumn
from torch import Tensor, nn
from torch.nn import functional as F
from torch.optim import AdamW

from lavit_edge.checkpoint import save_checkpoint
from lavit_edge.cli import new_console
from lavit_edge.data.augment import mix
from lavit_edge.errors import UserError
from lavit_edge.files import write_json
from lavit_edge.train.average import Average
from lavit_edge.train.batches import class_weights
from lavit_edge.train.card import training_card
from lavit_edge.train.config import TrainConfig
from lavit_edge.train.journal import open_board, show, write_log
from lavit_edge.train.judge import Judged, judge
from lavit_edge.train.meter import Meter, training_flops
from lavit_edge.train.optimizer import Muon, parameter_groups
from lavit_edge.train.parts import BEST, CHECKPOINT, JUDGED, STATE, Parts, Student
from lavit_edge.train.recipe import Recipe
from lavit_edge.train.state import load_optimizer, load_state, optimizer_tensors, save_state, under
from lavit_edge.train.teacher import probabilities, stored_views, views_key
from lavit_edge.train.transfer import Transfer
from lavit_edge.train.world import World

CHECK_EVERY = 20  # steps between looks at the loss, for which a GPU must be waited for; the first ones are all looked at


class Stopped(Exception):
    """SIGTERM came, and the run is saved."""


class Run:
    """One training run in ``out``: ``log.csv``, ``state.safetensors`` (to resume from), ``checkpoint/`` (the weights of the last
    epoch), ``best/`` (of the epoch that was best on the val split) and ``judged.json`` (what those took for what).

    The weights are the average (EMA) or, where they do better on the val split, those of the last step.

    Attributes:
        metrics: of the last epoch's weights; ``val_top1`` is None where they were not judged.
        best: those of the best epoch so far, with its ``epoch``.

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
        self.precision = torch.bfloat16 if config.computes_in(world.device.type) == "bf16" else torch.float32
        self.steps = self.source.steps()  # of an epoch
        self.val, self.val_set = parts.val, parts.val.part(world.rank, world.size)
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
        self.pictures = parts.pictures
        weights = class_weights(parts.counts) if recipe.balance == "loss" else None
        self.class_weights = None if weights is None else torch.tensor(weights, dtype=torch.float32, device=self.device)
        self.epoch, self.step, self.seconds = 0, 0, 0.0
        self.metrics: dict[str, Any] = {}  # of the last epoch's weights; without a top-1 where they were not judged
        self.best: dict[str, Any] = {}  # the same of the best epoch's
        self.total = torch.zeros((), dtype=torch.float64, device=self.device)  # of the losses of this epoch, in this process
        self.rows: list[dict[str, str]] = []  # of the log
        self.board = open_board(out) if config.tensorboard and world.main else None
        self.terminated, self.intact, self.saved = False, True, 0.0
        self.kept, self.tops = "average", [0.0, 0.0]  # which weights are better, and the top-1 of both
        self.newest: Judged | None = None  # the last epoch, where it is the best
        self.console = console or new_console(stderr=True, quiet=not world.main)

    def fit(self, plan: Callable[[int], int] | None = None) -> float:
        """Trains to the last epoch, or until ``patience`` ends; returns the last epoch's top-1 on the val split.

        Args:
            plan: asked before each epoch, with its number from 0, how many epochs there shall be, at least one more: for a run
                that must end by the clock. Such a run is short, and saved only when it is judged.

        Raises:
            Stopped: on SIGTERM; the run is saved at the step that it had reached.
            UserError: the loss diverged, or a batch does not fit into the device.
        """
        logits = self._teacher_logits()
        with self._on_sigterm():
            while not self.finished:
                if plan:
                    self.recipe = replace(self.recipe, epochs=plan(self.epoch))
                self.saved = start = time.monotonic()
                try:
                    figures = self._train_epoch(logits, start)
                except RuntimeError:  # a SIGTERM to the whole process group ends the loader's workers too
                    if not self.terminated:
                        raise
                    line = f"stopped in epoch {self.epoch + 1}; --resume goes on from what was last saved in {self.out}"
                    raise Stopped(line) from None
                measured = (self.epoch + 1) % self.recipe.val_every == 0 or self.epoch + 1 == self.recipe.epochs
                judged = self._judge() if measured else None
                (loss,) = self.world.sum(self.total.item())
                loss /= self.world.size * self.recipe.accumulate * self.steps
                self.seconds += time.monotonic() - start
                self.epoch, self.step = self.epoch + 1, 0
                self.total.zero_()
                self._end_of_epoch(loss, time.monotonic() - start, figures, judged)
                if measured or not plan:
                    self._save(checkpoint=True)
        if not self.world.main:
            return self.top1
        if not self.intact:
            raise UserError(f"the end of the run could not be saved in {self.out}: make room there, then --resume")
        return self.top1

    @property
    def finished(self) -> bool:
        """Whether all epochs are done, or the last ``patience`` epochs brought nothing better."""
        r = self.recipe
        stale = self.epoch - self.best["epoch"] if self.best else 0
        return self.epoch >= r.epochs or bool(r.patience and stale >= r.patience and self.metrics.get("val_top1") is not None)

    @property
    def top1(self) -> float:
        """Of the last epoch's weights; every run ends with an epoch that is judged."""
        return float(self.metrics["val_top1"])

    @property
    def val_pictures(self) -> int:
        """Those that could be judged."""
        return int(self.metrics["val_pictures"])

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
            bar = progress.add_task(f"epoch {self.epoch + 1}/{r.epochs}", total=steps, completed=self.step, loss="")
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
                if self.step <= CHECK_EVERY or self.step % CHECK_EVERY == 0 or self.step == steps:
                    self._check(diverged)
                    loss = self.total.item() / (self.step * r.accumulate)
                    progress.update(bar, completed=self.step, loss=f"loss {loss:.3f}")
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
        own, other = (
            F.cross_entropy(logits, classes, self.class_weights, label_smoothing=r.label_smoothing)
            for classes in (targets, targets[partner])
        )
        loss = share * own + (1 - share) * other
        if to_teacher is not None:
            soft = probabilities(teacher_views, to_teacher.shape[1])
            soft = share * soft + (1 - share) * soft[partner]
            loss = loss + r.distill_weight * F.kl_div(to_teacher.float().log_softmax(-1), soft, reduction="batchmean")
        if r.diagonality:
            loss = loss + r.diagonality * self.student.model.auxiliary_loss(maps)
        return loss

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
        name, loss, times = (
            TextColumn("{task.description}"),
            TextColumn("{task.fields[loss]}"),
            (TimeElapsedColumn(), TimeRemainingColumn()),
        )
        return Progress(name, BarColumn(), MofNCompleteColumn(), loss, *times, console=self.console, transient=True)

    def _judge(self) -> Judged:
        """Judges average and last weights, and keeps the better; what they have in ``metrics`` is for this epoch."""
        models = {"average": self.ema_model, "last step": self.student.model}
        both = judge(list(models.values()), self.val_set, self.contract, self.world, self.precision)
        self.kept, judged = max(zip(models, both, strict=True), key=lambda pair: pair[1].rank)  # of equals, the average
        self.tops = [each.top1 for each in both]
        return judged

    def _end_of_epoch(self, loss: float, seconds: float, figures: dict[str, str], judged: Judged | None) -> None:
        """Brings metrics, the best epoch and the log up to date."""
        self.metrics = {"val_top1": None, "val_pictures": len(self.val_set), "weights": "average"}
        row = {"val_top1": "", "val_loss": "", "weights": "", "average_top1": "", "last_step_top1": ""}
        if judged:
            self.metrics = {"val_top1": round(judged.top1, 5), "val_loss": round(judged.loss, 5)}
            self.metrics |= {"val_pictures": judged.pictures, "weights": self.kept}
            average, last = (f"{top1:.4f}" for top1 in self.tops)
            row = {"val_top1": f"{judged.top1:.4f}", "val_loss": f"{judged.loss:.4f}", "weights": self.kept}
            row |= {"average_top1": average, "last_step_top1": last}
        self.metrics |= {"epoch": self.epoch, "seconds": round(self.seconds)}
        self.newest = judged if judged and (not self.best or judged.rank > tuple(self.best["rank"])) else None
        if self.newest:
            self.best = {**self.metrics, "rank": list(self.newest.rank)}
        rate = self.recipe.learning_rate(self.epoch, self.recipe.accumulate * self.world.size)
        first = {"epoch": str(self.epoch), "lr": f"{rate:.3g}", "loss": f"{loss:.4f}"}
        self.rows.append({**first, **row, "seconds": f"{seconds:.0f}", **figures})
        show(self.rows[-1], self.console, self.board)

    def _save(self, *, checkpoint: bool) -> None:
        """Writes the state and, at the end of an epoch, checkpoint and log. A full disk is reported, and training goes on."""
        (total,) = self.world.sum(self.total.item())
        if not self.world.main:
            return
        tensors = {f"student.{k}": v for k, v in self.student.state_dict().items()}
        tensors |= {f"ema.{k}": v for k, v in self.ema.state_dict().items()}
        tensors |= {f"optimizer.{k}": v for k, v in optimizer_tensors(self.optimizer).items()}
        progress: dict[str, Any] = {"epoch": self.epoch, "step": self.step, "total": total, "seconds": self.seconds}
        progress |= {"metrics": self.metrics, "best": self.best}
        facts = {"progress": json.dumps({**progress, "rows": self.rows}), **self._identity()}
        try:
            if checkpoint:
                self._save_checkpoint(CHECKPOINT)
                if self.newest:
                    self._save_checkpoint(BEST)
                    write_json(self.out / JUDGED, {"labels": self.contract.labels, **self.newest.to_dict()})
                write_log(self.rows, self.out)
            save_state(self.out / STATE, tensors, facts)
            self.intact = True
        except (OSError, UserError) as error:
            self.intact = False
            last = "the state before is intact" if (self.out / STATE).exists() else "there is no state yet"
            self.console.print(f"could not save ({error}); {last}, training goes on", style="yellow")

    def _save_checkpoint(self, name: str) -> None:
        r = asdict(self.recipe)
        training = {**self.facts, "recipe": r, "teacher_exposure": self.teacher.exposure if self.teacher else None}
        model = self.student.model if self.metrics["weights"] == "last step" else self.ema_model
        save_checkpoint(
            self.out / name,
            model.state_dict(),
            model={"name": r["model"], "options": {}},
            contract=self.contract,
            card=training_card(self.recipe.model, self.contract, training, self.metrics),
            facts={"training": training, "metrics": self.metrics},
        )

    def _identity(self) -> dict[str, str]:
        """What a run to be resumed must have in common with the state it resumes from."""
        recipe = json.dumps(asdict(self.recipe), sort_keys=True)
        shared = {"recipe": recipe, "contract": self.contract.sha256, "number of processes": str(self.world.size)}
        shared["set of pictures"] = self.pictures
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
            self.epoch, self.step, self.seconds = (progress[name] for name in ("epoch", "step", "seconds"))
            self.metrics, self.best, self.rows = (progress[name] for name in ("metrics", "best", "rows"))
        except (RuntimeError, ValueError, KeyError, IndexError) as error:  # tensors or numbers that do not fit this run
            raise UserError(f"{file} does not fit this run ({error}); choose another --out") from error
        if self.world.main:
            self.total.fill_(progress["total"])  # of all processes
            write_log(self.rows, self.out)


def _seed(*numbers: int) -> int:
    """One seed from several numbers."""
    import numpy as np

    return int(np.random.SeedSequence(numbers).generate_state(1, np.uint64)[0] >> 1)
