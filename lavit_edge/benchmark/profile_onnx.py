"""Times of the operators of an ``.onnx`` or ``.ort``, by ONNX Runtime's own profiler."""

from __future__ import annotations

import collections
import json
import math
import re
import tempfile
from pathlib import Path
from typing import Any

import numpy as np

from lavit_edge.artifact.runners import onnx_session
from lavit_edge.benchmark.blocks import onnx_block
from lavit_edge.benchmark.timing import TimedOp, Times, faster_half, timed
from lavit_edge.errors import UserError
from lavit_edge.verdict.plan import Array, Op, Plan, kind_of

BLOCKED = "_nchwc"  # ending of the names of convolutions that it moved to a layout as wide as the vectors
WIDTHS = {"double": 8, "int64": 8, "uint64": 8, "float16": 2, "bfloat16": 2, "int8": 1, "uint8": 1, "bool": 1}


def time_operators(path: Path, plan: Plan, threads: int, calls: int) -> Times:
    """
    Args:
        path: an ``.onnx`` or ``.ort``; its inputs may have any names.
        plan: what the verdict reads in it.

    Raises:
        UserError: not installed, damaged, or of inputs other than one float32 tensor of known size.
    """
    with tempfile.TemporaryDirectory() as folder:
        plain = onnx_session(path, threads)
        observed = onnx_session(path, threads, enable_profiling=True, profile_file_prefix=str(Path(folder) / "profile"))
        inputs = _inputs(plain, path)
        whole, profiled = timed([lambda: plain.run(None, inputs), lambda: observed.run(None, inputs)], threads, calls)
        events = json.loads(Path(observed.end_profiling()).read_text("utf-8"))
    nodes = [event for event in events if event.get("cat") == "Node" and event["name"].endswith("_kernel_time")]
    each = len(nodes) // (calls + 1)
    times = [
        faster_half([node["dur"] / 1e3 for node in nodes[each + index :: each]]) for index in range(each)
    ]  # the first warms up
    # the profiler describes every node's inputs and outputs within the time that it measures
    itself = min(times, default=0.0)
    known = _by_name(plan)
    ops, block = [], "model"
    for index in range(each):
        args, label = nodes[index]["args"], nodes[index]["name"].removesuffix("_kernel_time")
        found = known.get(_stable(label))
        block = onnx_block(array.name for array in found.reads if array.constant) or block if found else block
        op = found if found and found.macs else _from_event(args)
        ops.append(TimedOp(args["op_name"], label, block, op, times[index] - itself))
    note = f"Of each operator {1e3 * itself:.1f} us are taken off: what the quickest one took, which is the profiler's own work."
    return Times(whole, profiled, ops, [note])


def kernel_totals(path: Path, calls: int = 30) -> dict[str, tuple[float, int]]:
    """Operator type -> milliseconds and calls per picture at 1 thread, most first."""
    members: dict[str, list[float]] = collections.defaultdict(list)
    for op in time_operators(path, Plan("ONNX Runtime", ()), 1, calls).ops:
        members[op.name].append(op.ms)
    return {name: (sum(ms), len(ms)) for name, ms in sorted(members.items(), key=lambda item: -sum(item[1]))}


def _inputs(session: Any, path: Path) -> dict[str, np.ndarray]:
    """Noise in the shape of the one input; a symbolic batch is 1."""
    found = session.get_inputs()
    shape = (
        [1 if index == 0 and not isinstance(size, int) else size for index, size in enumerate(found[0].shape)] if found else []
    )
    if len(found) != 1 or found[0].type != "tensor(float)" or not all(isinstance(size, int) for size in shape):
        raise UserError(f"{path} must take one float32 tensor of known size to be profiled; export it again")
    return {found[0].name: np.random.default_rng(0).uniform(0, 255, shape).astype(np.float32)}


def _by_name(plan: Plan) -> dict[str, Op]:
    """The plan's operators by what they write and by the name of the node, which comes first, where only one has that name."""
    names = [(array.name, op) for op in plan.ops for array in op.writes] + [(op.label, op) for op in plan.ops]
    labels = collections.Counter(_stable(op.label) for op in plan.ops)
    return {_stable(name): op for name, op in names if labels[_stable(name)] <= 1}


def _stable(name: str) -> str:
    """A name as it is in every session: without the numbers that ONNX Runtime makes up, and in any layout."""
    return re.sub(r"_token_\d+$", "", name).removesuffix(BLOCKED)


def _from_event(args: dict[str, Any]) -> Op:
    """An operator that the verdict's graph does not have, such as a change of layout."""
    reads, writes = (
        tuple(Array(math.prod(shape), WIDTHS.get(kind, 4)) for value in args.get(key, ()) for kind, shape in value.items())
        for key in ("input_type_shape", "output_type_shape")
    )
    return Op(args["op_name"], kind_of(args["op_name"]), reads, writes)
