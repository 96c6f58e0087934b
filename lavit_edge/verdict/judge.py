"""From a plan and a profile to the verdict: shares, breaks, and whether int8 should be faster than float."""

from __future__ import annotations

import collections
import dataclasses
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from lavit_edge.verdict.plan import Op, Plan
from lavit_edge.verdict.rates import Profile, Rates

EQUAL = 0.07  # int8 within this of float's time is called about equal
WORTH = 0.03  # a change that saves less of the time is not advised


@dataclass(frozen=True)
class Group:
    """All operators of one name that run in one place. Shares are of the whole plan, 0 to 1."""

    name: str
    place: str
    calls: int
    macs: float
    traffic: float
    time: float


@dataclass(frozen=True)
class Verdict:
    """
    Attributes:
        precision: of the artifact, ``int8`` or ``float``.
        macs: multiply-adds of one picture.
        int8_macs, delegated_macs: share of them in int8 kernels, in the delegate (None where the runtime has none).
        breaks: how often execution leaves the delegate and enters it again; None where the runtime has no delegate.
        islands: how often execution leaves int8 products for float operators and comes back.
        island_kinds: what those islands consist of, most frequent first.
        memory_bound: share of the predicted time in operators that wait for memory and not for arithmetic.
        ratio: predicted time of int8 divided by that of float; for a float artifact, int8 is what the scheme would make of it.
        expectation: ``faster``, ``slower`` or ``about equal``.
        sentence: what to expect and what to change.
    """

    precision: str
    runtime: str
    device: str
    verified: bool
    macs: int
    int8_macs: float
    delegated_macs: float | None
    breaks: int | None
    islands: int
    island_kinds: dict[str, int]
    memory_bound: float
    ratio: float
    expectation: str
    sentence: str
    groups: list[Group]
    notes: list[str]

    def to_dict(self) -> dict[str, Any]:
        return dataclasses.asdict(self)


def judge(plan: Plan, profile: Profile) -> Verdict:
    """The verdict on a plan whose runtime the profile knows."""
    rates = profile.rates[plan.runtime]
    macs = sum(op.macs for op in plan.ops)
    as_int8, as_float = (plan, plan.as_float()) if plan.quantized else (plan.as_int8(), plan)
    ratio = total(as_int8, rates) / total(as_float, rates)
    expectation = "about equal" if abs(ratio - 1) <= EQUAL else "faster" if ratio < 1 else "slower"
    islands = plan.islands()
    kinds = collections.Counter(" + ".join(dict.fromkeys(op.name for op in island)) for island in islands)
    time = total(plan, rates)
    waiting = sum(seconds(op, rates) for op in plan.ops if compute(op, rates) < transfer(op, rates))
    notes = list(plan.notes)
    verified = profile.verified and rates.measured
    if not profile.verified:
        notes.append(f"Never compared with a measurement on {profile.title}.")
    elif not verified:
        notes.append(f"Never compared with a measurement in {plan.runtime}.")
    return Verdict(
        precision="int8" if plan.quantized else "float",
        runtime=plan.runtime,
        device=profile.name,
        verified=verified,
        macs=macs,
        int8_macs=_share(sum(op.macs for op in plan.ops if op.int8), macs),
        delegated_macs=_share(sum(op.macs for op in plan.ops if not op.outside), macs) if plan.delegated else None,
        breaks=max(plan.calls - 1, 0) if plan.delegated else None,
        islands=len(islands),
        island_kinds=dict(kinds.most_common()),
        memory_bound=waiting / time,
        ratio=ratio,
        expectation=expectation,
        sentence=_sentence(plan, rates, ratio, expectation),
        groups=_groups(plan, rates),
        notes=notes,
    )


def compute(op: Op, rates: Rates) -> float:
    """Seconds that the arithmetic of a product takes; 0 for all else."""
    if not op.macs:
        return 0.0
    if op.outside:
        rate = rates.outside_gmacs
    elif op.slow:
        rate = rates.slow_gmacs
    elif op.depthwise:
        rate = rates.depthwise_int8_gmacs if op.int8 else rates.depthwise_float_gmacs
    else:
        rate = rates.int8_gmacs if op.int8 else rates.float_gmacs
    return op.macs / rate / 1e9


