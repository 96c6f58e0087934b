"""Core ML itself, by way of coremltools: what an ``.mlpackage`` answers on a Mac. No torch import; never run by us."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from lavit_edge.artifact.payload import ENTRIES, KEY
from lavit_edge.artifact.runners import Entries, Runner
from lavit_edge.errors import UserError
from lavit_edge.toolchain import missing, quiet


def open_coreml(path: Path) -> tuple[Runner, Entries]:
    """What runs an ``.mlpackage``, and its payload's entries.

    Raises:
        UserError: this is no Mac, coremltools is not installed, or Core ML refuses the package.
    """
    if sys.platform != "darwin":
        raise UserError(f"{path} runs in Core ML, on Apple's systems alone; use the .onnx of its bundle here")
    if not path.is_dir():
        raise UserError(f"{path} does not exist or is no folder")
    try:
        with quiet():
            import coremltools
    except ImportError as error:
        raise missing("Core ML", "coreml", error) from error
    try:
        with quiet():
            model = coremltools.models.MLModel(str(path))
    except Exception as error:  # its exceptions have no common base
        raise UserError(f"{path} is damaged or not for this system ({error}); export it again") from error
    metadata = dict(model.user_defined_metadata)
    return _runner(path, model), {name: metadata[KEY + name] for name in ENTRIES if KEY + name in metadata}


def _runner(path: Path, model: Any) -> Runner:
    def run(picture: NDArray[np.uint8]) -> NDArray[np.float32]:
        try:
            return np.asarray(model.predict({"image": Image.fromarray(picture)})["logits"], np.float32).reshape(-1)
        except Exception as error:
            raise UserError(f"{path} does not take a picture of {picture.shape} ({error}); export it again") from error

    return run
