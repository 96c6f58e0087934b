"""Exports a checkpoint to several targets and writes the bundle: artifacts, manifest, parity, verdict, card; whole or not."""

from __future__ import annotations

import copy
import hashlib
import importlib.metadata
import json
import os
import platform
import subprocess
import time
from contextlib import nullcontext
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from rich.console import Console

from lavit_edge import __version__
from lavit_edge.artifact.bundle import CARD, FILES, FORMAT, MANIFEST, PAGE, PARITY, VERDICT, Bundle, artifact_sha256
from lavit_edge.artifact.seal import content_sha256
from lavit_edge.artifact.signing import sign_bundle
from lavit_edge.checkpoint import Checkpoint, find_checkpoint, load_checkpoint
from lavit_edge.cli import new_table
from lavit_edge.data.folder import free_pictures, labelled_pictures
from lavit_edge.errors import UserError
from lavit_edge.export.config import ExportConfig
from lavit_edge.export.executorch_child import EXECUTORCH, ExecutorchChild
from lavit_edge.export.golden import Chosen, choose
from lavit_edge.export.targets import TARGETS, Options
from lavit_edge.files import new_folder, read_json
from lavit_edge.parity.agreement import FLOAT, PROGRAM, Parity
from lavit_edge.parity.check import PROGRAMS, Checked, Pictures, check
from lavit_edge.parity.page import page
from lavit_edge.parity.summary import Summary, summary
from lavit_edge.parity.summary import print_summary as print_gates
from lavit_edge.quantize.config import QuantizeConfig
from lavit_edge.quantize.run import quantize
from lavit_edge.toolchain import quiet
from lavit_edge.verbs import silent
from lavit_edge.verdict.judge import Verdict
from lavit_edge.verdict.read import verdicts
from lavit_edge.verdict.render import print_summary

if TYPE_CHECKING:
    from torch.export import ExportedProgram

LITERT = ("litert-torch", "litert-converter", "ai-edge-litert")
COREAI = ("coreai-torch", "coreai-core")
ONNX = ("onnx", "onnxscript", "onnxruntime")
TOOLS = ("torch", "torchao", "executorch", "coremltools", *ONNX, *LITERT, *COREAI, "numpy", "pillow")


@dataclass(frozen=True)
class Exported:
    """
    Attributes:
        bundle: the folder and its manifest.
        checked: what the gates said.
        verdicts: by artifact and kind of device, whether int8 will be faster there.
    """

    bundle: Bundle
    checked: Checked
    verdicts: dict[str, dict[str, Verdict]]

    @property
    def passed(self) -> bool:
        """Whether all gates were passed."""
        return self.checked.passed

    @property
    def artifacts(self) -> list[Path]:
        """The files, and the folders that are an ``.mlpackage`` or ``.aimodel``."""
        return [self.bundle.path / name for name in self.bundle.manifest["artifacts"]]

    def to_dict(self) -> dict[str, Any]:
        """The manifest with what was found added, as plain JSON values: what ``--json`` prints."""
        return {
            **self.bundle.manifest,
            "parity": _parity(self.checked),
            **self.checked.to_dict(),
            "verdict": _verdict(self.verdicts),
            "out": str(self.bundle.path),
        }