def transfer(op: Op, rates: Rates) -> float:
    """Seconds that moving the data takes."""
    special = {"math": rates.math_gbytes, "convert": rates.convert_gbytes}
    return op.bytes / (rates.outside_gbytes if op.outside else special.get(op.kind, rates.gbytes)) / 1e9


def seconds(op: Op, rates: Rates) -> float:
    """A roofline: the longer of arithmetic and transfer, and what every operator costs."""
    return max(compute(op, rates), transfer(op, rates)) + rates.op_us / 1e6


def total(plan: Plan, rates: Rates) -> float:
    """Seconds for one picture, predicted. Only ratios of it are meant to be looked at."""
    return sum(seconds(op, rates) for op in plan.ops) + plan.calls * rates.call_us / 1e6


def _share(part: float, whole: float) -> float:
    return part / whole if whole else 0.0


def place(op: Op, plan: Plan) -> str:
    """Where an operator runs, in words."""
    if op.outside:
        return "outside the delegate"
    if op.kind in ("convert", "view", "move"):
        return {"convert": "float <-> int8", "view": "no work", "move": "data movement"}[op.kind]
    return "int8" if op.int8 else "float"


def _groups(plan: Plan, rates: Rates) -> list[Group]:
    """By predicted time, longest first."""
    members: dict[tuple[str, str], list[Op]] = collections.defaultdict(list)
    for op in plan.ops:
        members[op.name, place(op, plan)].append(op)
    macs, traffic, time = sum(op.macs for op in plan.ops), sum(op.bytes for op in plan.ops), total(plan, rates)
    groups = [
        Group(
            *key,
            len(ops),
            _share(sum(op.macs for op in ops), macs),
            _share(sum(op.bytes for op in ops), traffic),
            sum(seconds(op, rates) for op in ops) / time,
        )
        for key, ops in members.items()
    ]
    return sorted(groups, key=lambda group: -group.time)


def _sentence(plan: Plan, rates: Rates, ratio: float, expectation: str) -> str:
    what = "int8" if plan.quantized else "int8, made by the scheme of docs/int8.md,"
    opening = {
        "faster": f"Expect {what} to be faster than float, about {ratio:.2f} of its time",
        "slower": f"Expect {what} to be slower than float, about {ratio:.2f} times its time",
        "about equal": f"Expect {what} to be about as fast as float ({ratio:.2f} of its time)",
    }[expectation]
    return f"{opening}; {_advice(plan, rates)}."


def _advice(plan: Plan, rates: Rates) -> str:
    """The change that would save most of the artifact's predicted time."""
    time = total(plan, rates)
    ops = plan.ops

    def saved(changed: Callable[[Op], Op | None]) -> float:
        """Share of the time that goes when every operator is changed, or dropped where None is returned."""
        new = [changed(op) for op in ops]
        return 1 - (sum(seconds(op, rates) for op in new if op) + plan.calls * rates.call_us / 1e6) / time

    options: list[tuple[float, str]] = []  # share of the time, what to say; {} is that share
    slow = "{} of the time goes to slow int8 kernels: give them static uint8 activations"
    options.append((saved(lambda op: dataclasses.replace(op, slow=False)), slow))
    if outside := [op for op in ops if op.outside]:
        gain = saved(lambda op: dataclasses.replace(op, outside=False))
        gain += plan.calls * rates.call_us / 1e6 / time
        names = ", ".join(name for name, _ in collections.Counter(op.name for op in outside).most_common(3))
        options.append(
            (gain, f"the delegate leaves out {len(outside)} operators ({names}): inside it, {{}} of the time would go")
        )
    if plan.quantized:
        weights = [op for op in ops if op.has_weights and not op.int8]
        names = ", ".join(dict.fromkeys(op.name for op in weights))
        gain = saved(lambda op: dataclasses.replace(op, int8=True) if op in weights else op)
        options.append((gain, f"{len(weights)} products with weights ({names}) run in float: in int8, {{}} of the time would go"))
        count = sum(op.kind == "convert" for op in ops)
        gain = saved(lambda op: None if op.kind == "convert" else op)
        options.append(
            (gain, f"{count} conversions between float and int8 take {{}} of the time: keep neighbours in one precision")
        )
    gain, text = max(options)
    if gain >= WORTH:
        return text.format(f"{gain:.0%}")
    busiest = _groups(plan, rates)[0]
    return f"nothing in the file stands out: most time goes to {busiest.name} in {busiest.place}, {busiest.time:.0%}"
