"""Makes the payload of an artifact: the golden pictures, and what the program answers to them."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch.export import ExportedProgram

import lavit_edge
from lavit_edge.contract import InputContract
from lavit_edge.payload import Golden, Payload, sample_of
from lavit_edge.pictures import open_picture, to_input

PICTURES = Path(lavit_edge.__file__).parent / "golden"


def make_payload(program: ExportedProgram, contract: InputContract, provenance: dict[str, Any], tolerance: float) -> Payload:
    """The payload for an artifact of ``program``.

    Args:
        program: float32 ``(1, 3, size, size)`` RGB in 0..255 -> logits ``(1, classes)``.
        tolerance: in steps, see :class:`lavit_edge.payload.Payload`.
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
