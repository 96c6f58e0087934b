"""The training loop: one process, one device."""

from __future__ import annotations

import csv
import json
import math
import os
import time
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import torch
from rich.console import Console
from rich.progress import BarColumn, Progress, TextColumn, TimeRemainingColumn
from safetensors import SafetensorError, safe_open
from safetensors.torch import load_file, save_file
from torch import Tensor, nn
from torch.nn import functional as F
from torch.optim.swa_utils import AveragedModel, get_ema_multi_avg_fn
from torch.utils.data import DataLoader

from lavit_edge.checkpoint import save_checkpoint
from lavit_edge.contract import InputContract
from lavit_edge.data.augment import mix
from lavit_edge.data.folder import PictureFolder, batches
from lavit_edge.errors import UserError
from lavit_edge.models.lavit import diagonality_loss
from lavit_edge.train.card import training_card
from lavit_edge.train.dataset import TrainingPictures
from lavit_edge.train.teacher import Teacher, view_logits

AT_LEAST_ONE = frozenset({"epochs", "batch_size", "val_every", "teacher_views"})
AT_MOST_ONE = frozenset({"label_smoothing", "mix_probability", "erasing", "min_scale", "ema"})


@dataclass(frozen=True)
class Recipe:
    """What decides the result of a run; ``state.safetensors`` carries it, and a resumed run must bring the same."""

    model: str
    epochs: int = 100
    batch_size: int = 64
    lr: float = 1e-3
    final_lr: float = 1e-5
    warmup_epochs: int = 5
    weight_decay: float = 0.05
    label_smoothing: float = 0.1
    mixup: float = 0.8
    cutmix: float = 1.0
    mix_probability: float = 1.0
    randaugment_operations: int = 2
    randaugment_magnitude: float = 7.0
    erasing: float = 0.25
    min_scale: float = 0.25
    drop_path: float = 0.05
    ema: float = 0.998
    diagonality: float = 0.1
    teacher: str | None = None
    teacher_views: int = 8
    distill_weight: float = 1.0
    clip_norm: float = 5.0
    val_every: int = 1
    seed: int = 0

    def __post_init__(self) -> None:
        for name, value in vars(self).items():
            if isinstance(value, int | float):
                low, high = int(name in AT_LEAST_ONE), 1.0 if name in AT_MOST_ONE else math.inf
                if not low <= value <= high or value == math.inf:
                    limit = f"{low} to 1" if name in AT_MOST_ONE else f"at least {low}"
                    raise UserError(f"--{name.replace('_', '-')} must be {limit}, not {value}")


class Student(nn.Module):
    """The model, plus a linear map from its pooled features to the teacher's classes that is dropped after training."""

    def __init__(self, model: nn.Module, teacher_classes: int) -> None:
        super().__init__()
        self.model = model
        width: Any = model.head.in_features  # type: ignore[union-attr]
        self.to_teacher = nn.Linear(width, teacher_classes) if teacher_classes else None

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor | None, list[Tensor]]:
        features, scores = self.model.features(x)  # type: ignore[operator]
        return self.model.head(features), self.to_teacher(features) if self.to_teacher else None, scores  # type: ignore[operator]


