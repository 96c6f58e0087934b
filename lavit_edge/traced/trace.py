"""From a module to a graph of ATen operators without side effects: what torch.export sees, or one line on why it sees nothing."""

from __future__ import annotations

import contextlib
import inspect
import io
from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, fx, nn
from torch._decomp import decomposition_table
from torch._ops import HigherOrderOperator
from torch.export import Dim, ExportedProgram

from lavit_edge.errors import UserError
from lavit_edge.toolchain import quiet
from lavit_edge.traced.nodes import SHAPE_OPS, Shapes, is_call

BATCH = 3  # pictures in the trace: none of the numbers that a model is made of, and torch.export takes 1 for a constant
ASIDE = frozenset(  # operators that do nothing in inference
    getattr(torch.ops.aten, name)
    for name in ("dropout", "feature_dropout", "alpha_dropout", "detach", "alias", "clone", "lift_fresh", "lift_fresh_copy")
)
SIMPLER = (  # what torch can write in simpler operators, and some back end cannot take
    "einsum tensordot inner addmm baddbmm addcmul addcdiv lerp rms_norm _fused_rms_norm linalg_vector_norm cosine_similarity "
    "pairwise_distance softplus mish celu log_sigmoid log_sigmoid_forward logit channel_shuffle native_channel_shuffle "
    "take_along_dim rot90 im2col __and__ __or__ __xor__"
)
COMPOSITE = tuple(getattr(torch.ops.aten, name) for name in SIMPLER.split())


