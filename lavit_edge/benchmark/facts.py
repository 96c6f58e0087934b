"""What a report says of this machine and of an artifact. No torch import; psutil reads the system."""

from __future__ import annotations

import contextlib
import hashlib
import math
import os
import platform
import re
import subprocess
from pathlib import Path
from typing import Any

from lavit_edge.artifact.payload import Payload
from lavit_edge.artifact.seal import content_sha256
from lavit_edge.errors import UserError

# name in a report -> what /proc/cpuinfo calls it: flags on x86, Features on Arm
FEATURES = {
    "avx": "avx",
    "avx2": "avx2",
    "fma": "fma",
    "avx512f": "avx512f",
    "avx512_vnni": "avx512_vnni",
    "avx_vnni": "avx_vnni",
    "amx_int8": "amx_int8",
    "neon": "asimd",
    "fp16": "asimdhp",
    "dotprod": "asimddp",
    "i8mm": "i8mm",
    "bf16": "bf16",
    "sve": "sve",
    "sve2": "sve2",
    "sme": "sme",
}


def device() -> dict[str, Any]:
    """The field ``device`` of a report for this machine."""
    import psutil

    name, features = cpu()
    return {
        "name": _model_name(),
        "kind": "computer",
        "os": {"Darwin": "macOS"}.get(platform.system(), platform.system()) or None,
        "os_version": _os_version(),
        "arch": {"amd64": "x86_64", "arm64": "aarch64"}.get(platform.machine().lower(), platform.machine()) or None,
        "cpu": name,
        "cpu_features": features,
        "cores": psutil.cpu_count(),
        "memory_bytes": psutil.virtual_memory().total,
        "emulated": False,
        "emulator": None,
    }


def cpu() -> tuple[str | None, list[str] | None]:
    """The CPU's model name and those of its features that a report names."""
    if platform.system() == "Darwin":
        name = _output("sysctl", "-n", "machdep.cpu.brand_string")
        reported = _output("sysctl", "hw.optional.arm") or ""
        has = {"dotprod": "FEAT_DotProd: 1", "i8mm": "FEAT_I8MM: 1", "bf16": "FEAT_BF16: 1", "fp16": "FEAT_FP16: 1"}
        return name, sorted(["neon", *(short for short, line in has.items() if line in reported)]) if reported else None
    try:
        text = Path("/proc/cpuinfo").read_text()
    except OSError:
        return platform.processor() or None, None
    fields = dict(re.findall(r"^(.+?)\s*:\s*(.*)$", text, re.MULTILINE))
    flags = set((fields.get("flags") or fields.get("Features") or "").split())
    name = fields.get("model name") or "Arm " + " + ".join(
        dict.fromkeys(re.findall(r"^CPU part\s*:\s*(.*)$", text, re.MULTILINE))
    )
    return name, sorted(short for short, flag in FEATURES.items() if flag in flags) if flags else None


def condition() -> dict[str, Any]:
    """This machine's state now, as ``conditions.before`` and ``.after`` have it."""
    import psutil

    battery = psutil.sensors_battery() if hasattr(psutil, "sensors_battery") else None
    supplies = list(Path("/sys/class/power_supply").glob("*")) if platform.system() == "Linux" else []
    power = None
    if battery is not None:
        power = "mains" if battery.power_plugged else "battery"
    elif platform.system() == "Linux" and not supplies:
        power = "mains"  # a server or a virtual machine: no battery that it could run from
    heat = [sensor.current for sensors in _temperatures().values() for sensor in sensors if 0 < sensor.current < 150]
    load = os.getloadavg()[0] / (psutil.cpu_count() or 1) if hasattr(os, "getloadavg") else None
    return {
        "power": power,
        "battery_permille": round(battery.percent * 10) if battery else None,
        "low_power": None,
        "thermal": None,  # neither Linux nor Python tells; a phone's harness does
        "temperature_millicelsius": round(max(heat) * 1000) if heat else None,
        "governor": _line("/sys/devices/system/cpu/cpu0/cpufreq/scaling_governor"),
        "load_permille": round(load * 1000) if load is not None else None,
    }