def export(
    checkpoint: Checkpoint | Path | str, out: Path | str, config: ExportConfig | None = None, *, console: Console | None = None
) -> Exported:
    """Writes the bundle ``out`` and checks that its artifacts agree: the command ``python -m lavit_edge.export``.

    Args:
        checkpoint: a folder, or the name of a bundled one. One whose weights another package has is calibrated on the free
            pictures, into the folder ``OUT-checkpoint``, or taken from there.
        out: a new folder, or an earlier export of the same checkpoint at the same precision.
        console: shows what is going on and what was found; None: nothing is shown.

    Returns:
        What was written; a bundle that failed a gate is written, too.

    Raises:
        UserError: nothing is written then.
    """
    config, console, out = config or ExportConfig(), console or silent(), Path(out)
    source = find_checkpoint(checkpoint, config.trust_builder)
    if config.precision == "int8" and not source.quantized and "packaged" in source.config["model"]:
        source = _calibrated(source, out.with_name(f"{out.name}-checkpoint"), console)
    _check_out(out, source, config.precision)
    sets = {"free pictures": Pictures(free_pictures(source.contract), False)}
    if config.data is not None:
        data = Path(config.data)
        sets[f"{data.name}/val"] = Pictures(labelled_pictures(data, source.contract, config.pictures), True)
    with console.status("building the program"):
        program = PROGRAMS[config.precision](source)
        with quiet():  # copying warns of what torch itself calls
            reference = copy.deepcopy(program)  # an exporter that altered the one it is given would alter this too
    computes = {name: config.of(TARGETS[name]).computes_in for name in config.targets}
    with new_folder(out, FILES) as folder:
        chosen, seconds = _export_targets(program, source, config, computes, folder, console)
        artifacts = sorted(folder.iterdir())
        manifest = _manifest(source, config, artifacts, seconds, out)
        manifest["selftest"] = {} if config.tolerance_steps else _power(chosen, computes)  # known of measured tolerances alone
        bundle = Bundle(folder, manifest)
        checked = check(bundle, source, sets, config.gates, strict=config.strict, console=console, program=reference)
        with console.status("judging the artifacts"):
            judged = {path.name: verdicts(path) for path in artifacts}
        print_summary(judged, console)
        title = f"{checked.checkpoint}, {checked.precision}: agreement"
        _write_json(folder / MANIFEST, manifest)
        _write_json(folder / VERDICT, _verdict(judged))
        _write_json(folder / PARITY, {"gates": vars(config.gates), **checked.to_dict(), "sets": _parity(checked)})
        found = summary(checked, out, None if config.data is None else Path(config.data))
        (folder / PAGE).write_text(page(title, checked.sets, found), encoding="utf-8")
        (folder / CARD).write_text(_card(source, manifest, checked.sets, found), encoding="utf-8")
        if config.sign:
            sign_bundle(folder, config.sign)
    _print_artifacts(manifest, out, console)
    print_gates(found, console)
    return Exported(Bundle(out, manifest), checked, judged)


def _export_targets(
    program: ExportedProgram, source: Checkpoint, config: ExportConfig, computes: dict[str, str], folder: Path, console: Console
) -> tuple[Chosen, dict[str, float]]:
    """The golden pictures that it chose, and the seconds that each target took."""
    begun: dict[str, float] = {}
    seconds = dict.fromkeys(config.targets, 0.0)

    def done(name: str) -> None:
        seconds[name] = round(time.monotonic() - begun[name], 1)
        console.print(f"exported {name} in {seconds[name]} s")

    several = EXECUTORCH in config.targets and len(config.targets) > 1
    with ExecutorchChild(program, config.of(TARGETS[EXECUTORCH])) if several else nullcontext() as other:
        with console.status("choosing golden pictures"):
            chosen = choose(program, source.contract, set(computes.values()))
        for name in sorted(config.targets, key=lambda name: name != EXECUTORCH):
            begun[name], target, options = time.monotonic(), TARGETS[name], config.of(TARGETS[name])
            made = provenance(source, config.precision, name, options)
            payload, path = chosen.payload(computes[name], made, config.tolerance_steps), folder / f"model{target.suffix}"
            if other and name == EXECUTORCH:
                other.begin(payload, path)
                continue
            with console.status(f"exporting {name}"):
                target.export(program, payload, path, options)
            done(name)
        if other:
            with console.status(f"exporting {EXECUTORCH}"):
                other.finish()
            done(EXECUTORCH)
    return chosen, seconds


