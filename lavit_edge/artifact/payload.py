"""What rides inside every artifact, so that it can be tested wherever it lands: contract, provenance, golden pictures, digest.

Four entries, described in docs/payload.md for readers in other languages. ``.onnx``, ``.ort`` and ``.mlpackage`` hold them as
metadata strings, ``.pte`` as constant methods. No torch import.
"""

from __future__ import annotations

import base64
import binascii
import json
import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray
from safetensors import SafetensorError
from safetensors.numpy import load, save

from lavit_edge.artifact.seal import UNSEALED
from lavit_edge.contract import InputContract
from lavit_edge.errors import UserError
from lavit_edge.files import parse_json

ENTRIES = ("contract", "provenance", "golden", "digest")
KEY = "org.lavit_edge."  # in front of an entry's name, in metadata
GOLDEN_FORMAT, PROVENANCE_FORMAT = "lavit_edge.golden/1", "lavit_edge.provenance/1"
LEAST_GOLDEN = 4
GRID = 16  # an input is remembered as GRID x GRID of its pixels
LARGEST_SIDE = 4096  # of a golden picture

# How many steps an artifact's logits may lie from those of the program it was made from, unless export is told otherwise.
# Measured on the bundled model, four golden and fifty free pictures: int8 at most 4.8 (rms 0.7).
TOLERANCE = {"int8": 8.0, "float16": 1.0, "float32": 0.1}


@dataclass(frozen=True)
class Golden:
    """One golden picture.

    Attributes:
        name: of the picture.
        picture: uint8 RGB ``(height, width, 3)``, before any resizing.
        sample: uint8 ``(16, 16, 3)``, what :func:`sample_of` takes from the input that the contract makes of the picture.
        logits: float32 ``(classes,)`` of the program that the artifact was made from.
    """

    name: str
    picture: NDArray[np.uint8]
    sample: NDArray[np.uint8]
    logits: NDArray[np.float32]

    def image(self) -> Any:
        """The picture as PIL's ``Image``."""
        from PIL import Image

        return Image.fromarray(self.picture)


@dataclass(frozen=True)
class Payload:
    """
    Attributes:
        provenance: what the artifact was made from, and with.
        tolerance: the largest difference of a logit that passes, in :attr:`step`.
        golden: at least four pictures.
    """

    contract: InputContract
    provenance: dict[str, Any]
    tolerance: float
    golden: tuple[Golden, ...]

    @property
    def step(self) -> float:
        """One 255th of the range of the expected logits: the step that an 8-bit output over them would have."""
        logits = np.stack([golden.logits for golden in self.golden])
        return float(logits.max() - logits.min()) / 255

    def entries(self) -> dict[str, str | bytes]:
        """The four entries by name; ``golden`` is binary, the others are text."""
        facts = {"format": GOLDEN_FORMAT, "names": [golden.name for golden in self.golden], "tolerance_steps": self.tolerance}
        tensors = {
            f"{part}.{index}": np.ascontiguousarray(getattr(golden, part))
            for index, golden in enumerate(self.golden)
            for part in ("picture", "sample", "logits")
        }
        return {
            "contract": self.contract.to_json(),
            "provenance": _canonical({"format": PROVENANCE_FORMAT, **self.provenance}),
            # one metadata key: safetensors writes several in random order, and the same export must give the same bytes
            "golden": save(tensors, {"golden": _canonical(facts)}),
            "digest": UNSEALED,
        }

    def metadata(self) -> dict[str, str]:
        """The entries as metadata of ``.onnx`` and ``.mlpackage``: keys with a prefix, binary in base64."""
        return {
            KEY + name: value if isinstance(value, str) else base64.b64encode(value).decode()
            for name, value in self.entries().items()
        }