class Run:
    """One training run in ``out``: ``log.csv``, ``state.safetensors`` (to resume from) and ``checkpoint/`` (the EMA weights)."""

    def __init__(
        self,
        recipe: Recipe,
        model: nn.Module,
        contract: InputContract,
        train: PictureFolder,
        val: PictureFolder,
        teacher: Teacher | None,
        out: Path,
        device: torch.device,
        precision: torch.dtype,
        workers: int,
        facts: dict[str, Any],
    ) -> None:
        self.recipe, self.contract, self.train_set, self.val_set, self.teacher = recipe, contract, train, val, teacher
        self.out, self.device, self.precision, self.workers, self.facts = out, device, precision, workers, facts
        torch.manual_seed(recipe.seed)
        self.student = Student(model, teacher.classes if teacher else 0)
        self.student.to(device, memory_format=torch.channels_last)  # type: ignore[call-overload]
        self.ema = AveragedModel(self.student, multi_avg_fn=get_ema_multi_avg_fn(recipe.ema))
        self.ema_model: nn.Module = self.ema.module.model  # type: ignore[assignment]
        decay = [p for n, p in self.student.named_parameters() if _decays(n, p)]
        rest = [p for n, p in self.student.named_parameters() if not _decays(n, p)]
        groups = [{"params": decay, "weight_decay": recipe.weight_decay}, {"params": rest, "weight_decay": 0.0}]
        self.optimizer = torch.optim.AdamW(groups, lr=recipe.lr, fused=True)
        self.mean, self.std = (torch.tensor(x, device=device).reshape(1, 3, 1, 1) * 255 for x in (contract.mean, contract.std))
        self.epoch, self.seconds, self.top1 = 0, 0.0, 0.0
        self.console = Console(stderr=True)

    def fit(self) -> float:
        """Trains to the last epoch and returns the EMA model's top-1 on the val split."""
        logits = self._teacher_logits()
        while self.epoch < self.recipe.epochs:
            start = time.monotonic()
            loss = self._train_epoch(logits)
            self.epoch += 1
            measured = self.epoch % self.recipe.val_every == 0 or self.epoch == self.recipe.epochs
            if measured:
                self.top1 = self.evaluate()
            self.seconds += time.monotonic() - start
            self._save()
            self._log(loss, f"{self.top1:.4f}" if measured else "", time.monotonic() - start)
        return self.top1

    def _train_epoch(self, logits: Tensor | None) -> float:
        r = self.recipe
        torch.manual_seed(r.seed * 100_003 + self.epoch)  # so that a resumed run draws what the whole run would have drawn
        data = TrainingPictures(
            self.train_set, self.contract.size, seed=r.seed, epoch=self.epoch, min_scale=r.min_scale, logits=logits,
            operations=r.randaugment_operations, magnitude=r.randaugment_magnitude, erasing=r.erasing,
        )  # fmt: skip
        drop_last = len(data) >= r.batch_size
        loader = DataLoader(
            data, r.batch_size, shuffle=True, drop_last=drop_last, num_workers=self.workers, pin_memory=self.device.type == "cuda"
        )
        total, steps = 0.0, len(loader)
        self.student.train()
        with self._progress() as progress:
            bar = progress.add_task(f"epoch {self.epoch + 1}/{r.epochs}", total=steps, loss=math.nan)
            for step, batch in enumerate(loader):
                for group in self.optimizer.param_groups:
                    group["lr"] = self.learning_rate(self.epoch + step / steps)
                loss = self._loss(*(part.to(self.device, non_blocking=True) for part in batch))
                loss.backward()
                norm = nn.utils.clip_grad_norm_(self.student.parameters(), r.clip_norm)
                value = loss.item()
                if not math.isfinite(value + norm.item()):
                    where = f"epoch {self.epoch + 1}, step {step + 1}"
                    raise UserError(f"loss {value}, gradient norm {norm.item()} in {where}; start again with a lower --lr")
                self.optimizer.step()
                self.optimizer.zero_grad()
                self.ema.update_parameters(self.student)
                total += value
                progress.update(bar, advance=1, loss=total / (step + 1))
        return total / steps

    def _loss(self, pixels: Tensor, targets: Tensor, teacher_logits: Tensor) -> Tensor:
        r = self.recipe
        x = (pixels.permute(0, 3, 1, 2).float() - self.mean) / self.std
        partner, share = torch.arange(len(x), device=x.device), 1.0
        if torch.rand(()) < r.mix_probability:
            x, partner, share = mix(x, r.mixup, r.cutmix)
        with torch.autocast(self.device.type, self.precision, enabled=self.precision != torch.float32):
            logits, to_teacher, scores = self.student(x)
        logits = logits.float()
        loss = share * F.cross_entropy(logits, targets, label_smoothing=r.label_smoothing)
        loss = loss + (1 - share) * F.cross_entropy(logits, targets[partner], label_smoothing=r.label_smoothing)
        if to_teacher is not None:
            soft = teacher_logits.float().softmax(-1)
            soft = share * soft + (1 - share) * soft[partner]
            loss = loss + r.distill_weight * F.kl_div(to_teacher.float().log_softmax(-1), soft, reduction="batchmean")
        if r.diagonality:
            loss = loss + r.diagonality * diagonality_loss(scores)
        return loss

    def learning_rate(self, epoch: float) -> float:
        """Linear warm-up, then a cosine from ``lr`` to ``final_lr``; ``epoch`` may be a fraction."""
        r = self.recipe
        if epoch < r.warmup_epochs:
            return r.lr * max(epoch, 0.05) / r.warmup_epochs
        share = (epoch - r.warmup_epochs) / max(r.epochs - r.warmup_epochs, 1)
        return r.final_lr + (r.lr - r.final_lr) * (1 + math.cos(math.pi * share)) / 2

    @torch.inference_mode()
    def evaluate(self) -> float:
        """Top-1 of the EMA weights on the val split, preprocessed by the contract."""
        model = self.ema_model.eval()
        hits = seen = 0
        for pictures, targets in batches(self.val_set, self.contract, 64):
            x = (torch.from_numpy(pictures).to(self.device).permute(0, 3, 1, 2).float() - self.mean) / self.std
            with torch.autocast(self.device.type, self.precision, enabled=self.precision != torch.float32):
                predicted = model(x).argmax(1)
            hits += int((predicted.cpu() == torch.from_numpy(targets)).sum())
            seen += len(targets)
        return hits / seen

    def _teacher_logits(self) -> Tensor | None:
        if self.teacher is None:
            return None
        r, size = self.recipe, self.teacher.size

        def loader(view: int) -> DataLoader[tuple[Tensor, Tensor, Tensor]]:
            data = TrainingPictures(self.train_set, size, seed=r.seed, epoch=view, min_scale=r.min_scale, flip=False)
            return DataLoader(data, 64, num_workers=self.workers)  # type: ignore[arg-type]

        files = [f"{path.parent.name}/{path.name}" for path in self.train_set.paths]
        key = json.dumps([self.teacher.name, size, r.seed, r.min_scale, r.teacher_views, files])
        file = self.out / "teacher.safetensors"
        return view_logits(self.teacher, loader, r.teacher_views, file, key, self.device, self.precision)

    def _progress(self) -> Progress:
        loss = TextColumn("loss {task.fields[loss]:.3f}")
        columns = (TextColumn("{task.description}"), BarColumn(), loss, TimeRemainingColumn())
        return Progress(*columns, console=self.console, transient=True)

    def _save(self) -> None:
        r = asdict(self.recipe)
        metrics = {
            "val_top1": round(self.top1, 5),
            "val_pictures": len(self.val_set),
            "epoch": self.epoch,
            "seconds": round(self.seconds),
        }
        training = {**self.facts, "recipe": r, "teacher_exposure": self.teacher.exposure if self.teacher else None}
        card = training_card(self.recipe.model, self.contract, training, metrics)
        save_checkpoint(
            self.out / "checkpoint",
            self.ema_model.state_dict(),
            model={"name": r["model"], "options": {}},
            contract=self.contract,
            card=card,
            facts={"training": training, "metrics": metrics},
        )
        tensors = {f"student.{k}": v for k, v in self.student.state_dict().items()}
        tensors |= {f"ema.{k}": v for k, v in self.ema.state_dict().items()}
        for index, moments in self.optimizer.state_dict()["state"].items():
            tensors |= {f"optimizer.{index}.{k}": v for k, v in moments.items()}
        facts = {"epoch": str(self.epoch), "seconds": str(self.seconds), "top1": str(self.top1), **self._identity()}
        temporary = self.out / "state.part"
        save_file({k: v.detach().cpu().contiguous().clone() for k, v in tensors.items()}, temporary, facts)
        os.replace(temporary, self.out / "state.safetensors")

    def _identity(self) -> dict[str, str]:
        """What a run to be resumed must have in common with the state it resumes from."""
        return {"recipe": json.dumps(asdict(self.recipe), sort_keys=True), "contract": self.contract.sha256}

    def resume(self) -> None:
        """Continues after the last whole epoch of ``state.safetensors``, if there is one.

        Raises:
            UserError: the state is damaged, or was written by a run with another recipe or contract.
        """
        file = self.out / "state.safetensors"
        if not file.exists():
            return
        try:
            with safe_open(file, "pt") as stream:
                facts = stream.metadata() or {}
            tensors = load_file(file)
        except (SafetensorError, OSError, ValueError) as error:
            raise UserError(f"{file} is damaged ({error}); choose another --out") from error
        for name, value in self._identity().items():
            if facts.get(name) != value:
                raise UserError(f"{file} was written with another {name}; resume with the same options or choose another --out")
        try:
            self._restore(tensors, facts)
        except (RuntimeError, ValueError, KeyError, IndexError) as error:  # tensors or numbers that do not fit this run
            raise UserError(f"{file} does not fit this run ({error}); choose another --out") from error

    def _restore(self, tensors: dict[str, Tensor], facts: dict[str, str]) -> None:
        def part(prefix: str) -> dict[str, Tensor]:
            return {k.removeprefix(prefix): v for k, v in tensors.items() if k.startswith(prefix)}

        self.student.load_state_dict(part("student."))
        self.ema.load_state_dict(part("ema."))
        state = self.optimizer.state_dict()
        parameters = [p for group in self.optimizer.param_groups for p in group["params"]]
        for key, moment in part("optimizer.").items():
            index, name = key.split(".")
            if moment.ndim:  # fused AdamW walks memory: moments in another memory format than their weight would be mixed up
                moment = torch.empty_like(parameters[int(index)]).copy_(moment)
            state["state"].setdefault(int(index), {})[name] = moment
        self.optimizer.load_state_dict(state)
        self.epoch, self.seconds, self.top1 = int(facts["epoch"]), float(facts["seconds"]), float(facts["top1"])

    def _log(self, loss: float, top1: str, seconds: float) -> None:
        row = {"epoch": self.epoch, "lr": f"{self.learning_rate(self.epoch):.3g}", "loss": f"{loss:.4f}", "val_top1": top1}
        row["seconds"] = f"{seconds:.0f}"
        file = self.out / "log.csv"
        new = not file.exists()
        with file.open("a", newline="") as stream:
            writer = csv.DictWriter(stream, list(row))
            if new:
                writer.writeheader()
            writer.writerow(row)
        self.console.print("  ".join(f"{name} {value}" for name, value in row.items()))


def _decays(name: str, parameter: Tensor) -> bool:
    """No weight decay on vectors and embeddings, nor on Theta and Psi, which it would pull away from the identity."""
    return parameter.ndim > 1 and "position" not in name and ".theta." not in name and ".psi." not in name
