"""The figures of a verdict, from plans written by hand."""

from __future__ import annotations

import pytest

from lavit_edge.verdict.judge import judge, seconds, total
from lavit_edge.verdict.plan import Array, Op, Plan, kind_of
from lavit_edge.verdict.rates import PROFILES, Profile, Rates

# 1e9 of everything a second, so that seconds can be counted in one's head
RATES = Rates(
    float_gmacs=1,
    int8_gmacs=4,
    slow_gmacs=0.5,
    depthwise_float_gmacs=1,
    depthwise_int8_gmacs=1,
    gbytes=1,
    convert_gbytes=1,
    math_gbytes=0.5,
    outside_gbytes=0.25,
    outside_gmacs=0.1,
    op_us=0,
    call_us=0,
)
PROFILE = Profile("paper", "a machine on paper", False, {"ONNX Runtime": RATES, "ExecuTorch": RATES})
M = 1_000_000
FLOATS, CODES = Array(M, 4), Array(M, 1)
WEIGHTS, INT8_WEIGHTS = Array(M, 4, constant=True), Array(M, 1, constant=True)


def product(int8: bool, macs: int = 100 * M, slow: bool = False) -> Op:
    data, weights = (CODES, INT8_WEIGHTS) if int8 else (FLOATS, WEIGHTS)
    return Op("MatMul", "product", (data, weights), (data,), macs, int8, slow=slow)


QUANTISE = Op("QuantizeLinear", "convert", (FLOATS,), (CODES,))
DEQUANTISE = Op("DequantizeLinear", "convert", (CODES,), (FLOATS,))
GELU = Op("Gelu", "math", (FLOATS,), (FLOATS,))
TRANSPOSE = Op("Transpose", "move", (CODES,), (CODES,), int8=True)


def plan(*ops: Op) -> Plan:
    return Plan("ONNX Runtime", ops)


def test_an_operator_takes_the_longer_of_arithmetic_and_transfer() -> None:
    assert seconds(product(int8=False), RATES) == pytest.approx(0.100)  # 100 M multiply-adds
    assert seconds(product(int8=True), RATES) == pytest.approx(0.025)
    assert seconds(product(int8=False, macs=M), RATES) == pytest.approx(0.012)  # 12 MB
    assert seconds(product(int8=True, slow=True), RATES) == pytest.approx(0.200)
    assert seconds(GELU, RATES) == pytest.approx(0.016)  # 8 MB at half the speed
    assert seconds(QUANTISE, RATES) == pytest.approx(0.005)
    assert seconds(Op("native_layer_norm", "math", (FLOATS,), (FLOATS,), outside=True), RATES) == pytest.approx(0.032)
    assert seconds(Op("Reshape", "view", (FLOATS,), (FLOATS,)), RATES) == 0


def test_the_ratio_is_that_of_the_plan_to_its_float_form() -> None:
    int8 = plan(QUANTISE, product(True), TRANSPOSE, DEQUANTISE, GELU, QUANTISE, product(True), DEQUANTISE)
    # 4 conversions, 2 products, a transpose of 2 MB, a GELU
    assert total(int8, RATES) == pytest.approx(4 * 0.005 + 2 * 0.025 + 0.002 + 0.016)
    # nothing converted, products at a quarter of the speed, a transpose of 8 MB
    assert total(int8.as_float(), RATES) == pytest.approx(2 * 0.100 + 0.008 + 0.016)
    verdict = judge(int8, PROFILE)
    assert verdict.ratio == pytest.approx(0.088 / 0.224)
    assert verdict.expectation == "faster"
    assert verdict.int8_macs == 1
    assert verdict.islands == 1
    assert verdict.island_kinds == {"Gelu": 1}
    assert verdict.memory_bound == pytest.approx((4 * 0.005 + 0.002 + 0.016) / 0.088)
    assert "never compared" in verdict.notes[0].lower()


def test_a_float_plan_is_judged_by_what_the_scheme_would_make_of_it() -> None:
    verdict = judge(plan(product(False), GELU), PROFILE)
    assert verdict.precision == "float"
    assert verdict.int8_macs == 0
    assert verdict.ratio == pytest.approx((0.005 + 0.025 + 0.005 + 0.016) / 0.116)


def test_many_thin_int8_layers_between_float_ones_are_slower() -> None:
    thin = (QUANTISE, product(True, M), DEQUANTISE, GELU)
    verdict = judge(plan(*thin * 5), PROFILE)
    # 5 + 3 + 5 + 16 against 12 + 16
    assert verdict.ratio == pytest.approx(29 / 28)
    assert verdict.expectation == "about equal"
    assert verdict.islands == 4
    assert "10 conversions between float and int8 take 34%" in verdict.sentence


@pytest.mark.parametrize(
    ("ops", "says"),
    [
        ([product(True, slow=True)], "static uint8 activations"),
        ([product(True), product(False, macs=1000 * M)], "1 products with weights (MatMul) run in float"),
        ([product(True), product(True)], "nothing in the file stands out"),
    ],
)
def test_the_costliest_thing_that_can_be_changed_is_named(ops: list[Op], says: str) -> None:
    assert says in judge(plan(*ops), PROFILE).sentence


def test_operators_outside_the_delegate_are_named_and_breaks_counted() -> None:
    norm = Op("native_layer_norm", "math", (FLOATS,), (FLOATS,), outside=True)
    verdict = judge(Plan("ExecuTorch", (product(False), norm, product(False)), True, calls=2), PROFILE)
    assert verdict.breaks == 1
    assert verdict.delegated_macs == 1
    assert "leaves out 1 operators (native_layer_norm)" in verdict.sentence
    group = next(group for group in verdict.groups if group.name == "native_layer_norm")
    assert (group.place, group.calls, group.traffic) == ("outside the delegate", 1, pytest.approx(8 / 32))


def test_slow_products_cost_what_they_cost_on_x86_alone() -> None:
    slow = Plan("ONNX Runtime", (product(True, slow=True),))
    assert judge(slow, PROFILES["x86-vnni"]).expectation == "slower"
    assert judge(slow, PROFILES["arm64-dotprod"]).expectation == "faster"


def test_operators_have_kinds() -> None:
    kinds = [
        kind_of(name) for name in ("XNNConvert"[3:], "QuantizeLinear", "Softmax", "layer_norm", "Concatenate4", "Add", "Reshape")
    ]
    assert kinds == ["convert", "convert", "math", "math", "move", "simple", "view"]