def _calibrated(checkpoint: Checkpoint, folder: Path, console: Console) -> Checkpoint:
    """The int8 form of a checkpoint whose weights another package has; made once, so that every export has the same."""
    if not folder.exists():
        console.print(f"calibrating on the free pictures, into {folder}", soft_wrap=True, highlight=False)
        return quantize(checkpoint, None, folder, QuantizeConfig(epochs=0), console=console)
    found = load_checkpoint(folder)
    if not found.quantized or found.config["model"] != checkpoint.config["model"]:
        raise UserError(f"{folder} is not the int8 form of {checkpoint.path.name}; choose another --out or remove it")
    return found


def _power(chosen: Chosen, computes: dict[str, str]) -> dict[str, Any]:
    """What the self-test sees of planted faults, by target."""
    return {name: chosen.power[kind].to_dict() for name, kind in computes.items()}


def _parity(checked: Checked) -> dict[str, Any]:
    return {title: result.to_dict() for title, result in checked.sets.items()}


def _verdict(verdicts: dict[str, dict[str, Verdict]]) -> dict[str, Any]:
    return {name: {device: each.to_dict() for device, each in found.items()} for name, found in verdicts.items()}


def _check_out(out: Path, checkpoint: Checkpoint, precision: str) -> None:
    """A folder that holds anything but an earlier export of the same checkpoint at the same precision is left alone."""
    if not out.exists() or (out.is_dir() and not any(out.iterdir())):
        return
    try:
        old = read_json(out / MANIFEST)
        same = old["checkpoint"]["sha256"] == checkpoint.config["sha256"] and old["precision"] == precision
    except (UserError, KeyError, TypeError):
        raise UserError(f"{out} exists and is not a bundle; choose another --out") from None
    if not same:
        raise UserError(f"{out} holds a bundle of another checkpoint or precision; choose another --out or remove it")


def _manifest(
    checkpoint: Checkpoint, config: ExportConfig, artifacts: list[Path], seconds: dict[str, float], out: Path
) -> dict[str, Any]:
    def size(path: Path) -> int:
        return sum(file.stat().st_size for file in ([path] if path.is_file() else path.rglob("*")) if file.is_file())

    return {
        "format": FORMAT,
        **_made_from(checkpoint, config.precision),
        "checkpoint_path": os.path.relpath(checkpoint.path, out),
        "contract": checkpoint.contract.to_dict(),
        "contract_sha256": checkpoint.contract.sha256,
        "quantization": checkpoint.config.get("quantization") if config.precision == "int8" else None,
        "targets": {name: {"options": vars(config.of(TARGETS[name])), "seconds": spent} for name, spent in seconds.items()},
        "artifacts": {
            path.name: {"bytes": size(path), "sha256": artifact_sha256(path), "content_sha256": content_sha256(path)}
            for path in artifacts
        },
        "python": platform.python_version(),
    }


def provenance(checkpoint: Checkpoint, precision: str, target: str, options: Options) -> dict[str, Any]:
    """What an artifact says of its making: no time and no place in it, so that the same export gives the same bytes."""
    calibration = (checkpoint.config.get("quantization") or {}).get("calibration") if precision == "int8" else None
    pictures = json.dumps(calibration, sort_keys=True).encode() if calibration else None
    metrics = {**checkpoint.config.get("metrics", {}), **_judged(checkpoint, precision)}
    return {
        **_made_from(checkpoint, precision),
        "val_top1": metrics.get("val_top1"),
        "val_pictures": metrics.get("val_pictures"),
        "decision": (checkpoint.config.get("quantization") or {}).get("decision") or checkpoint.config.get("decision"),
        "target": target,
        "options": vars(options),
        "calibration_pictures": len(calibration) if calibration else None,
        "calibration_sha256": hashlib.sha256(pictures).hexdigest() if pictures else None,
    }


def _judged(checkpoint: Checkpoint, precision: str) -> dict[str, Any]:
    """Top-1 as quantize judged it, of the form that is exported; nothing if it had no val pictures."""
    quantization = checkpoint.config.get("quantization") or {}
    top1 = quantization.get("metrics", {}).get(quantization.get("kept") if precision == "int8" else "fp32", {}).get("top1")
    return {} if top1 is None else {"val_top1": top1, "val_pictures": quantization.get("val_pictures")}


