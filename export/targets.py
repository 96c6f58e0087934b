"""The export targets as data: what each is called, where its code is, what it needs and which options it takes.

Nothing here imports a toolchain; a target's module does, and only once it is asked to export.
"""

from __future__ import annotations

import dataclasses
import difflib
import importlib
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, get_args, get_type_hints

from lavit_edge.artifact.payload import Payload
from lavit_edge.contract import InputContract
from lavit_edge.errors import UserError

if TYPE_CHECKING:
    from torch.export import ExportedProgram


@dataclass(frozen=True)
class Options:
    """Base of the targets' options: every field is a ``Literal`` of strings, checked when an instance is made."""

    @property
    def computes_in(self) -> str:
        """``float32`` or ``float16``, what the target computes float values in."""
        return "float32"

    def __post_init__(self) -> None:
        for name, allowed in choices(type(self)).items():
            if getattr(self, name) not in allowed:
                raise UserError(
                    f"{name} must be {_one_of(allowed)}, not {getattr(self, name)!r}{_near(getattr(self, name), allowed)}"
                )


@dataclass(frozen=True)
class ExecutorchOptions(Options):
    """
    Attributes:
        backend: the delegate that runs the graph. ``xnnpack`` runs on any CPU; ``coreml`` on Apple devices alone.
    """

    backend: Literal["xnnpack", "coreml"] = "xnnpack"

    @property
    def computes_in(self) -> str:
        return "float16" if self.backend == "coreml" else "float32"


@dataclass(frozen=True)
class CoremlOptions(Options):
    """Core ML has nothing to choose: the deployment target, the precision and the outputs are part of what is promised."""

    @property
    def computes_in(self) -> str:
        return "float16"


@dataclass(frozen=True)
class OnnxOptions(Options):
    """ONNX has nothing to choose: the ``.ort`` beside the ``.onnx`` is the same for every machine."""


@dataclass(frozen=True)
class LitertOptions(Options):
    """LiteRT has nothing to choose: one ``.tflite`` for its CPU kernels and its delegates."""


@dataclass(frozen=True)
class CoreaiOptions(Options):
    """Core AI has nothing to choose: iOS 27 and macOS 27 are the first that have it, and its values are fp32."""


@dataclass(frozen=True)
class Target:
    """
    Attributes:
        name: as given to ``--target``.
        module: holds ``export(program, payload, path, options)``.
        extra: of the package; installs the toolchain.
        suffix: of the artifact.
        options: its options' dataclass.
        apart: made only when it is named: its toolchain needs an environment of its own, or checking its artifact costs much.
    """

    name: str
    module: str
    extra: str
    suffix: str
    options: type[Options]
    apart: bool = False

    def make_options(self, **values: Any) -> Options:
        """This target's options. Raises :class:`UserError` on an option, or a value of an option, that it does not have."""
        known = tuple(choices(self.options))
        for name in values:
            if name not in known:
                has = f"it has {_one_of(known)}" if known else "it has none"
                raise UserError(f"target {self.name!r} has no option {name!r}; {has}")
        return self.options(**values)

    def export(self, program: ExportedProgram, payload: Payload, path: Path, options: Options | None = None) -> None:
        """Writes the artifact of a float or an int8 program to ``path``, whole or not at all.

        Args:
            program: float32 ``(1, 3, size, size)`` RGB in 0..255 -> logits ``(1, classes)``.
            payload: what the artifact carries to test itself.
            path: its suffix must be :attr:`suffix`; what was there is replaced.

        Raises:
            UserError: the toolchain is not installed, the path cannot be written, or program and contract do not fit each other.
        """
        importlib.import_module(self.module).export(program, payload, path, options or self.options())


TARGETS: dict[str, Target] = {
    target.name: target
    for target in (
        Target("executorch", "lavit_edge.export.executorch", "executorch", ".pte", ExecutorchOptions),
        Target("coreml", "lavit_edge.export.coreml", "coreml", ".mlpackage", CoremlOptions),
        Target("onnx", "lavit_edge.export.onnx", "onnx", ".onnx", OnnxOptions),
        Target("litert", "lavit_edge.export.litert", "litert", ".tflite", LitertOptions, apart=True),
        # its runtime takes a second a picture: 50 pictures would keep the first command of the README waiting for minutes
        Target("coreai", "lavit_edge.export.coreai", "coreai", ".aimodel", CoreaiOptions, apart=True),
    )
}
ALL = tuple(name for name, target in TARGETS.items() if not target.apart)  # what is exported when no target is named


def find_target(name: str) -> Target:
    """The target of that name. Raises :class:`UserError`, with the nearest name, when there is none."""
    if name not in TARGETS:
        raise UserError(f"unknown target {name!r}{_near(name, tuple(TARGETS))}; targets: {', '.join(TARGETS)}")
    return TARGETS[name]


def choices(options: type[Options]) -> dict[str, tuple[str, ...]]:
    """Option name -> the values that it takes."""
    hints = get_type_hints(options)
    return {field.name: get_args(hints[field.name]) for field in dataclasses.fields(options)}


def _one_of(names: tuple[str, ...]) -> str:
    return " or ".join(filter(None, (", ".join(names[:-1]), names[-1])))


def _near(name: object, known: tuple[str, ...]) -> str:
    near = difflib.get_close_matches(str(name), known, n=1)
    return f" (did you mean {near[0]!r}?)" if near else ""


def check_fit(program: ExportedProgram, contract: InputContract, path: Path, suffix: str) -> None:
    """Raises :class:`UserError` unless the program maps the contract's picture to a logit per label, and the suffix is right."""
    if path.suffix != suffix:
        raise UserError(f"{path.name!r} must end in {suffix}")
    shapes = [tuple(node.meta["val"].shape) for node in program.graph.nodes if node.op == "placeholder"][-1:]
    shapes += [tuple(value.meta["val"].shape) for value in program.graph.output_node().args[0]]
    wanted = [(1, 3, contract.size, contract.size), (1, len(contract.labels))]
    if shapes != wanted:
        raise UserError(f"the program maps {shapes[0]} to {shapes[1:]}, but its contract says {wanted[0]} to {wanted[1]}")
