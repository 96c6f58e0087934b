"""Makes the payload of an artifact: the golden pictures, and what the program answers to them."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch.export import ExportedProgram

import lavit_edge
from lavit_edge.artifact.payload import TOLERANCE, Golden, Payload, sample_of
from lavit_edge.contract import InputContract
from lavit_edge.contract.pictures import open_picture, to_input

PICTURES = Path(lavit_edge.__file__).parent / "golden"


def make_payload(program: ExportedProgram, contract: InputContract, provenance: dict[str, Any], tolerance: float) -> Payload:
    """The payload for an artifact of ``program``.

    Args:
        program: float32 ``(1, 3, size, size)`` RGB in 0..255 -> logits ``(1, classes)``.
        tolerance: in steps, see :class:`lavit_edge.artifact.payload.Payload`.
    """
    module = program.module()
    threads = torch.get_num_threads()
    torch.set_num_threads(1)  # sums in another order change last bits: the same export must give the same bytes
    try:
        golden = []
        for file in sorted(PICTURES.glob("*.png")):
            image = open_picture(file)
            picture = to_input(image, contract)
            with torch.no_grad():
                logits = module(torch.from_numpy(picture).permute(2, 0, 1)[None].float().contiguous())[0]
            golden.append(Golden(file.stem, np.array(image), sample_of(picture), logits.numpy().astype(np.float32)))
    finally:
        torch.set_num_threads(threads)
    return Payload(contract, provenance, tolerance, tuple(golden))


def int8_tolerance(int8: Payload, fp32: Payload) -> float:
    """What an int8 artifact's logits may be off, in whole steps: twice what int8 itself is off fp32 on the golden pictures.

    What int8 rounds, runtimes round apart (docs/parity.md, "Gates"), so a noisier model needs more room: an artifact that rounded
    every value its own way would be as far from the program as that is from fp32. Never less than 8, a quiet model's.
    """
    off = max(float(np.abs(a.logits - b.logits).max()) for a, b in zip(int8.golden, fp32.golden, strict=True))
    return max(TOLERANCE["int8"], math.ceil(2 * off / int8.step))
