"""``python -m lavit_edge.selftest``: an artifact tests itself: its bytes, its payload, its preprocessing, its logits.

Needs the artifact and its runtime and nothing else (no torch for ``.onnx``, ``.ort`` and ``.tflite``).

Exit codes: 0 passed; 1 a check failed; 2 a mistake that one line on stderr explains; 130 interrupted.

The module can be called: it is :func:`selftest`.
"""

from __future__ import annotations

import argparse
import importlib.util
import json
import sys
import types
from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np

from lavit_edge.artifact.payload import Golden, Payload, read_payload, sample_of
from lavit_edge.artifact.runners import SUFFIXES, Runner, open_artifact, read_entries
from lavit_edge.artifact.seal import check_seal
from lavit_edge.cli import Parser, run_command
from lavit_edge.contract.answers import probabilities as probabilities_of
from lavit_edge.contract.pictures import to_input
from lavit_edge.errors import UserError, one_line
from lavit_edge.metrics import centred
from lavit_edge.verbs import verb

verb(__name__)

PROBABILITY = 0.002  # that a softmax in fp16 may be off: 2^-11 of a probability, and as much of what it is computed from
GREY_LEVELS = 1  # antialiased bicubic of PIL, the reference, and of torch are at most that far apart


@dataclass(frozen=True)
class Check:
    """What was checked, whether it passed, and what was found."""

    name: str
    passed: bool
    found: str


@dataclass(frozen=True)
class Selftest:
    """The checks in order; those behind a failed one that they rest on are left out."""

    artifact: str
    digest: str | None
    provenance: dict[str, Any] | None
    checks: tuple[Check, ...]

    @property
    def passed(self) -> bool:
        return all(check.passed for check in self.checks)


def selftest(artifact: Path | str) -> Selftest:
    """Tests an artifact: the command ``python -m lavit_edge.selftest``.

    The bytes come first: a damaged file never reaches the runtime's own parser.

    Raises:
        UserError: no such artifact, its runtime is not installed, or the runtime refuses it.
    """
    path = Path(artifact)
    if path.suffix not in SUFFIXES or not path.exists():
        raise UserError(f"{path} is not an artifact: {' or '.join((', '.join(SUFFIXES[:-1]), SUFFIXES[-1]))} that exists")
    checks: list[Check] = []
    try:
        digest = check_seal(path)
        checks.append(Check("bytes", True, f"SHA-256 {digest[:16]}..."))
    except UserError as error:
        return Selftest(str(path), None, None, (Check("bytes", False, str(error)),))
    try:
        payload = read_payload(read_entries(path))
        checks.append(Check("payload", True, _summary(payload)))
    except UserError as error:
        return Selftest(str(path), digest, None, (*checks, Check("payload", False, str(error))))
    checks += check_pictures(open_artifact(path, threads=1), payload)
    if path.suffix == ".mlpackage":
        checks.append(check_outputs(path, payload))
    return Selftest(str(path), digest, payload.provenance, tuple(checks))


def check_pictures(run: Runner, payload: Payload) -> list[Check]:
    """Every check of what the model answers, and of the preprocessing before it: two for each golden picture, and one of all."""
    checks, answers = [], []
    for golden in payload.golden:
        found, logits = check_golden(golden, run, payload)
        checks += found
        answers.append(logits)
    return [*checks, check_close(answers, payload)]


def check_golden(golden: Golden, run: Runner, payload: Payload) -> tuple[list[Check], np.ndarray]:
    """Preprocessing and logits of one golden picture, and the logits that ``run`` gave."""
    picture = to_input(golden.image(), payload.contract)
    logits = run(picture)
    return [check_input(golden, picture), check_logits(golden, logits, payload)], logits


