"""What a run is made of, and the names of what it leaves."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from torch import Tensor, nn

from lavit_edge.contract import InputContract
from lavit_edge.data.folder import Pictures
from lavit_edge.models.classifier import Classifier
from lavit_edge.train.source import Source
from lavit_edge.train.teacher import Teacher

STATE, CHECKPOINT, BEST, JUDGED = "state.safetensors", "checkpoint", "best", "judged.json"


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
        counts: training pictures of each class, for a recipe that weighs classes.
        pictures: digest of what is trained and judged on; a run that goes on must have the same.
    """

    model: Classifier
    contract: InputContract
    source: Source
    val: Pictures
    teacher: Teacher | None
    facts: dict[str, Any]
    teacher_file: Path | None = None
    counts: Sequence[int] = ()
    pictures: str = ""
