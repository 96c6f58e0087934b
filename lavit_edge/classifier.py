"""An exported artifact in an app of Python's: a picture in, labels with probabilities out.

Needs the artifact, its runtime, numpy and Pillow. No torch import, but by ExecuTorch's own runtime for a ``.pte``.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import TypeAlias

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from lavit_edge.artifact.coreml_runtime import open_coreml
from lavit_edge.artifact.payload import Payload, read_payload
from lavit_edge.artifact.runners import Runner, open_model, to_tensor
from lavit_edge.artifact.seal import check_seal
from lavit_edge.contract.answers import probabilities as probabilities_of
from lavit_edge.contract.frames import Frame, to_rgb
from lavit_edge.contract.pictures import open_picture, to_input, upright_rgb
from lavit_edge.errors import UserError
from lavit_edge.selftest import check_pictures

Picture: TypeAlias = "str | Path | bytes | Image.Image | NDArray[np.uint8] | Frame"


@dataclass(frozen=True)
class Answer:
    """A label, its index among the contract's, its probability (softmax over all labels, by the contract's temperature), and
    whether that reaches the contract's threshold: an app says "not sure" where the first answer's does not."""

    label: str
    index: int
    probability: float
    sure: bool


class Classifier:
    """An artifact that is loaded, and has tested itself on this machine.

    ::

        classifier = lavit_edge.Classifier("model.onnx")
        best = classifier.classify("cat.jpg")[0]
        print(best.label if best.sure else "not sure", best.probability)

    Args:
        artifact: an ``.onnx`` or ``.ort``, a ``.pte``, or, on a Mac, an ``.mlpackage``, as :mod:`lavit_edge.export` writes them.
        selftest: run the golden pictures that the artifact carries, and refuse it where it answers them otherwise than the
            program it was made from. The digest of its bytes is checked in any case; against malice there are signatures.
        threads: of the runtime; ExecuTorch has one pool for the whole process, and Core ML decides itself.

    Attributes:
        contract: what a picture must become, and the labels (docs/contract.md).
        provenance: what the artifact was made from, and with.
        digest: SHA-256 of its bytes, the artifact's name.

    Raises:
        UserError: no such artifact, its runtime is not installed, it is damaged, or it fails its self-test.
    """

    def __init__(self, artifact: str | Path, *, selftest: bool = True, threads: int = 1) -> None:
        path = Path(artifact)
        if not path.exists():
            raise UserError(f"{path} does not exist")
        if threads < 1:
            raise UserError(f"threads must be at least 1, not {threads}")
        self.digest = check_seal(path)  # first: a damaged file never reaches the runtime's own parser
        self._run, payload = _load(path, threads)
        self.contract, self.provenance = payload.contract, payload.provenance
        if selftest:
            for check in check_pictures(self._run, payload):
                if not check.passed:
                    raise UserError(f"{path} fails its self-test here: {check.name}: {check.found}")

    def classify(self, picture: Picture, top: int = 5) -> list[Answer]:
        """The ``top`` most probable labels, the most probable first, of equal ones that with the smaller index.

        Args:
            picture: a file or its bytes; a Pillow image, turned as its EXIF says; uint8 RGB ``(height, width, 3)``, upright; or
                a camera's :class:`lavit_edge.contract.frames.Frame`.

        Raises:
            UserError: a picture that cannot be read, or ``top`` is less than 1.
        """
        if top < 1:
            raise UserError(f"top must be at least 1, not {top}")
        logits = self.logits(picture)
        probabilities = probabilities_of(logits, self.contract)
        order = np.argsort(-logits, kind="stable")[:top]
        found = ((int(index), float(probabilities[index])) for index in order)
        return [Answer(self.contract.labels[index], index, each, each >= self.contract.threshold) for index, each in found]

    def classify_batch(self, pictures: Iterable[Picture], top: int = 5) -> list[list[Answer]]:
        """:meth:`classify` of each, one after the other: artifacts take one picture at a time."""
        return [self.classify(picture, top) for picture in pictures]

    def logits(self, picture: Picture) -> NDArray[np.float32]:
        """float32 ``(classes,)`` of a picture, as :meth:`classify` takes it."""
        return self._run(to_input(_decoded(picture), self.contract))


def _load(path: Path, threads: int) -> tuple[Runner, Payload]:
    if path.suffix == ".mlpackage":
        run, entries = open_coreml(path)
        return run, read_payload(entries)
    runtime, read = open_model(path, threads, trusted=True)
    return lambda square: runtime(to_tensor(square))[0], read_payload(read())


def _decoded(picture: Picture) -> Image.Image:
    """A picture as upright RGB."""
    if isinstance(picture, str | Path | bytes):
        return open_picture(Path(picture) if isinstance(picture, str) else picture)
    if isinstance(picture, Frame):
        return Image.fromarray(to_rgb(picture))
    if isinstance(picture, Image.Image):
        return upright_rgb(picture)
    if not isinstance(picture, np.ndarray):
        raise UserError(f"a picture is a file, bytes, an image of Pillow's, an array or a frame, not {type(picture).__name__}")
    if picture.dtype != np.uint8 or picture.ndim != 3 or picture.shape[2] != 3 or 0 in picture.shape:
        raise UserError(f"an array must be uint8 RGB (height, width, 3), not {picture.dtype} {picture.shape}")
    return Image.fromarray(picture)