def _max_of_cells(x: Tensor, size: Sequence[int]) -> tuple[Tensor, Tensor]:
    """``adaptive_max_pool2d``, without the indices that nobody reads here; ExecuTorch 1.5 has no kernel for it."""
    axes = list(zip(x.shape[-2:], size, strict=True))
    if all(side % cells == 0 for side, cells in axes):
        window = [side // cells for side, cells in axes]
        pooled = torch.ops.aten.max_pool2d.default(x, window, window)
    else:
        rows, columns = ([slice(i * side // n, -(-(i + 1) * side // n)) for i in range(n)] for side, n in axes)
        pooled = torch.stack([torch.stack([x[..., r, c].amax((2, 3)) for c in columns], -1) for r in rows], -2)
    return pooled, torch.zeros_like(pooled, dtype=torch.int64)


OWN = {torch.ops.aten.adaptive_max_pool2d.default: _max_of_cells}  # in simpler operators, as torch does not write them
VIEWS = (torch.ops.aten.view.default, torch.ops.aten._unsafe_view.default)
WRAPPERS = {"wrap_with_autocast": 4, "wrap_with_set_grad_enabled": 1}  # operators that run a graph, and their number of options


def check_module(module: nn.Module, size: int, classes: int) -> None:
    """Raises :class:`UserError` unless a module maps ``(B, 3, size, size)`` to ``(B, classes)`` logits."""
    name = type(module).__name__
    needed = [
        parameter.name
        for parameter in inspect.signature(module.forward).parameters.values()
        if parameter.default is parameter.empty and parameter.kind not in (parameter.VAR_POSITIONAL, parameter.VAR_KEYWORD)
    ]
    if len(needed) > 1:
        raise UserError(f"{name} takes {len(needed)} inputs ({', '.join(needed)}); only modules of one, the picture, are adapted")
    try:
        with torch.no_grad():
            logits = module(torch.zeros(BATCH, 3, size, size))
    except Exception as error:  # it is anybody's code
        raise UserError(f"{name} refuses pictures of {size} x {size} pixels ({type(error).__name__}: {error})") from error
    if not isinstance(logits, Tensor):
        kind = f"{type(logits).__name__} of {len(logits)}" if hasattr(logits, "__len__") else type(logits).__name__
        raise UserError(f"{name} gives a {kind}, not logits; wrap it in a module that gives the (B, classes) tensor alone")
    if logits.dim() != 2 or len(logits) != BATCH or not logits.is_floating_point():
        raise UserError(f"{name} gives {tuple(logits.shape)} {logits.dtype} for {BATCH} pictures, not (B, classes) logits")
    if logits.shape[1] != classes:
        raise UserError(f"{name} gives {logits.shape[1]} logits, but the contract has {classes} labels; each logit needs one")


def trace(module: nn.Module, size: int) -> fx.GraphModule:
    """The operators of a module in eval mode, for ``(B, 3, size, size)`` of any batch; parameters keep their names.

    Raises:
        UserError: torch.export cannot trace it, as where control flow depends on the picture, or it has complex numbers.
    """
    name, dynamic = type(module).__name__, ({0: Dim("batch", min=1)},)
    fast = torch.backends.mha.get_fastpath_enabled()
    torch.backends.mha.set_fastpath_enabled(False)  # one operator that no back end knows
    try:
        with torch.no_grad(), quiet(), contextlib.redirect_stderr(io.StringIO()):  # where it fails, torch prints the graph so far
            program = torch.export.export(module, (torch.zeros(BATCH, 3, size, size),), dynamic_shapes=dynamic)
            graph_module = functional(program)
    except UserError:
        raise
    except Exception as error:  # a dozen kinds, most of them without a common base
        first = next(iter(str(error).strip().splitlines()), "")  # 20 lines of advice on torch's insides follow
        reason = f"{type(error).__name__}: {first}"
        raise UserError(
            f"{name} cannot be traced; control flow must not depend on the picture or the batch ({reason})"
        ) from error
    finally:
        torch.backends.mha.set_fastpath_enabled(fast)
    graph_module.graph.set_codegen(fx.graph.CodeGen())
    (output,) = (node for node in graph_module.graph.nodes if node.op == "output")
    output.args = (output.args[0][0] if isinstance(output.args[0], list | tuple) else output.args[0],)
    graph_module.recompile()
    annotate(graph_module, size)
    for node in graph_module.graph.nodes:
        if isinstance(value := node.meta["val"], Tensor) and value.is_complex():
            raise UserError(f"{name} computes with complex numbers ({node.name}), which no format here has")
    return graph_module


def annotate(graph_module: fx.GraphModule, size: int) -> None:
    """Notes the shapes of all nodes, see :class:`Shapes`."""
    with torch.no_grad():
        Shapes(graph_module).run(torch.zeros(BATCH, 3, size, size))


def functional(program: ExportedProgram) -> fx.GraphModule:
    """A program's operators with none that writes into its input, and none that does nothing.

    Only a value that nobody else reads is overwritten in nearly all models, as by ``ReLU(inplace=True)``: there the operator
    becomes the one that gives a new value. torch's own functionalisation, for the rest, takes as long as the trace again.

    Some operators become products and sums, which are layers where their weights are stored: ``einsum`` has none that a back end
    could take as int8, and of RMSNorm coremltools 9.0 and XNNPACK make something that does not run.
    """
    inline_regions(program.graph_module)
    graph, parts = program.graph, {}
    if any(is_call(node, *COMPOSITE, *OWN) for node in graph.nodes):
        tables = (torch.export.default_decompositions(), decomposition_table)
        overloads = (getattr(packet, name) for packet in COMPOSITE for name in packet.overloads())
        parts = {each: table[each] for each in overloads for table in tables if each in table} | OWN
    if parts or not all(_overwrites_its_own(node) for node in graph.nodes if _writes(node)):
        program = program.run_decompositions(parts)
        graph = program.graph
    for node in list(graph.nodes):
        if _writes(node):
            packet = getattr(torch.ops.aten, node.target._schema.name.removeprefix("aten::").removesuffix("_"))
            node.target = getattr(packet, node.target._overloadname)
        elif is_call(node, *ASIDE) or _takes_all(node) or _keeps_type(node):
            node.replace_all_uses_with(node.args[0])
            graph.erase_node(node)
        elif node.target in VIEWS:  # of what a copy that is no more had laid out
            node.target = torch.ops.aten.reshape.default
    module = program.module(check_guards=False)
    assert isinstance(module, fx.GraphModule)
    return module


def inline_regions(graph_module: fx.GraphModule) -> None:
    """What ``autocast`` and ``enable_grad`` wrap becomes part of the graph around it, as neither changes what is computed: an
    autocast that is off, as around EfficientViT's attention, or one of another device.

    Raises:
        UserError: an autocast that is on.
        ValueError: an operator with another graph inside, as ``torch.cond``.
    """
    for node in list(graph_module.graph.nodes):
        if not isinstance(node.target, HigherOrderOperator):
            continue
        if (name := node.target.name()) not in WRAPPERS:
            raise ValueError(f"torch.{name}")
        options, (inner, *operands) = node.args[: WRAPPERS[name]], node.args[WRAPPERS[name] :]
        if name == "wrap_with_autocast" and options[0] == "cpu" and options[2]:
            raise UserError(f"the model turns autocast to {options[1]} on; turn it off: int8 is made of a model in float32")
        region = graph_module.get_submodule(str(inner.target))
        assert isinstance(region, fx.GraphModule)
        inline_regions(region)
        takes = (each for each in region.graph.nodes if each.op == "placeholder")
        values = dict(zip(takes, operands, strict=True))
        with graph_module.graph.inserting_before(node):
            given: Any = graph_module.graph.graph_copy(region.graph, values)
        for user in list(node.users):
            user.replace_all_uses_with(given[user.args[1]])
            graph_module.graph.erase_node(user)
        graph_module.graph.erase_node(node)
        graph_module.graph.erase_node(inner)
    graph_module.recompile()


def _takes_all(node: fx.Node) -> bool:
    """Whether it is a slice of everything, as the first of ``x[:, 0]`` is: ExecuTorch drops it, and counts calls without it."""
    if not is_call(node, torch.ops.aten.slice):
        return False
    before, after = (tuple(map(str, each.meta["val"].shape)) for each in (node.args[0], node))  # type: ignore[union-attr]
    return before == after


def _keeps_type(node: fx.Node) -> bool:
    """Whether it turns float32 into float32."""
    if not is_call(node, torch.ops.aten.to, torch.ops.aten._to_copy, torch.ops.aten.type_as):
        return False
    return node.meta["val"].dtype == node.args[0].meta["val"].dtype  # type: ignore[union-attr]


def _writes(node: fx.Node) -> bool:
    schema: Any = getattr(node.target, "_schema", None)
    return node.op == "call_function" and schema is not None and schema.is_mutable


def _overwrites_its_own(node: fx.Node) -> bool:
    """Whether an operator writes into a value that no other reads and that is no view, and has a counterpart that does not."""
    name, source = node.target._schema.name, node.args[0]  # type: ignore[union-attr]
    if not name.startswith("aten::") or not name.endswith("_") or not hasattr(torch.ops.aten, name[6:-1]):
        return False
    if not isinstance(source, fx.Node) or source.op != "call_function" or len(source.users) > 1 or is_call(source, *SHAPE_OPS):
        return False
    schema: Any = getattr(source.target, "_schema", None)
    return schema is not None and (schema.is_mutable or not any(value.alias_info for value in schema.returns))
