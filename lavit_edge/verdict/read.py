"""An artifact of any kind to its plan."""

from __future__ import annotations

from pathlib import Path

from lavit_edge.errors import UserError
from lavit_edge.verdict.judge import Verdict, judge
from lavit_edge.verdict.plan import Plan
from lavit_edge.verdict.rates import PROFILES, Profile, default_profile


def read(path: Path, device: str | None = None) -> tuple[Plan, Profile]:
    """What will be executed, and the profile to judge it by.

    Args:
        path: a ``.pte``, ``.onnx``, ``.ort``, ``.tflite``, ``.mlpackage`` or ``.aimodel``.
        device: a name of :data:`PROFILES`; by default the Neural Engine for Core ML and Core AI, for all else this machine.

    Raises:
        UserError: no such artifact, device or kind of artifact, the device does not run it, or it cannot be read.
    """
    if not path.exists():
        raise UserError(f"{path} does not exist")
    if device is not None and device not in PROFILES:
        raise UserError(f"unknown device {device!r}; devices: {', '.join(PROFILES)}")
    chosen = PROFILES[device] if device else default_profile(core_ml=False)
    if path.suffix == ".pte":
        from lavit_edge.verdict import pte

        plan = pte.read(path)
    elif path.suffix in (".onnx", ".ort"):
        from lavit_edge.verdict import ortgraph

        plan = ortgraph.read(path, arm=chosen.name.startswith("arm64"))
    elif path.suffix == ".tflite":
        from lavit_edge.verdict import tflite

        plan = tflite.read(path)
    elif path.suffix == ".mlpackage":
        from lavit_edge.verdict import mlpackage

        plan = mlpackage.read(path)
    elif path.suffix == ".aimodel":
        from lavit_edge.verdict import aimodel

        plan = aimodel.read(path)
    else:
        raise UserError(f"{path.name!r} is of no known kind; artifacts end in .pte, .onnx, .ort, .tflite, .mlpackage or .aimodel")
    if plan.runtime in ("Core ML", "Core AI") and device is None:
        chosen = default_profile(core_ml=True)
    if plan.runtime not in chosen.rates:
        fitting = [profile.name for profile in PROFILES.values() if plan.runtime in profile.rates]
        raise UserError(f"{path.name} is for {plan.runtime}, which {chosen.name} does not run; choose {' or '.join(fitting)}")
    return plan, chosen


def verdicts(path: Path) -> dict[str, Verdict]:
    """The verdict for every device that runs the artifact, by the device's name. Raises as :func:`read`."""
    plan, _ = read(path)
    found = {}
    for name, profile in PROFILES.items():
        if plan.runtime in profile.rates:
            # ONNX Runtime makes another graph of an .onnx on another CPU
            found[name] = judge(read(path, name)[0] if path.suffix == ".onnx" else plan, profile)
    return found
