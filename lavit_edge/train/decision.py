"""When a trained model shall be "not sure": fitted to what its weights make of the val split, and written into its contract."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path

import numpy as np
import torch

from lavit_edge.checkpoint import CARD, load_checkpoint, save_checkpoint
from lavit_edge.contract.decision import FEWEST, Decision, fit_decision
from lavit_edge.data.folder import Pictures, batches
from lavit_edge.data.outside import outside
from lavit_edge.models.deployed import Deployed

BATCH = 64


@torch.inference_mode()
def settle(folder: Path, val: Pictures, wanted: float, device: torch.device) -> Decision | None:
    """Gives a checkpoint of this package's models the temperature and the threshold that fit it.

    Args:
        wanted: share of the answers that shall be right, 0..1.

    Returns:
        None where the val split is too small to tell; the checkpoint stays as it is then.
    """
    if len(val) < FEWEST:
        return None
    checkpoint = load_checkpoint(folder)
    contract, model = checkpoint.contract, Deployed(checkpoint.model, checkpoint.contract).eval().to(device)

    def answers(pictures: Iterable[np.ndarray]) -> np.ndarray:
        """float32 logits ``(N, classes)`` of batches of uint8 ``(B, size, size, 3)``."""
        planes = (torch.from_numpy(each).permute(0, 3, 1, 2).float().contiguous() for each in pictures)
        return torch.cat([model(each.to(device)).cpu() for each in planes]).numpy()

    targets: list[int] = []

    def seen() -> Iterable[np.ndarray]:
        for pictures, classes in batches(val, contract, BATCH):
            targets.extend(classes.tolist())
            yield pictures

    logits = answers(seen())
    decision = fit_decision(logits, np.array(targets), contract, wanted, answers(each[None] for each in outside(contract)))
    if decision is None:
        return None
    card = (folder / CARD).read_text(encoding="utf-8").rstrip()
    facts = {name: value for name, value in checkpoint.config.items() if name not in ("format", "model", "contract", "sha256")}
    save_checkpoint(
        folder,
        checkpoint.model.state_dict(),
        model=checkpoint.config["model"],
        contract=decision.of(contract),
        card=f"{card}\n\n{decision.sentence()}\n",
        facts={**facts, "decision": decision.to_dict()},
    )
    return decision
