"""Whatever answers a picture: an artifact, a bundle's best one, or a checkpoint in fp32 or int8; each behind the same call."""

from __future__ import annotations

import importlib.util
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from PIL import Image
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

from lavit_edge.artifact.bundle import MANIFEST, open_bundle
from lavit_edge.artifact.payload import read_payload
from lavit_edge.artifact.runners import SUFFIXES, Runner, open_artifact, read_entries
from lavit_edge.artifact.seal import check_seal
from lavit_edge.contract import InputContract
from lavit_edge.contract.answers import probabilities
from lavit_edge.contract.pictures import to_input
from lavit_edge.errors import UserError

FORMS = ("int8", "float")  # of a checkpoint that has both: NAME@int8, NAME@float
# what runs an artifact of that kind; of a bundle the first is taken whose runtime is here, the quickest to load before the others
RUNTIMES = {
    ".onnx": "onnxruntime",
    ".pte": "executorch",
    ".ort": "onnxruntime",
    ".tflite": "ai_edge_litert",
    ".mlpackage": "coremltools",
    ".aimodel": "coreai",
}


@dataclass(frozen=True)
class Source:
    """A model that answers pictures.

    Attributes:
        name: as it was asked for.
        form: precision and kind, such as ``int8 .onnx``.
        contract: the model's own.
        run: from a picture of the contract's size, uint8 ``(size, size, 3)``, to logits ``(classes,)``.
        note: what was chosen, and how another is; empty where there was no choice.
    """

    name: str
    form: str
    contract: InputContract
    run: Runner
    note: str = ""

    def probabilities(self, image: Image.Image) -> np.ndarray:
        """float64 ``(classes,)`` of an upright RGB picture of Pillow.

        Raises:
            UnreadablePicture: too long and thin to resize.
            UserError: not a finite logit for each label.
        """
        logits = self.run(to_input(image, self.contract))
        if logits.shape != (len(self.contract.labels),) or not np.isfinite(logits).all():
            raise UserError(f"{self.name} does not give a finite logit for each of its {len(self.contract.labels)} labels")
        return probabilities(logits, self.contract)


def open_source(given: Path | str, trust_builder: bool = False) -> Source:
    """Opens an artifact, a bundle's folder, a checkpoint's folder or the name of a bundled one.

    A checkpoint with an int8 form answers with it; ``NAME@float`` asks for its fp32 form. All run on one thread.

    Raises:
        UserError: none of these, damaged, or what runs it is not installed.
    """
    path = Path(given)
    if path.suffix in SUFFIXES:
        return _artifact(path, str(given))
    if (path / MANIFEST).is_file():
        return _of_bundle(path, str(given))
    return _checkpoint(str(given), trust_builder)


def _artifact(path: Path, name: str, note: str = "") -> Source:
    if not path.exists():
        raise UserError(f"{path} does not exist")
    check_seal(path)  # a damaged file never reaches the runtime's own parser
    payload = read_payload(read_entries(path))
    form = f"{payload.provenance.get('precision', 'unknown')} {path.suffix}"
    return Source(name, form, payload.contract, open_artifact(path, threads=1), note)


def _of_bundle(path: Path, name: str) -> Source:
    """The artifact of a bundle whose runtime is here."""
    order = list(RUNTIMES)
    found = sorted(open_bundle(path).runnable, key=lambda each: order.index(each.suffix))
    usable = [each for each in found if importlib.util.find_spec(RUNTIMES[each.suffix])]
    if not usable:
        named = ", ".join(each.name for each in found) or "no artifact that could run here"
        raise UserError(f"{path} has {named}, and no runtime for it is installed; pip install 'lavit-edge[onnx]'")
    others = ", ".join(each.name for each in found if each != usable[0])
    note = f"{name}: its {usable[0].name}" + (f"; name {others} to see that instead" if others else "")
    return _artifact(usable[0], str(usable[0]), note)


def _checkpoint(given: str, trust_builder: bool) -> Source:
    from lavit_edge.checkpoint import bundled_checkpoints, find_checkpoint

    name, at, form = given.rpartition("@")
    if not at or form not in FORMS or Path(given).exists():
        name, form = given, ""
    if name not in bundled_checkpoints() and not Path(name).exists():
        kinds = f"an artifact ({', '.join(SUFFIXES)}), a bundle's or checkpoint's folder"
        raise UserError(f"{name} is none of {kinds}, or one of {', '.join(bundled_checkpoints())}")
    from lavit_edge.models.deployed import Deployed
    from lavit_edge.parity.forms import from_torch, one_thread
    from lavit_edge.quantize import fake_quantized

    checkpoint = find_checkpoint(name, trust_builder)
    if form == "int8" and not checkpoint.quantized:
        raise UserError(f"{name} has no int8 form; python -m lavit_edge.quantize makes one")
    int8 = checkpoint.quantized and form != "float"
    module = fake_quantized(checkpoint) if int8 else Deployed(checkpoint.model, checkpoint.contract).eval()
    note = f"{name}: its int8 form; {name}@float is fp32" if int8 and not form else ""
    return Source(
        given, "int8 in torch" if int8 else "fp32 in torch", checkpoint.contract, one_thread()(from_torch(module)), note
    )


@contextmanager
def counting(title: str, total: int, console: Console) -> Iterator[Progress]:
    """A bar that :meth:`Progress.advance` moves by its task 0, and that goes away in the end."""
    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn())
    with Progress(*columns, console=console, transient=True) as progress:
        progress.add_task(title, total=total)
        yield progress
