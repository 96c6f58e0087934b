"""What the gates came to, in the last lines: passed or failed, by how much, whether top-1 changed, and what to do next."""

from __future__ import annotations

import math
import shlex
from dataclasses import dataclass
from pathlib import Path

from rich.console import Console

from lavit_edge.checkpoint import Checkpoint, bundled_checkpoints
from lavit_edge.parity.agreement import FLOAT, PROGRAM, Noise, Parity, dropped, lost
from lavit_edge.parity.check import Checked

FEW_CALIBRATION = 512  # pictures; below, more are the cheapest remedy of a program that has lost top-1
MANY = 1000  # pictures that tell a fault from bad luck on a few
VERIFY = "python -m lavit_edge.verify"
QUANTIZE = "python -m lavit_edge.quantize"


@dataclass(frozen=True)
class Summary:
    """
    Attributes:
        lines: what passed or failed, and by how much.
        top1: whether it changed, a line for each set of pictures.
        steps: what to do next, and the command for it.
    """

    passed: bool
    lines: tuple[str, ...]
    top1: tuple[str, ...]
    steps: tuple[tuple[str, str], ...]

    def markdown(self) -> list[str]:
        """A section of the model card."""
        lines = ["### Gates", "", f"**{self.word}**", "", *(f"- {line}" for line in (*self.lines, *self.top1))]
        if not self.passed:
            lines += ["", "What to try:", "", *(f"- {why}: `{command}`" for why, command in self.steps)]
        return lines

    @property
    def word(self) -> str:
        return "All gates passed." if self.passed else "A gate failed."


def summary(checked: Checked, bundle: Path, data: Path | None, moved: Path | None = None) -> Summary:
    """Sums up what :func:`lavit_edge.parity.check.check` found.

    Args:
        bundle: where it lies, or will lie, for the commands.
        data: the folder of labelled pictures, if there was one.
        moved: where the checkpoint had to be named.
    """
    reference = PROGRAM if checked.precision == "int8" else FLOAT
    lines = [f"{name}: its self-test failed" for name, passed in checked.selftest.items() if not passed]
    lines += checked.wrong_layers
    lines += [f"{failure} ({title})" for title, parity in checked.sets.items() for failure in parity.failures]
    if not lines:
        pictures = ", ".join(f"{parity.pictures} {title}" for title, parity in checked.sets.items())
        compared = ", ".join(checked.selftest)
        lines.append(f"self-test, every layer, and agreement on pictures ({pictures}): {compared}")
        lines += [line for parity in checked.sets.values() if (line := _closest(parity))][:1]
    top1 = [_top1(title, parity, reference) for title, parity in checked.sets.items()]
    steps = _steps(checked, bundle, data, f" --checkpoint {shlex.quote(str(moved))}" if moved else "")
    return Summary(checked.passed, tuple(lines), tuple(top1), tuple(steps))


def print_summary(found: Summary, console: Console) -> None:
    """The last lines of ``export`` and ``verify``."""
    console.print()
    console.print(found.word, style="bold green" if found.passed else "bold red")
    for line in (*found.lines, *found.top1):
        console.print(f"  {line}", highlight=False, soft_wrap=True)
    for why, command in found.steps:
        console.print(f"next, {why}:\n  {command}", highlight=False, soft_wrap=True)


def _closest(parity: Parity) -> str:
    """The artifact with the least to spare."""
    spare = [(noise.sqnr_db - noise.least_db, noise) for noise in parity.noise if math.isfinite(noise.sqnr_db)]
    if not spare:
        return ""
    decibels, noise = min(spare, key=lambda each: each[0])
    return f"the least to spare: {noise.artifact}, {noise.sqnr_db:.1f} dB, {decibels:.1f} more than wanted"


