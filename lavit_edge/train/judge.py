"""What a model's weights make of the val split: what is right, which classes are taken for which, and the worst mistakes."""

from __future__ import annotations

import base64
import io
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any

import torch
from PIL import Image
from torch import Tensor, nn
from torch.nn import functional as F

from lavit_edge.contract import InputContract
from lavit_edge.data.folder import Pictures, batches
from lavit_edge.errors import UserError
from lavit_edge.train.world import World

WORST = 12  # mistakes that are kept as pictures
THUMBNAIL = 96  # pixels a side
BATCH = 64


@dataclass(frozen=True)
class Mistake:
    """A picture that was taken for another class.

    Attributes:
        name: ``<class folder>/<file>``.
        target, predicted: class indices.
        probability: of what it was taken for, 0..1.
        loss: of its own class, nats.
        jpeg: the model's input, small, in base64.
    """

    name: str
    target: int
    predicted: int
    probability: float
    loss: float
    jpeg: str


@dataclass(frozen=True)
class Judged:
    """
    Attributes:
        confusion: int64 ``(K, K)`` on the CPU: pictures of each class (row) by what they were taken for (column).
        loss: mean cross entropy, nats.
        worst: the mistakes with the largest loss; those of the first process's pictures where there are several.
    """

    confusion: Tensor
    loss: float
    worst: tuple[Mistake, ...] = ()

    @property
    def hits(self) -> int:
        return int(self.confusion.diagonal().sum())

    @property
    def pictures(self) -> int:
        return int(self.confusion.sum())

    @property
    def top1(self) -> float:
        return self.hits / self.pictures

    @property
    def rank(self) -> tuple[int, float]:
        """The larger, the better: more pictures right, and of equals the smaller loss."""
        return self.hits, -self.loss

    def to_dict(self) -> dict[str, Any]:
        """For JSON; of the confusion matrix ``[row, column, count]`` where it is not 0."""
        filled = [[*map(int, at), int(self.confusion[tuple(at)])] for at in self.confusion.nonzero()]
        return {"confusion": filled, "loss": round(self.loss, 5), "worst": [asdict(each) for each in self.worst]}


@torch.inference_mode()
def judge(
    models: Sequence[nn.Module], pictures: Pictures, contract: InputContract, world: World, precision: torch.dtype
) -> list[Judged]:
    """Judges models on the same pictures, which are decoded once; each process brings its part of them.

    A picture that cannot be judged is not counted.

    Raises:
        UserError: none could be judged.
    """
    device, classes = world.device, len(contract.labels)
    mean, std = (torch.tensor(x, device=device).reshape(1, 3, 1, 1) * 255 for x in (contract.mean, contract.std))
    confusion = torch.zeros(len(models), classes, classes, dtype=torch.int64)
    losses, seen = torch.zeros(len(models), dtype=torch.float64), 0
    found: list[list[tuple[float, int, int, int, float, Tensor]]] = [[] for _ in models]
    for model in models:
        world.share(model.eval().buffers())  # each process has averaged over its own batches
    for pixels, labels in batches(pictures, contract, BATCH):
        shown, targets = torch.from_numpy(pixels), torch.from_numpy(labels)
        x = (shown.to(device).permute(0, 3, 1, 2).float() - mean) / std
        for number, model in enumerate(models):
            with torch.autocast(device.type, precision, enabled=precision != torch.float32):
                logits = model(x)
            logits = logits.float().cpu()
            predicted, each = logits.argmax(1), F.cross_entropy(logits, targets, reduction="none")
            losses[number] += each.double().sum()
            confusion[number].index_put_((targets, predicted), torch.ones_like(targets), accumulate=True)
            sure = logits.softmax(1).amax(1)
            for i in (predicted != targets).nonzero().flatten().tolist():
                found[number].append((float(each[i]), seen + i, int(targets[i]), int(predicted[i]), float(sure[i]), shown[i]))
            found[number] = sorted(found[number], key=lambda mistake: (-mistake[0], mistake[1]))[:WORST]
        seen += len(targets)
    total = world.sum(*losses.tolist(), *confusion.flatten().tolist())
    counts = torch.tensor(total[len(models) :]).round().long().reshape(confusion.shape)
    if not counts[0].sum():
        raise UserError("none of the val pictures can be judged")
    return [
        Judged(matrix, loss / int(matrix.sum()), tuple(_mistake(pictures, *row) for row in mistakes))
        for matrix, loss, mistakes in zip(counts, total, found, strict=False)
    ]


def _mistake(
    pictures: Pictures, loss: float, number: int, target: int, predicted: int, probability: float, pixels: Tensor
) -> Mistake:
    buffer = io.BytesIO()
    image = Image.fromarray(pixels.numpy())
    image.thumbnail((THUMBNAIL, THUMBNAIL))
    image.save(buffer, "JPEG", quality=80)
    jpeg = base64.b64encode(buffer.getvalue()).decode()
    return Mistake(pictures.name(number), target, predicted, round(probability, 4), round(loss, 4), jpeg)
