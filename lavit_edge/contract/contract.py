"""The input contract: everything between a picture and the model's input, and between a logit and its label.

It travels with the checkpoint and inside every artifact, so that no app types a size, a mean or a label again.
"""

from __future__ import annotations

import dataclasses
import hashlib
import json
import math
import reprlib
import unicodedata
from collections import Counter
from dataclasses import dataclass
from typing import Any, Literal, get_args

from lavit_edge.errors import UserError
from lavit_edge.files import parse_json

Resize = Literal["squash", "crop"]
Interpolation = Literal["bilinear", "bicubic"]

IMAGENET_MEAN = (0.485, 0.456, 0.406)
IMAGENET_STD = (0.229, 0.224, 0.225)
FORMATS = ("lavit_edge.contract/1", "lavit_edge.contract/2")
DECISION = {"temperature": 1.0, "threshold": 0.0}  # what format 1 cannot say: every answer counts
LARGEST_SIZE = 4096  # pixels a side
COLDEST = 0.01  # a temperature below it makes any lead a certainty
SMALLEST_STD = 1e-6  # below it a picture leaves float32, above its inverse it vanishes


@dataclass(frozen=True)
class InputContract:
    """What a picture must become before the model sees it, and what the model's outputs are called.

    The model's input is ``(1, 3, size, size)`` RGB, float32 holding the integers 0..255; normalisation is inside the model.

    Attributes:
        size: side of the square input in pixels. Whether a model takes it is the model's to say: those of the registry want a
            multiple of 32.
        resize: ``squash`` resizes the whole frame to the square; ``crop`` resizes the short side to
            ``round(size / crop_fraction)`` and takes the centre square.
        interpolation: filter of the resize, antialiased when it shrinks (PIL's filters are the reference).
        crop_fraction: share of the short side that the centre crop keeps, in (0, 1]; used by ``crop`` alone.
        mean, std: per-channel normalisation on the 0..1 scale, R, G, B.
        labels: one name per logit, in order.
        temperature: what logits are divided by before the softmax, so that probabilities are as often right as they say.
        threshold: an answer less probable than this is "not sure", in [0, 1); 0: never.
    """

    size: int
    labels: tuple[str, ...]
    resize: Resize = "squash"
    interpolation: Interpolation = "bicubic"
    crop_fraction: float = 1.0
    mean: tuple[float, float, float] = IMAGENET_MEAN
    std: tuple[float, float, float] = IMAGENET_STD
    temperature: float = DECISION["temperature"]
    threshold: float = DECISION["threshold"]

    def __post_init__(self) -> None:
        if not isinstance(self.labels, list | tuple):
            raise UserError(f"contract: labels must be a list of names, not {type(self.labels).__name__}")
        for name in ("labels", "mean", "std"):  # JSON has lists only
            object.__setattr__(self, name, tuple(getattr(self, name)))
        if type(self.size) is not int or not 1 <= self.size <= LARGEST_SIZE:  # True is an int
            raise UserError(f"contract: size must be a whole number of pixels from 1 to {LARGEST_SIZE}, not {_short(self.size)}")
        if not self.labels or not all(isinstance(label, str) and label.strip() for label in self.labels):
            raise UserError("contract: labels must be a list of names, none of them empty")
        for label, count in Counter(self.labels).items():
            if count > 1:
                raise UserError(f"contract: label {label!r} appears twice; each class needs its own name")
            if any(unicodedata.category(letter) in ("Cc", "Cs") for letter in label):
                raise UserError(f"contract: label {label!r} holds a control character or half of a surrogate pair")
        for name, value, allowed in (
            ("resize", self.resize, get_args(Resize)),
            ("interpolation", self.interpolation, get_args(Interpolation)),
        ):
            if value not in allowed:
                raise UserError(f"contract: {name} must be one of {', '.join(allowed)}, not {_short(value)}")
        if not _finite(self.crop_fraction) or not 0 < self.crop_fraction <= 1:
            raise UserError(f"contract: crop_fraction must be in (0, 1], not {_short(self.crop_fraction)}")
        for name, three in (("mean", self.mean), ("std", self.std)):
            if len(three) != 3 or not all(_finite(value) and abs(value) <= 1 / SMALLEST_STD for value in three):
                raise UserError(f"contract: {name} must be three finite numbers, not {_short(three)}")
        if min(self.std) < SMALLEST_STD:
            raise UserError(f"contract: std must be positive (at least {SMALLEST_STD}), not {_short(self.std)}")
        if not _finite(self.temperature) or not COLDEST <= self.temperature <= 1 / COLDEST:
            raise UserError(f"contract: temperature must be from {COLDEST} to {1 / COLDEST:g}, not {_short(self.temperature)}")
        if not _finite(self.threshold) or not 0 <= self.threshold < 1:
            raise UserError(f"contract: threshold must be in [0, 1), not {_short(self.threshold)}")
        for name in ("crop_fraction", *DECISION):
            object.__setattr__(self, name, float(getattr(self, name)))  # so that 1 and 1.0 give the same JSON
        for name in ("mean", "std"):
            object.__setattr__(self, name, tuple(float(value) for value in getattr(self, name)))

    def to_json(self) -> str:
        """Canonical JSON: sorted keys, no white space, UTF-8 letters as they are. Equal contracts give equal bytes.

        In the oldest format that can say it, so that older readers take what they understand, and names in reports stay.
        """
        fields = dataclasses.asdict(self)
        if plain := all(fields[name] == value for name, value in DECISION.items()):
            fields = {name: value for name, value in fields.items() if name not in DECISION}
        fields["format"] = FORMATS[not plain]
        return json.dumps(fields, sort_keys=True, separators=(",", ":"), ensure_ascii=False)

    @property
    def sha256(self) -> str:
        """Hex digest of :meth:`to_json` in UTF-8."""
        return hashlib.sha256(self.to_json().encode()).hexdigest()

    @classmethod
    def from_json(cls, text: str) -> InputContract:
        """The inverse of :meth:`to_json`. Raises :class:`UserError` on anything that is not a contract of this format."""
        return cls.from_dict(parse_json(text, "contract: the text"))

    @classmethod
    def from_dict(cls, fields: Any) -> InputContract:
        """As :meth:`from_json`, from the parsed object."""
        if not isinstance(fields, dict) or fields.get("format") not in FORMATS:
            raise UserError(f"contract: expected an object with format {' or '.join(map(repr, FORMATS))}")
        decides = fields["format"] == FORMATS[1]
        fields = {name: value for name, value in fields.items() if name != "format"}
        known = {field.name for field in dataclasses.fields(cls)} - (set() if decides else set(DECISION))
        if unknown := sorted(set(fields) - known):
            raise UserError(f"contract: unknown field {unknown[0]!r}; known fields: {', '.join(sorted(known))}")
        if missing := sorted({"size", "labels", *(DECISION if decides else ())} - set(fields)):
            raise UserError(f"contract: field {missing[0]!r} is missing")
        try:
            return cls(**fields)
        except TypeError as error:
            raise UserError(f"contract: {error}") from error

    def to_dict(self) -> dict[str, Any]:
        """The object behind :meth:`to_json`, for embedding in another JSON document."""
        return json.loads(self.to_json())


def _finite(value: Any) -> bool:
    try:
        return isinstance(value, int | float) and not isinstance(value, bool) and math.isfinite(value)
    except OverflowError:  # an integer beyond float's range
        return False


def _short(value: Any) -> str:
    """``repr`` without the digits of an integer that Python refuses to print, and of bounded length."""
    return reprlib.repr(value)
