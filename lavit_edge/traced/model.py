"""Any module that maps pictures to logits, as the rest of the package takes a model."""

from __future__ import annotations

import copy
import difflib
import fnmatch
import inspect
from collections import Counter
from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor, fx, nn

from lavit_edge import metrics
from lavit_edge.errors import UserError, one_line
from lavit_edge.traced.additions import additions_as_modules, ends, is_layer
from lavit_edge.traced.attention import attention_in_three_axes, masks_as_numbers
from lavit_edge.traced.layers import convolutions_of_one_axis_as_of_two, fold_constants, layers_as_modules, products_as_layers
from lavit_edge.traced.norms import fold_batch_norms, fold_scales
from lavit_edge.traced.trace import BATCH, annotate, check_module, trace

SAME = 60.0  # dB between logits of a module and of its traced form; folding batch norms leaves 110 to 140
FORMS = ("fuse", "reparameterize", "switch_to_deploy")  # methods that make the inference form of one part of a model


class TracedModule(fx.GraphModule):
    """The inference form of a module: layers and int8 additions are modules, all else ATen operators.

    Attributes:
        float_layers: paths or shell patterns of the layers that stay float unless a checkpoint says otherwise.
        notes: what was done to the module, and what could not be done, a line each.
    """

    float_layers: tuple[str, ...] = ()
    notes: tuple[str, ...] = ()

    def __deepcopy__(self, memo: dict[int, Any]) -> TracedModule:
        copied: TracedModule = super().__deepcopy__(memo)  # type: ignore[assignment]
        copied.float_layers, copied.notes = self.float_layers, self.notes
        return copied


class Adapted(nn.Module):
    """A module of anybody's, in eval mode; its ``state_dict`` is the module's own.

    Maps normalised ``(B, 3, size, size)`` to ``(B, classes)`` logits.

    Args:
        module: is used as it is, not copied.
        float_layers: shell patterns of the layers that stay float; None: the first embedding and the head, which are the layers
            that no other comes before or behind in order of execution.
    """

    def __init__(self, module: nn.Module, size: int, classes: int, float_layers: Sequence[str] | None = None) -> None:
        super().__init__()
        self.module, self.size, self.classes = module.eval(), size, classes
        self._traced: list[TracedModule] = []  # none yet; in a list it is no part of this module
        self.patterns = None if float_layers is None else tuple(float_layers)

    def forward(self, x: Tensor) -> Tensor:
        return self.module(x)

    def state_dict(self, *args: Any, **options: Any) -> Any:
        """The module's, so that its weights can be read back where it came from."""
        return self.module.state_dict(*args, **options)

    def load_state_dict(self, *args: Any, **options: Any) -> Any:
        return self.module.load_state_dict(*args, **options)

    def deploy(self) -> TracedModule:
        """A copy in inference form, see :class:`TracedModule`.

        Raises:
            UserError: the module does not map pictures to logits, or cannot be traced.
        """
        if not self._traced:  # once: what is adapted does not train
            self._traced.append(self._trace())
        return copy.deepcopy(self._traced[0])

    def _trace(self) -> TracedModule:
        check_module(self.module, self.size, self.classes)
        notes: list[str] = []
        picture = torch.randn(BATCH, 3, self.size, self.size, generator=torch.Generator().manual_seed(0))
        with torch.no_grad():
            logits = self.module(picture)

        def same(other: Callable[[Tensor], Tensor]) -> float:
            with torch.no_grad():
                return metrics.sqnr(logits.numpy(), other(picture).numpy())

        name = type(self.module).__name__
        if (decibels := same(self.module)) < SAME:
            raise UserError(f"{name} gives a picture other logits from call to call ({decibels:.0f} dB apart): state, or chance?")
        if (decibels := same(lambda pictures: torch.cat([self.module(each[None]) for each in pictures]))) < SAME:
            raise UserError(f"{name} gives a picture other logits alone than beside others ({decibels:.0f} dB apart)")

        module = inference_form(self.module, same, notes)
        graph_module = trace(module, self.size)
        masks_as_numbers(graph_module)
        convolutions_of_one_axis_as_of_two(graph_module)
        fold_constants(graph_module)
        products_as_layers(graph_module)
        graph_module = layers_as_modules(graph_module)
        notes += fold_batch_norms(graph_module)
        attention_in_three_axes(graph_module)
        notes += fold_scales(graph_module)
        graph_module.recompile()
        annotate(graph_module, self.size)
        first, last = ends(graph_module)
        if not first:
            raise UserError(f"{name} has no linear map or convolution with stored weights to quantise")
        patterns = self.patterns if self.patterns is not None else tuple(dict.fromkeys([*first, *last]))
        check_patterns(patterns, [str(node.target) for node in graph_module.graph.nodes if is_layer(graph_module, node)])
        additions_as_modules(graph_module, patterns)
        traced = TracedModule(graph_module, graph_module.graph).eval().requires_grad_()
        traced.float_layers, traced.notes = tuple(patterns), tuple(notes)
        if (decibels := same(traced)) < SAME:
            raise UserError(
                f"the traced form of {name} gives other logits than the module ({decibels:.0f} dB, {SAME:.0f} wanted)"
            )
        return traced


def check_patterns(patterns: Sequence[str], layers: list[str]) -> None:
    """Raises :class:`UserError` for a pattern that matches none of the layers."""
    for pattern in patterns:
        if not fnmatch.filter(layers, pattern):
            near = difflib.get_close_matches(pattern, layers, n=1, cutoff=0.3) or layers[:1]
            raise UserError(f"float layer {pattern!r}: no such layer; one is called {near[0]}")


def inference_form(module: nn.Module, same: Callable[[nn.Module], float], notes: list[str]) -> nn.Module:
    """The module as its own or its parts' methods say: ``deploy()``, or ``fuse``, ``reparameterize``, ``switch_to_deploy``.

    A form with other logits is not used, and the notes say so.

    Args:
        same: decibels between the module's logits and another one's.
    """
    own = getattr(module, "deploy", None)
    try:
        other = copy.deepcopy(module).eval()
        if callable(own):
            result = other.deploy()  # type: ignore[operator]
            other, done = result if isinstance(result, nn.Module) else other, Counter({"deploy": 1})
        else:
            other, done = _with_parts(other)
        if not done:
            return module
        methods = ", ".join(f"{name}() of {count}" for name, count in done.items())
        if (decibels := same(other)) < SAME:
            raise ValueError(f"its logits are {decibels:.0f} dB from the module's")
    except Exception as error:  # the methods are anybody's code
        notes.append(one_line(f"not re-parameterised: {type(error).__name__}: {error}"))
        return module
    notes.append(f"re-parameterised by {methods} part{'s' if sum(done.values()) > 1 else ''} of the module")
    return other


def _with_parts(module: nn.Module) -> tuple[nn.Module, Counter[str]]:
    """The module with each part, the outermost first, in the form that its first method of :data:`FORMS` makes, in place."""
    done: Counter[str] = Counter()
    for name in FORMS:
        method = getattr(module, name, None)
        if callable(method) and not _needs_arguments(method):
            result = method()
            module = result if isinstance(result, nn.Module) else module
            done[name] += 1
            break
    for name, child in list(module.named_children()):
        new, found = _with_parts(child)
        setattr(module, name, new)
        done += found
    return module, done


def _needs_arguments(method: Callable) -> bool:
    parameters = inspect.signature(method).parameters.values()
    return any(p.default is p.empty and p.kind not in (p.VAR_POSITIONAL, p.VAR_KEYWORD) for p in parameters)