def _top1(title: str, parity: Parity, reference: str) -> str:
    """Top-1 of each form against fp32's; without labels, on how many pictures it is the program's."""
    artifacts = [noise.artifact for noise in parity.noise]
    if parity.labelled:
        first = 100 * parity.top1[FLOAT][0]
        forms = [name for name in (PROGRAM, *artifacts) if name in parity.top1]
        told = [f"{name} {100 * parity.top1[name][0]:.2f} ({100 * parity.top1[name][0] - first:+.2f})" for name in forms]
        return f"top-1 on {parity.pictures} pictures ({title}): fp32 {first:.2f} %, {', '.join(told)}"
    agreement = {name: parity.pair(name, reference).agreement for name in artifacts}
    other = {name: round((1 - share) * parity.pictures) for name, share in agreement.items()}
    changed = ", ".join(f"{name} on {count}" for name, count in other.items() if count)
    against = f"the {reference}'s" if reference == PROGRAM else "fp32's"
    return f"top-1 is {against} on all {parity.pictures} pictures ({title})" + (f", but for {changed}" if changed else "")


def _steps(checked: Checked, bundle: Path, data: Path | None, more: str) -> list[tuple[str, str]]:
    """What to do next, the most telling first."""
    folder, pictures = shlex.quote(str(bundle)), shlex.quote(str(data)) if data else "DATA"
    quantize = f"{QUANTIZE} --checkpoint {shlex.quote(_name(checked.source))} --data {pictures} --out NEW"
    if checked.passed:
        return [("see what it says to a picture", f"python -m lavit_edge.predict {folder} PICTURE")]
    steps = []
    for name in (name for name, passed in checked.selftest.items() if not passed):
        steps.append((f"what {name} fails in; then export it again", f"python -m lavit_edge.selftest {folder}/{name}"))
    wrong = [located.first for located in checked.layers if located.first]
    if wrong:
        layer = shlex.quote(wrong[0].layer)
        steps.append(("that layer and those behind it, one by one", f"{VERIFY} {folder}{more} --locate 8"))
        if checked.precision == "int8":
            steps.append(("leave that layer in float", f"{quantize} --float-layers {layer}"))
    noise = [each for parity in checked.sets.values() for each in parity.noise if not each.passed]
    if noise and not wrong:
        steps += _of_noise(noise, f"{VERIFY} {folder}{more}", pictures, quantize, checked)
    if any(dropped(parity, checked.gates) for parity in checked.sets.values()):
        steps += _of_program(
            checked.source, quantize, max(lost(parity) for parity in checked.sets.values()), checked.gates.max_drop
        )
    return steps


def _of_noise(noise: list[Noise], verify: str, pictures: str, quantize: str, checked: Checked) -> list[tuple[str, str]]:
    names = " and ".join(dict.fromkeys(each.artifact for each in noise))
    steps = [(f"in which layer {names} parts from its program", f"{verify} --locate")]
    if max(parity.pictures for parity in checked.sets.values()) < MANY:
        why = f"whether it is so on {MANY} pictures, too: a few may be unlucky"
        steps.append((why, f"{verify} --data {pictures} --pictures {MANY}"))
    if checked.precision == "int8":
        steps.append(("keep in float what rounds worst", f"{quantize} --max-drop {checked.gates.max_drop:g}"))
    return steps


def _of_program(checkpoint: Checkpoint, quantize: str, points: float, allowed: float) -> list[tuple[str, str]]:
    """What an int8 program that has lost top-1 has not had yet."""
    facts = checkpoint.config.get("quantization") or {}
    calibration, steps = len(facts.get("calibration") or ()), []
    if calibration < FEW_CALIBRATION:
        steps.append((f"calibrate on more than {calibration} pictures", f"{quantize} --calibration-pictures {FEW_CALIBRATION}"))
    if not facts.get("training"):
        steps.append(("train with int8's rounding (QAT)", f"{quantize} --epochs 1"))
    why = f"let {points:.2f} points become at most {allowed:g} by leaving layers in float"
    return [*steps, (why, f"{quantize} --max-drop {allowed:g}")]


def _name(checkpoint: Checkpoint) -> str:
    name = checkpoint.path.resolve().name
    return name if bundled_checkpoints().get(name) == checkpoint.path else str(checkpoint.path)