def peak_memory() -> dict[str, Any]:
    """The field ``memory`` of a report for this process."""
    with contextlib.suppress(OSError):
        for line in Path("/proc/self/status").read_text().splitlines():
            if line.startswith("VmHWM:"):
                return {"peak_bytes": int(line.split()[1]) * 1024, "source": "VmHWM"}
    if platform.system() == "Darwin":
        import resource

        return {"peak_bytes": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss, "source": "ru_maxrss"}
    return {"peak_bytes": None, "source": None}


def artifact(path: Path, payload: Payload) -> dict[str, Any]:
    """The field ``artifact`` of a report."""
    files = [path] if path.is_file() else sorted(file for file in path.rglob("*") if file.is_file())
    made, precision = payload.provenance, payload.provenance.get("precision")
    checkpoint, top1 = made.get("checkpoint"), made.get("val_top1")
    if precision == "float":
        precision = "float16" if path.suffix == ".mlpackage" else "float32"
    return {
        "file": path.name,
        "bytes": sum(file.stat().st_size for file in files),
        "sha256": _sha256(path, files),
        "content_sha256": content_sha256(path),
        "contract_sha256": payload.contract.sha256,
        "model": checkpoint.get("name") if isinstance(checkpoint, dict) else None,
        "precision": precision if precision in ("int8", "float16", "float32") else None,
        "image_size": payload.contract.size,
        "top1_permille": round(1000 * top1) if isinstance(top1, int | float) and 0 <= top1 <= 1 else None,
    }


def foreign_artifact(path: Path, size: int) -> dict[str, Any]:
    """The field ``artifact`` of a report of a file that is not ours; ``size`` is the side of its input in pixels."""
    unknown = ("content_sha256", "contract_sha256", "model", "precision", "top1_permille")
    known = {"file": path.name, "bytes": path.stat().st_size, "sha256": _sha256(path, [path]), "image_size": size}
    return known | dict.fromkeys(unknown)


def delegation(path: Path) -> dict[str, Any]:
    """What the verdict adds to the field ``runtime``; nothing where it cannot read this artifact."""
    from lavit_edge.verdict.judge import judge
    from lavit_edge.verdict.read import read

    try:
        verdict = judge(*read(path))
    except UserError:
        return {"delegated_macs_permille": None, "graph_breaks": None}
    share = verdict.delegated_macs if verdict.delegated_macs is not None else verdict.int8_macs
    return {"delegated_macs_permille": math.floor(1000 * share + 0.5), "graph_breaks": verdict.breaks}


def _sha256(path: Path, files: list[Path]) -> str:
    if path.is_file():
        return hashlib.sha256(path.read_bytes()).hexdigest()
    lines = [f"{hashlib.sha256(file.read_bytes()).hexdigest()}  {file.relative_to(path).as_posix()}\n" for file in files]
    return hashlib.sha256("".join(sorted(lines, key=lambda line: line[66:])).encode()).hexdigest()


def _model_name() -> str | None:
    if platform.system() == "Darwin":
        return _output("sysctl", "-n", "hw.model")
    parts = [_line(f"/sys/class/dmi/id/{field}") for field in ("sys_vendor", "product_name")]
    return " ".join(part for part in parts if part) or _line("/proc/device-tree/model")


def _os_version() -> str | None:
    if platform.system() == "Linux":
        with contextlib.suppress(OSError):
            return platform.freedesktop_os_release().get("PRETTY_NAME")
    return platform.mac_ver()[0] or platform.version() or None


def _temperatures() -> dict[str, Any]:
    import psutil

    return psutil.sensors_temperatures() if hasattr(psutil, "sensors_temperatures") else {}


def _line(path: str) -> str | None:
    try:
        return Path(path).read_text().strip("\0\n ") or None
    except (OSError, UnicodeDecodeError):
        return None


def _output(*command: str) -> str | None:
    try:
        return subprocess.run(command, capture_output=True, text=True, check=True, timeout=10).stdout.strip() or None
    except (OSError, subprocess.SubprocessError):
        return None
