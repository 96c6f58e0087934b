"""ExecuTorch: a ``.pte`` that runs in the XNNPACK delegate, or in the Core ML delegate (made ahead of time, on Linux too)."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch
from torch import fx
from torch.export import ExportedProgram
from torch.fx.passes.infra.pass_base import PassResult

from lavit_edge.artifact.payload import Payload
from lavit_edge.artifact.seal import seal
from lavit_edge.export.targets import ExecutorchOptions, check_fit
from lavit_edge.files import staged
from lavit_edge.toolchain import converting, quiet, toolchain


def export(program: ExportedProgram, payload: Payload, path: Path, options: ExecutorchOptions) -> None:
    """Writes the ``.pte``.

    Its method ``forward`` maps float32 ``(1, 3, size, size)`` RGB in 0..255 to logits ``(1, classes)``. The entries of the
    payload are methods that take nothing: text is returned as a string, ``golden`` as a uint8 tensor.

    Raises as :meth:`lavit_edge.export.targets.Target.export`.
    """
    check_fit(program, payload.contract, path, ".pte")
    lowered = lower(program, options, payload)
    with staged(path) as temporary, quiet():
        temporary.write_bytes(lowered.to_executorch().buffer)
        seal(temporary)


def lower(program: ExportedProgram, options: ExecutorchOptions, payload: Payload | None = None) -> Any:
    """The ``EdgeProgramManager`` with all that the delegate takes handed over to it."""
    with toolchain("ExecuTorch", "executorch"):
        from executorch.exir import to_edge_transform_and_lower
    entries = payload.entries() if payload else {}
    methods = {
        name: value if isinstance(value, str) else torch.frombuffer(bytearray(value), dtype=torch.uint8)
        for name, value in entries.items()
    }
    partitioner = new_partitioner(options)
    repairs = None if options.backend == "coreml" else [softmax_in_three_dimensions, one_grid]
    with converting("ExecuTorch"):
        return to_edge_transform_and_lower(program, repairs, partitioner=[partitioner], constant_methods=methods)


def softmax_in_three_dimensions(module: fx.GraphModule) -> PassResult:
    """A pass over ExecuTorch's edge dialect: a softmax of ``(B, H, N, M)`` over its last axis is taken of ``(B H, N, M)``.

    XNNPACK's delegate hands a four-dimensional value on with its channels last once a convolution has made it, and takes the
    softmax over what lies last: of ``(B, H, N, M)`` over the heads, without a word. Attention whose heads are mixed by a
    convolution was up to 0.16 off. Of 28 operators behind a convolution it was the only one that was wrong.
    """
    from executorch.exir.dialects._ops import ops

    softmax, view = ops.edge.aten._softmax.default, ops.edge.aten.view_copy.default
    graph, modified = module.graph, False
    for node in graph.find_nodes(op="call_function", target=softmax):
        value, (scores, axis, half_to_float) = node.meta["val"], node.args
        if value.ndim != 4 or axis % 4 != 3:
            continue
        flat = value.flatten(0, 1)
        with graph.inserting_before(node):
            before = graph.call_function(view, (scores, list(flat.shape)))
        with graph.inserting_after(node):
            after = graph.call_function(view, (node, list(value.shape)))
        before.meta, after.meta = {**node.meta, "val": flat}, dict(node.meta)
        node.replace_all_uses_with(after, delete_user_cb=lambda user, after=after: user is not after)
        node.args, node.meta["val"] = (before, 2, half_to_float), flat
        modified = True
    module.recompile()
    return PassResult(module, modified)


def one_grid(module: fx.GraphModule) -> PassResult:
    """A pass over ExecuTorch's edge dialect: what is concatenated, or pooled by its maximum, is on the grid of the result before.

    XNNPACK's delegate takes both as int8 whatever the grids of what they read, and its runtime refuses the file where one is
    another than the result's. Neither computes anything, so that the values are the same.
    """
    from executorch.exir.dialects._ops import ops

    quantize, dequantize = (
        getattr(ops.edge.quantized_decomposed, name).default for name in ("quantize_per_tensor", "dequantize_per_tensor")
    )
    graph, modified = module.graph, False
    for node in list(graph.nodes):
        users = list(node.users)
        moves = node.target in (ops.edge.aten.cat.default, ops.edge.aten.max_pool2d.default)
        if not moves or [user.target for user in users] != [quantize]:
            continue
        grid = users[0].args[1:]
        for source in node.all_input_nodes:
            if source.target != dequantize or source.args[1:] == grid:
                continue
            with graph.inserting_after(source):
                codes = graph.call_function(quantize, (source, *grid))
            with graph.inserting_after(codes):
                value = graph.call_function(dequantize, (codes, *grid))
            codes.meta, value.meta = {**source.meta, "val": source.meta["val"].to(torch.int8)}, dict(source.meta)
            node.replace_input_with(source, value)
            modified = True
    module.recompile()
    return PassResult(module, modified)


def undelegated(lowered: Any) -> dict[str, int]:
    """Operator -> calls left outside the delegate, most frequent first. They run in ExecuTorch's own single-threaded kernels."""
    with toolchain("ExecuTorch", "executorch"):
        from executorch.devtools.backend_debug import get_delegation_info
    operators = get_delegation_info(lowered.exported_program().graph_module).delegation_by_operator.items()
    counts = {name: calls.non_delegated for name, calls in operators if calls.non_delegated and name != "getitem"}
    return dict(sorted(counts.items(), key=lambda item: -item[1]))


def new_partitioner(options: ExecutorchOptions) -> Any:
    """What tells which operators the delegate takes. Raises :class:`UserError` where its toolchain is missing."""
    return _coreml() if options.backend == "coreml" else _xnnpack()


def _xnnpack() -> Any:
    with toolchain("ExecuTorch", "executorch"):
        from executorch.backends.xnnpack.partition.xnnpack_partitioner import XnnpackPartitioner
    return XnnpackPartitioner()


def _coreml() -> Any:
    """The same precision and deployment target as the ``.mlpackage``."""
    with toolchain("ExecuTorch's Core ML delegate", "executorch,coreml"):
        import coremltools as ct
        from executorch.backends.apple.coreml.compiler import CoreMLBackend
        from executorch.backends.apple.coreml.partition import CoreMLPartitioner
    specs = CoreMLBackend.generate_compile_specs(
        minimum_deployment_target=ct.target.iOS17, compute_precision=ct.precision.FLOAT16
    )
    return CoreMLPartitioner(compile_specs=specs)
