"""What rides inside every artifact, so that it can be tested wherever it lands: contract, provenance, golden pictures, digest.

Four entries, described in docs/payload.md for readers in other languages. ``.onnx``, ``.ort``, ``.mlpackage`` and ``.aimodel``
hold them as metadata strings, ``.tflite`` as metadata buffers, ``.pte`` as constant methods. No torch import.
"""

from __future__ import annotations

import base64
import binascii
import json
import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, TypeGuard

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
GOLDEN_FORMAT, OLD_GOLDEN_FORMAT = "lavit_edge.golden/2", "lavit_edge.golden/1"
PROVENANCE_FORMAT = "lavit_edge.provenance/1"
LEAST_GOLDEN = 4
GRID = 16  # an input is remembered as GRID x GRID of its pixels
LARGEST_SIDE = 4096  # of a golden picture


@dataclass(frozen=True)
class Golden:
    """One golden picture.

    Attributes:
        name: of the picture.
        picture: uint8 RGB ``(height, width, 3)``, before any resizing.
        sample: uint8 ``(16, 16, 3)``, what :func:`sample_of` takes from the input that the contract makes of the picture.
        logits: float32 ``(classes,)`` of the program that the artifact was made from.
        tolerance: the largest difference of a logit that passes, in steps of the payload.
    """

    name: str
    picture: NDArray[np.uint8]
    sample: NDArray[np.uint8]
    logits: NDArray[np.float32]
    tolerance: float

    def image(self) -> Any:
        """The picture as PIL's ``Image``."""
        from PIL import Image

        return Image.fromarray(self.picture)


@dataclass(frozen=True)
class Payload:
    """
    Attributes:
        provenance: what the artifact was made from, and with.
        golden: at least four pictures.
        step: what differences of logits are counted in, see :func:`lavit_edge.metrics.logit_step`.
        close_steps, close_pictures: how many of the pictures must be that close, besides each being within its tolerance. What
            int8 rounds on a tie, runtimes round apart, and it spreads; but not on every picture. A fault shows on each.
    """

    contract: InputContract
    provenance: dict[str, Any]
    golden: tuple[Golden, ...]
    step: float
    close_steps: float = 0.1
    close_pictures: int = 0

    def entries(self) -> dict[str, str | bytes]:
        """The four entries by name; ``golden`` is binary, the others are text."""
        facts = {
            "format": GOLDEN_FORMAT,
            "names": [golden.name for golden in self.golden],
            "step": self.step,
            "tolerance_steps": [golden.tolerance for golden in self.golden],
            "close_steps": self.close_steps,
            "close_pictures": self.close_pictures,
        }
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
        """The entries as metadata of ``.onnx``, ``.mlpackage`` and ``.aimodel``: keys with a prefix, binary in base64."""
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
    return _golden(blob, contract, provenance)


def sample_of(picture: NDArray[np.uint8]) -> NDArray[np.uint8]:
    """16 x 16 pixels of an input ``(size, size, 3)``, those in rows and columns ``(2 i + 1) * size // 32``."""
    at = [(2 * i + 1) * len(picture) // (2 * GRID) for i in range(GRID)]
    return np.ascontiguousarray(picture[np.ix_(at, at)])


def _golden(blob: bytes, contract: InputContract, provenance: dict[str, Any]) -> Payload:
    try:
        tensors = load(blob)
        length = int.from_bytes(blob[:8], "little")  # of the JSON header; safetensors' own loader leaves the metadata out
        metadata = json.loads(blob[8 : 8 + length]).get("__metadata__") or {}  # safetensors takes texts by name, or null
    except (SafetensorError, ValueError, TypeError, KeyError, RecursionError) as error:
        raise UserError(f"payload: golden is damaged ({error})") from error
    facts = _object(metadata.get("golden", ""), "golden", GOLDEN_FORMAT, OLD_GOLDEN_FORMAT)
    old, names, tolerance = facts["format"] == OLD_GOLDEN_FORMAT, facts.get("names"), facts.get("tolerance_steps")
    if not isinstance(names, list) or len(names) < LEAST_GOLDEN or not all(isinstance(name, str) for name in names):
        raise UserError(f"payload: golden must name at least {LEAST_GOLDEN} pictures")
    tolerances = [tolerance] * len(names) if old else tolerance
    if not isinstance(tolerances, list) or len(tolerances) != len(names) or not all(_positive(each) for each in tolerances):
        raise UserError(f"payload: tolerance_steps must be positive numbers, one per picture, not {tolerance!r}")
    golden = []
    for index, name in enumerate(names):
        picture, sample, logits = (tensors.pop(f"{part}.{index}", np.empty(0)) for part in ("picture", "sample", "logits"))
        if not _is(picture, np.uint8, (None, None, 3)) or not all(0 < side <= LARGEST_SIDE for side in picture.shape):
            raise UserError(f"payload: golden picture {index} must be uint8 (height, width, 3)")
        if not _is(sample, np.uint8, (GRID, GRID, 3)):
            raise UserError(f"payload: golden sample {index} must be uint8 ({GRID}, {GRID}, 3)")
        classes = len(contract.labels)
        if not _is(logits, np.float32, (classes,)) or not np.isfinite(logits).all():
            raise UserError(f"payload: golden logits {index} must be {classes} finite float32, one per label of the contract")
        golden.append(Golden(name, picture, sample, logits, float(tolerances[index])))
    if tensors:
        raise UserError(f"payload: golden tensor {sorted(tensors)[0]!r} is unknown")
    span = np.ptp(np.stack([item.logits for item in golden]))
    if not span > 0:
        raise UserError("payload: the expected logits are all equal, which no model gives")
    if old:  # one step of an 8-bit output over all expected logits
        return Payload(contract, provenance, tuple(golden), float(span) / 255)
    step, close_steps, close_pictures = (facts.get(name) for name in ("step", "close_steps", "close_pictures"))
    if not _positive(step) or not _positive(close_steps):
        raise UserError(f"payload: step and close_steps must be positive numbers, not {step!r} and {close_steps!r}")
    if isinstance(close_pictures, bool) or not isinstance(close_pictures, int) or not 0 <= close_pictures <= len(golden):
        raise UserError(f"payload: close_pictures must be a number of the {len(golden)} pictures, not {close_pictures!r}")
    return Payload(contract, provenance, tuple(golden), float(step), float(close_steps), close_pictures)


def _positive(value: Any) -> TypeGuard[float]:
    return isinstance(value, int | float) and not isinstance(value, bool) and 0 < value < math.inf


def _is(value: NDArray[Any], dtype: type, shape: tuple[int | None, ...]) -> bool:
    return (
        value.dtype == dtype
        and value.ndim == len(shape)
        and all(wanted is None or wanted == side for wanted, side in zip(shape, value.shape, strict=True))
    )


def _object(text: str, name: str, *formats: str) -> dict[str, Any]:
    value = parse_json(text, f"payload: {name}")
    if not isinstance(value, dict) or value.get("format") not in formats:
        raise UserError(f"payload: {name} must be an object with format {formats[0]!r}")
    return value


def _canonical(value: Any) -> str:
    return json.dumps(value, sort_keys=True, separators=(",", ":"), ensure_ascii=False)