def _made_from(checkpoint: Checkpoint, precision: str) -> dict[str, Any]:
    return {
        "lavit_edge": __version__,
        "git_commit": _git_commit(),
        "precision": precision,
        "checkpoint": {"name": checkpoint.path.resolve().name, "sha256": checkpoint.config["sha256"]},
        "model": checkpoint.config["model"],
        "tools": {name: _version(name) for name in TOOLS},
    }


def _version(name: str) -> str | None:
    try:
        return importlib.metadata.version(name)
    except importlib.metadata.PackageNotFoundError:
        return None


def _git_commit() -> str | None:
    """The commit of the checkout that this code runs from; None when it is installed from a wheel."""
    command = ["git", "-C", str(Path(__file__).parent), "rev-parse", "HEAD"]
    try:
        return subprocess.run(command, capture_output=True, text=True, check=True).stdout.strip()
    except (OSError, subprocess.CalledProcessError):
        return None


def _card(checkpoint: Checkpoint, manifest: dict[str, Any], results: dict[str, Parity], found: Summary) -> str:
    """The checkpoint's own card, and below it what this export measured."""
    own = (checkpoint.path / "README.md").read_text(encoding="utf-8") if (checkpoint.path / "README.md").exists() else ""
    lines = [own.rstrip(), "", f"## This bundle ({manifest['precision']})", "", "| artifact | MB |", "|---|---|"]
    lines += [f"| {name} | {entry['bytes'] / 1e6:.2f} |" for name, entry in manifest["artifacts"].items()]
    lines += ["", *found.markdown()]
    for title, parity in results.items():
        reference = PROGRAM if PROGRAM in parity.names else FLOAT
        lines += ["", f"Agreement on {parity.pictures} pictures ({title}), against {reference}:", ""]
        lines += ["| form | top-1 % | same top-1 % | SQNR dB |", "|---|---|---|---|"]
        for name in parity.names:
            top1 = f"{100 * parity.top1[name][0]:.2f}" if parity.labelled else "not measured"
            if name == reference:
                lines.append(f"| {name} | {top1} | | |")
            else:
                pair = parity.pair(name, reference)
                lines.append(f"| {name} | {top1} | {100 * pair.agreement:.1f} | {pair.sqnr_db:.1f} |")
    if manifest["selftest"]:
        lines += ["", "Faults planted in single layers (weights zeroed, negated, channels rotated) that the self-test sees:"]
        lines += ["", "| target | planted | seen | layers of those that it does not see |", "|---|---|---|---|"]
    for target, power in manifest["selftest"].items():
        blind = ", ".join(dict.fromkeys(f"`{fault.rsplit(' ', 1)[0]}`" for fault in power["blind"]))
        lines.append(f"| {target} | {power['planted']} | {power['seen']} | {blind or 'none'} |")
    notes = {
        "model.mlpackage": "was run in the reference evaluator, which checks the program and not Apple's kernels.",
        "model.aimodel": "needs iOS 27 or macOS 27. It was run by Apple's runtime, on Linux an interpreter.",
    }
    lines += [line for name, note in notes.items() if name in manifest["artifacts"] for line in ("", f"`{name}` {note}")]
    return "\n".join([*lines, ""])


def _print_artifacts(manifest: dict[str, Any], out: Path, console: Console) -> None:
    table = new_table("artifact", figures=("MB", "content SHA-256"), title=f"{out}")
    for name, entry in manifest["artifacts"].items():
        table.add_row(name, f"{entry['bytes'] / 1e6:.2f}", entry["content_sha256"][:16])
    console.print(table)
    console.print(f"matrix with colours: {out / PAGE}")


def _write_json(file: Path, document: Any) -> None:
    file.write_text(json.dumps(document, indent=1, ensure_ascii=False) + "\n", encoding="utf-8")