def read_payload(entries: Mapping[str, str | bytes]) -> Payload:
    """The inverse of :meth:`Payload.entries`; ``golden`` may be base64 text too.

    Raises:
        UserError: an entry is missing, of another format, or damaged.
    """
    for name in ENTRIES:
        if name not in entries:
            raise UserError(f"payload: entry {name!r} is missing; only an artifact exported by lavit-edge can test itself")
    texts = {}
    for name in ("contract", "provenance"):
        value = entries[name]
        texts[name] = value if isinstance(value, str) else value.decode("utf-8", "replace")
    provenance = _object(texts["provenance"], "provenance", PROVENANCE_FORMAT)
    del provenance["format"]
    contract = InputContract.from_json(texts["contract"])
    blob = entries["golden"]
    if isinstance(blob, str):
        try:
            blob = base64.b64decode(blob, validate=True)
        except (binascii.Error, ValueError) as error:
            raise UserError(f"payload: golden is not base64 ({error})") from error
    return Payload(contract, provenance, *_golden(blob, len(contract.labels)))


def sample_of(picture: NDArray[np.uint8]) -> NDArray[np.uint8]:
    """16 x 16 pixels of an input ``(size, size, 3)``, those in rows and columns ``(2 i + 1) * size // 32``."""
    at = [(2 * i + 1) * len(picture) // (2 * GRID) for i in range(GRID)]
    return np.ascontiguousarray(picture[np.ix_(at, at)])


def _golden(blob: bytes, classes: int) -> tuple[float, tuple[Golden, ...]]:
    try:
        tensors = load(blob)
        length = int.from_bytes(blob[:8], "little")  # of the JSON header; safetensors' own loader leaves the metadata out
        metadata = json.loads(blob[8 : 8 + length]).get("__metadata__") or {}  # safetensors takes texts by name, or null
    except (SafetensorError, ValueError, TypeError, KeyError, RecursionError) as error:
        raise UserError(f"payload: golden is damaged ({error})") from error
    facts = _object(metadata.get("golden", ""), "golden", GOLDEN_FORMAT)
    names, tolerance = facts.get("names"), facts.get("tolerance_steps")
    if not isinstance(names, list) or len(names) < LEAST_GOLDEN or not all(isinstance(name, str) for name in names):
        raise UserError(f"payload: golden must name at least {LEAST_GOLDEN} pictures")
    if isinstance(tolerance, bool) or not isinstance(tolerance, int | float) or not 0 < tolerance < math.inf:
        raise UserError(f"payload: tolerance_steps must be a positive number, not {tolerance!r}")
    golden = []
    for index, name in enumerate(names):
        picture, sample, logits = (tensors.pop(f"{part}.{index}", np.empty(0)) for part in ("picture", "sample", "logits"))
        if not _is(picture, np.uint8, (None, None, 3)) or not all(0 < side <= LARGEST_SIDE for side in picture.shape):
            raise UserError(f"payload: golden picture {index} must be uint8 (height, width, 3)")
        if not _is(sample, np.uint8, (GRID, GRID, 3)):
            raise UserError(f"payload: golden sample {index} must be uint8 ({GRID}, {GRID}, 3)")
        if not _is(logits, np.float32, (classes,)) or not np.isfinite(logits).all():
            raise UserError(f"payload: golden logits {index} must be {classes} finite float32, one per label of the contract")
        golden.append(Golden(name, picture, sample, logits))
    if tensors:
        raise UserError(f"payload: golden tensor {sorted(tensors)[0]!r} is unknown")
    if not np.ptp(np.stack([item.logits for item in golden])) > 0:
        raise UserError("payload: the expected logits are all equal, which no model gives")
    return float(tolerance), tuple(golden)


def _is(value: NDArray[Any], dtype: type, shape: tuple[int | None, ...]) -> bool:
    return (
        value.dtype == dtype
        and value.ndim == len(shape)
        and all(wanted is None or wanted == side for wanted, side in zip(shape, value.shape, strict=True))
    )


def _object(text: str, name: str, expected: str) -> dict[str, Any]:
    value = parse_json(text, f"payload: {name}")
    if not isinstance(value, dict) or value.get("format") != expected:
        raise UserError(f"payload: {name} must be an object with format {expected!r}")
    return value


def _canonical(value: Any) -> str:
    return json.dumps(value, sort_keys=True, separators=(",", ":"), ensure_ascii=False)