def check_input(golden: Golden, picture: np.ndarray) -> Check:
    """Compares 256 pixels of the preprocessed picture with what the exporter had there."""
    difference = np.abs(sample_of(picture).astype(int) - golden.sample)
    worst = int(difference.max())
    row, column, channel = np.unravel_index(difference.argmax(), difference.shape)
    found = f"at most {worst} of 255 off"
    if worst > GREY_LEVELS:
        at = [(2 * int(i) + 1) * len(picture) // 32 for i in (row, column)]
        found += f" (row {at[0]}, column {at[1]}, {'RGB'[channel]}), {GREY_LEVELS} allowed: resizing or channel order differs"
    return Check(f"{golden.name}: preprocessing", worst <= GREY_LEVELS, found)


def check_logits(golden: Golden, logits: np.ndarray, payload: Payload) -> Check:
    """Compares the artifact's logits, less their mean, with those of the program that it was made from; and its first label,
    where the program's leads by more than the tolerance."""
    name, labels = f"{golden.name}: logits", payload.contract.labels
    steps = steps_off(golden, logits, payload)
    if steps is None:
        return Check(name, False, f"shape {logits.shape} for {len(golden.logits)} labels, or values that are not finite")
    worst = float(steps.max())
    found = f"at most {worst:.2f} steps off, {golden.tolerance:g} allowed"
    if not worst <= golden.tolerance:
        return Check(name, False, f"{found}: label {labels[int(steps.argmax())]!r} differs most")
    first, expected = int(logits.argmax()), int(golden.logits.argmax())
    lead = (float(golden.logits[expected]) - float(golden.logits[first])) / payload.step
    if lead > golden.tolerance:
        return Check(name, False, f"{found}: label {labels[first]!r} is first, not {labels[expected]!r} by {lead:.2f} steps")
    return Check(name, True, found)


def check_close(answers: list[np.ndarray], payload: Payload) -> Check:
    """Whether enough golden pictures are answered as the program answers them; see :attr:`Payload.close_pictures`."""
    steps = [steps_off(golden, logits, payload) for golden, logits in zip(payload.golden, answers, strict=True)]
    close = sum(off is not None and bool(off.max() <= payload.close_steps) for off in steps)
    found = f"{close} of {len(steps)} pictures within {payload.close_steps:g} steps, {payload.close_pictures} needed"
    return Check("close pictures", close >= payload.close_pictures, found)


def check_outputs(path: Path, payload: Payload) -> Check:
    """Whether an ``.mlpackage`` names labels as its contract does: Vision shows label and probabilities, not logits."""
    from lavit_edge.artifact.mlprogram import MLProgram

    program, labels = MLProgram(path), payload.contract.labels
    outputs = program.predict({"image": to_input(payload.golden[0].image(), payload.contract)})
    named = {feature.kind: outputs[name] for name, feature in program.outputs.items() if name != "logits"}
    logits = centred(np.asarray(outputs["logits"]).reshape(-1))
    expected = probabilities_of(logits, payload.contract)
    probabilities = named.get("probabilities")
    if not isinstance(probabilities, dict) or tuple(probabilities) != labels:
        return Check("labels", False, "its classes are not the contract's labels in their order")
    off = float(np.abs(np.array([probabilities[label] for label in labels]) - expected).max())
    if not off <= PROBABILITY:
        return Check("labels", False, f"its probabilities are up to {off:.3f} from those of its logits, {PROBABILITY} allowed")
    if named.get("label") != labels[int(logits.argmax())]:
        return Check("labels", False, f"its label is {named.get('label')!r}, its largest logit {labels[int(logits.argmax())]!r}")
    return Check("labels", True, "classes and probabilities are those of the contract and the logits")


def steps_off(golden: Golden, logits: np.ndarray, payload: Payload) -> np.ndarray | None:
    """How far each logit is off, both less their mean; None unless there is one finite logit per label."""
    if logits.shape != golden.logits.shape or not np.isfinite(logits).all():
        return None
    steps: np.ndarray = np.abs(centred(logits) - centred(golden.logits)) / payload.step
    return steps


def _summary(payload: Payload) -> str:
    made = payload.provenance.get("checkpoint")
    name = made.get("name") if isinstance(made, dict) else None
    return f"{name}, {len(payload.contract.labels)} labels, {len(payload.golden)} golden pictures"


def parser() -> argparse.ArgumentParser:
    p = Parser(prog="lavit_edge.selftest", description="Let an artifact test itself on the golden pictures that it carries.")
    p.add_argument("artifact", type=Path, help=f"{', '.join(SUFFIXES)}, one that python -m lavit_edge.export wrote")
    p.add_argument("--json", action="store_true", help="print the result as JSON")
    return p


def main(argv: list[str] | None = None) -> int:
    args = parser().parse_args(argv)
    result = selftest(args.artifact)
    if args.json:
        print(json.dumps({**asdict(result), "passed": result.passed}, indent=1))
    else:
        print_selftest(result, print)
    return 0 if result.passed else 1


def print_selftest(result: Selftest, line: Callable[[str], object]) -> None:
    """The checks, a line each, and the verdict. Without Rich, which an app's environment does not have."""
    line(one_line(result.artifact))
    names = [one_line(check.name) for check in result.checks]  # a file's pictures and labels may be called anything
    for name, check in zip(names, result.checks, strict=True):
        line(f"  {name:<{max(map(len, names))}}  {'pass' if check.passed else 'FAIL'}  {one_line(check.found)}")
    line("self-test passed" if result.passed else "self-test failed")


def leave_out_what_reading_needs_not(*arguments: str) -> None:
    """Imports that cost seconds and are of no use in reading an artifact; only for a process of its own, which then lacks them.

    coremltools imports ExecuTorch, torchao and scikit-learn where they are installed: 2.2 of an ``.mlpackage``'s 7 seconds.
    ExecuTorch's runtime takes one decorator from ``executorch.exir``, whose ``__init__`` imports the whole exporter: 4 of a
    ``.pte``'s 5.6 seconds. A module of that name with its path, and nothing run, serves.
    """
    for argument in arguments:
        if argument.rstrip("/").endswith(".mlpackage"):
            sys.modules |= dict.fromkeys(("executorch", "torchao", "sklearn"))  # type: ignore[arg-type]
        elif argument.endswith(".pte") and importlib.util.find_spec("executorch"):
            found = importlib.util.find_spec("executorch.exir")
            if found and found.submodule_search_locations:
                exir = types.ModuleType(found.name)
                exir.__path__ = list(found.submodule_search_locations)
                sys.modules[found.name] = exir


if __name__ == "__main__":
    leave_out_what_reading_needs_not(*sys.argv[1:])
    run_command(main)
