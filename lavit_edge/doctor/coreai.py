"""Apple's Core AI packages on this host: the smallest LaViT in their runtime."""

from __future__ import annotations

from lavit_edge.artifact.aimodel import require
from lavit_edge.doctor import pins
from lavit_edge.doctor.findings import Probe, Status
from lavit_edge.doctor.smallest import round_trip
from lavit_edge.errors import UserError


def run() -> tuple[Status, str]:
    try:
        require()
    except UserError as error:  # on systems without wheels the extra asks for nothing, so that nothing of it is missing
        return "not installed", str(error)
    return round_trip("coreai")


PROBES = (Probe("int8 .aimodel", run, pins.repair("coreai")),)
