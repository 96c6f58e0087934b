"""Exports a checkpoint to several targets and writes the bundle: artifacts, manifest, parity, verdict, card; whole or not."""

from __future__ import annotations

import hashlib
import importlib.metadata
import json
import os
import platform
import subprocess
import time
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.table import Table

from lavit_edge import __version__
from lavit_edge.artifact.bundle import CARD, FORMAT, MANIFEST, PAGE, PARITY, VERDICT, Bundle, artifact_sha256
from lavit_edge.artifact.seal import content_sha256
from lavit_edge.artifact.signing import sign_bundle
from lavit_edge.checkpoint import Checkpoint, load_checkpoint
from lavit_edge.data.folder import free_pictures, labelled_pictures
from lavit_edge.errors import UserError
from lavit_edge.export.golden import Chosen, choose
from lavit_edge.export.targets import TARGETS, Options
from lavit_edge.files import new_folder, read_json
from lavit_edge.parity.agreement import FLOAT, PROGRAM, Gates, Parity
from lavit_edge.parity.check import PROGRAMS, Pictures, check
from lavit_edge.parity.render import page
from lavit_edge.verdict.read import verdicts
from lavit_edge.verdict.render import print_summary

TOOLS = ("torch", "torchao", "executorch", "coremltools", "onnx", "onnxscript", "onnxruntime", "numpy", "pillow")


def export_bundle(
    source: Path,
    options: dict[str, Options],
    precision: str,
    out: Path,
    *,
    data: Path | None,
    pictures: int,
    gates: Gates,
    tolerance_steps: float | None = None,
    strict: bool = False,
    private_key: Path | None = None,
) -> dict[str, Any]:
    """Writes the bundle ``out`` and returns its manifest with what was found added: ``passed``, ``parity``, ``layers``...

    Args:
        source: the checkpoint folder.
        options: target name -> its options; the targets to export.
        precision: ``int8`` or ``float``.
        tolerance_steps: of the artifacts' self-test; of each picture its own when None, see :mod:`lavit_edge.export.golden`.
        private_key: signs the bundle, see :mod:`lavit_edge.artifact.signing`.
        data, pictures: labelled pictures to compare on besides the free ones, and how many.

    Raises:
        UserError: nothing is written then.
    """
    console = Console(stderr=True)
    checkpoint = load_checkpoint(source)
    _check_out(out, checkpoint, precision)
    sets = {"free pictures": Pictures(free_pictures(checkpoint.contract), False)}
    if data is not None:
        sets[f"{data.name}/val"] = Pictures(labelled_pictures(data, checkpoint.contract, pictures), True)
    with console.status("building the program"):
        program = PROGRAMS[precision](checkpoint)
    with console.status("choosing golden pictures"):
        computes = {name: target_options.computes_in for name, target_options in options.items()}
        chosen = choose(program, checkpoint.contract, set(computes.values()))
    with new_folder(out, replace=True) as folder:
        seconds = {}
        for name, target_options in options.items():
            start = time.monotonic()
            with console.status(f"exporting {name}"):
                made = provenance(checkpoint, precision, name, target_options)
                payload = chosen.payload(computes[name], made, tolerance_steps)
                TARGETS[name].export(program, payload, folder / f"model{TARGETS[name].suffix}", target_options)
            seconds[name] = round(time.monotonic() - start, 1)
            console.print(f"exported {name} in {seconds[name]} s")
        artifacts = sorted(folder.iterdir())
        manifest = _manifest(checkpoint, options, precision, artifacts, seconds, out)
        manifest["selftest"] = _power(chosen, computes, tolerance_steps)
        checked = check(Bundle(folder, manifest), checkpoint, sets, gates, strict=strict, console=console)
        parity = {title: result.to_dict() for title, result in checked.sets.items()}
        with console.status("judging the artifacts"):
            judged = {path.name: verdicts(path) for path in artifacts}
        print_summary(judged, console)
        verdict = {name: {device: each.to_dict() for device, each in found.items()} for name, found in judged.items()}
        title = f"{checkpoint.path.resolve().name}, {precision}: agreement"
        _write_json(folder / MANIFEST, manifest)
        _write_json(folder / VERDICT, verdict)
        _write_json(folder / PARITY, {"gates": vars(gates), **checked.to_dict(), "sets": parity})
        (folder / PAGE).write_text(page(title, checked.sets, checked.wrong_layers), encoding="utf-8")
        (folder / CARD).write_text(_card(checkpoint, manifest, checked.sets), encoding="utf-8")
        if private_key:
            sign_bundle(folder, private_key)
    _print_artifacts(manifest, out, console)
    return {**manifest, "parity": parity, **checked.to_dict(), "verdict": verdict, "out": str(out)}


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
    checkpoint: Checkpoint,
    options: dict[str, Options],
    precision: str,
    artifacts: list[Path],
    seconds: dict[str, float],
    out: Path,
) -> dict[str, Any]:
    def size(path: Path) -> int:
        return sum(file.stat().st_size for file in ([path] if path.is_file() else path.rglob("*")) if file.is_file())

    return {
        "format": FORMAT,
        **_made_from(checkpoint, precision),
        "checkpoint_path": os.path.relpath(checkpoint.path, out),
        "contract": checkpoint.contract.to_dict(),
        "contract_sha256": checkpoint.contract.sha256,
        "quantization": checkpoint.config.get("quantization") if precision == "int8" else None,
        "targets": {
            name: {"options": vars(target_options), "seconds": seconds[name]} for name, target_options in options.items()
        },
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


def _power(chosen: Chosen, computes: dict[str, str], tolerance_steps: float | None) -> dict[str, Any]:
    """What the self-test sees of planted faults, by target; nothing is known where the tolerances are not the measured ones."""
    return {} if tolerance_steps is not None else {name: chosen.power[kind].to_dict() for name, kind in computes.items()}


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


def _card(checkpoint: Checkpoint, manifest: dict[str, Any], results: dict[str, Parity]) -> str:
    """The checkpoint's own card, and below it what this export measured."""
    own = (checkpoint.path / "README.md").read_text(encoding="utf-8") if (checkpoint.path / "README.md").exists() else ""
    lines = [own.rstrip(), "", f"## This bundle ({manifest['precision']})", "", "| artifact | MB |", "|---|---|"]
    lines += [f"| {name} | {entry['bytes'] / 1e6:.2f} |" for name, entry in manifest["artifacts"].items()]
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
    lines += ["", "`.mlpackage` was run in the reference evaluator, which checks the program and not Apple's kernels.", ""]
    return "\n".join(lines)


def _print_artifacts(manifest: dict[str, Any], out: Path, console: Console) -> None:
    table = Table(title=f"{out}")
    for column in ("artifact", "MB", "content SHA-256"):
        table.add_column(column, justify="right" if column == "MB" else "left")
    for name, entry in manifest["artifacts"].items():
        table.add_row(name, f"{entry['bytes'] / 1e6:.2f}", entry["content_sha256"][:16])
    console.print(table)
    console.print(f"matrix with colours: {out / PAGE}")


def _write_json(file: Path, document: Any) -> None:
    file.write_text(json.dumps(document, indent=1, ensure_ascii=False) + "\n", encoding="utf-8")
