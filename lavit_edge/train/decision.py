"""When a trained model shall be "not sure": fitted to what its weights make of the val split, and written into its contract."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import torch

from lavit_edge.checkpoint import CARD, Checkpoint, load_checkpoint, save_checkpoint
from lavit_edge.contract.decision import FEWEST, Decision, fit_decision
from lavit_edge.data.folder import Pictures, batches
from lavit_edge.data.outside import outside
from lavit_edge.models.deployed import Deployed, logits, to_input

BATCH = 64


def settle(folders: Sequence[Path], val: Pictures, wanted: float, device: torch.device) -> list[Decision | None]:
    """Gives checkpoints of one run the temperature and the threshold that fit each; those with the same weights are asked once.

    Args:
        wanted: share of the answers that shall be right, 0..1.

    Returns:
        None where the val split is too small to tell; the checkpoint stays as it is then.
    """
    if len(val) < FEWEST:
        return [None] * len(folders)
    checkpoints = [load_checkpoint(folder) for folder in folders]
    found: dict[str, Decision | None] = {}
    for checkpoint in checkpoints:
        weights = str(checkpoint.config["sha256"])
        if weights not in found:
            found[weights] = _fit(checkpoint, val, wanted, device)
        if decision := found[weights]:
            _write(checkpoint, decision)
    return [found[str(checkpoint.config["sha256"])] for checkpoint in checkpoints]


def _fit(checkpoint: Checkpoint, val: Pictures, wanted: float, device: torch.device) -> Decision | None:
    contract, model = checkpoint.contract, Deployed(checkpoint.model, checkpoint.contract)
    judged = ((to_input(pictures), targets.tolist()) for pictures, targets in batches(val, contract, BATCH))
    answers, targets = logits(model, judged, str(device))
    unknown, _ = logits(model, ((to_input(picture[None]), []) for picture in outside(contract)), str(device))
    return fit_decision(answers.numpy(), targets.numpy(), contract, wanted, unknown.numpy())


def _write(checkpoint: Checkpoint, decision: Decision) -> None:
    card = (checkpoint.path / CARD).read_text(encoding="utf-8").rstrip()
    own = {"format", "model", "contract", "sha256"}
    save_checkpoint(
        checkpoint.path,
        checkpoint.model.state_dict(),
        model=checkpoint.config["model"],
        contract=decision.of(checkpoint.contract),
        card=f"{card}\n\n{decision.sentence()}\n",
        facts={name: value for name, value in checkpoint.config.items() if name not in own} | {"decision": decision.to_dict()},
    )
