"""The processes that train together: one, or those that ``torchrun`` started. torch.distributed does the communication."""

from __future__ import annotations

import datetime
import os
from collections.abc import Iterable
from dataclasses import dataclass

import torch
from torch import distributed, nn
from torch.nn.parallel import DistributedDataParallel

from lavit_edge.errors import UserError

# The first process may take hours over the teacher's logits while the others wait for it
PATIENCE = datetime.timedelta(hours=6)


@dataclass(frozen=True)
class World:
    """
    Attributes:
        rank: of this process, from 0; rank 0 alone writes files and prints.
        size: how many processes there are.
        device: of this process.
    """

    rank: int
    size: int
    device: torch.device

    @property
    def main(self) -> bool:
        return self.rank == 0

    def sum(self, *values: float) -> list[float]:
        """Each value summed over the processes."""
        if self.size == 1:
            return list(values)
        total = torch.tensor(values, dtype=torch.float64, device=self.device)
        distributed.all_reduce(total)
        return total.tolist()

    def wait(self) -> None:
        """Until all processes are here."""
        self.sum(0.0)

    def share(self, tensors: Iterable[torch.Tensor]) -> None:
        """Gives every process the first one's values, in place."""
        if self.size > 1:
            for tensor in tensors:
                distributed.broadcast(tensor, 0)

    def parallel(self, model: nn.Module) -> nn.Module:
        """The model whose gradients are averaged over the processes."""
        return DistributedDataParallel(model) if self.size > 1 else model


def join(device: str) -> World:
    """Joins the processes that ``torchrun`` started, or is the only one: NCCL on CUDA, gloo on a CPU.

    Args:
        device: ``cpu``, ``cuda`` or ``auto``, which is CUDA where there is one.

    Raises:
        UserError: no such device here, or fewer CUDA devices than processes on this host.
    """
    rank, size, local = (int(os.environ.get(name, default)) for name, default in ENVIRONMENT)
    if device == "auto":
        device = "cuda" if torch.cuda.is_available() else "cpu"
    try:
        torch.empty(0, device=device)
    except (RuntimeError, AssertionError) as error:
        raise UserError(f"--device {device}: this torch has no such device; use --device cpu") from error
    chosen = torch.device(device)
    if chosen.type == "cuda" and size > 1:
        if local >= torch.cuda.device_count():
            raise UserError(
                f"{local + 1} processes on this host for {torch.cuda.device_count()} CUDA devices; lower --nproc_per_node"
            )
        chosen = torch.device("cuda", local)
        torch.cuda.set_device(chosen)
    if size > 1 and not distributed.is_initialized():
        distributed.init_process_group("nccl" if chosen.type == "cuda" else "gloo", timeout=PATIENCE)
    return World(rank, size, chosen)


ENVIRONMENT = (("RANK", "0"), ("WORLD_SIZE", "1"), ("LOCAL_RANK", "0"))  # set by torchrun
