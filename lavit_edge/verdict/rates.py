"""What a machine and a runtime reach on one thread, as data. docs/verdict.md says where each number is from."""

from __future__ import annotations

import dataclasses
import platform
from dataclasses import dataclass


@dataclass(frozen=True)
class Rates:
    """
    Attributes:
        float_gmacs, int8_gmacs: 1e9 multiply-adds a second of matrix products and convolutions.
        slow_gmacs: of ONNX Runtime's ConvInteger, and of its int8 products with int8 activations, where it wants uint8 ones.
        depthwise_float_gmacs, depthwise_int8_gmacs: of convolutions with one input channel per filter.
        gbytes: 1e9 bytes a second, read and written, where data is copied or added.
        convert_gbytes: of conversions between float and int8.
        math_gbytes: of softmax, LayerNorm, GELU and the like.
        outside_gbytes, outside_gmacs: of all that a delegate leaves to the runtime's own kernels.
        op_us: microseconds that every operator costs, however small.
        call_us: microseconds that every delegate call costs.
        measured: in this runtime; else they are another's.
    """

    float_gmacs: float
    int8_gmacs: float
    slow_gmacs: float
    depthwise_float_gmacs: float
    depthwise_int8_gmacs: float
    gbytes: float
    convert_gbytes: float
    math_gbytes: float
    outside_gbytes: float
    outside_gmacs: float
    op_us: float
    call_us: float
    measured: bool = True


@dataclass(frozen=True)
class Profile:
    """
    Attributes:
        name: as ``--target-device`` takes it.
        title: of the machine.
        verified: whether predictions were compared with measurements on it.
        rates: by the runtime's name.
    """

    name: str
    title: str
    verified: bool
    rates: dict[str, Rates]


_EXECUTORCH = Rates(
    float_gmacs=136,
    int8_gmacs=411,
    slow_gmacs=411,
    depthwise_float_gmacs=36,
    depthwise_int8_gmacs=33,
    gbytes=86,
    convert_gbytes=181,
    math_gbytes=39,
    outside_gbytes=6.9,
    outside_gmacs=1.6,
    op_us=0.19,
    call_us=0.39,
)
_ONNXRUNTIME = Rates(
    float_gmacs=123,
    int8_gmacs=278,
    slow_gmacs=22,
    depthwise_float_gmacs=54,
    depthwise_int8_gmacs=45,
    gbytes=82,
    convert_gbytes=92,
    math_gbytes=24,
    outside_gbytes=82,
    outside_gmacs=123,
    op_us=0.34,
    call_us=0,
)
_LITERT = dataclasses.replace(_EXECUTORCH, measured=False)  # XNNPACK is what computes in both


def _arm(rates: Rates, int8_over_float: float) -> Rates:
    """The x86 numbers with another gain of int8 instructions; products keep the share of their peak that they reach on x86.

    Only relations between numbers matter for the ratio of int8 to float, so that none of them is scaled to a clock rate.
    """
    gain = int8_over_float / X86_PEAK_RATIO
    return dataclasses.replace(rates, int8_gmacs=rates.int8_gmacs * gain, slow_gmacs=rates.int8_gmacs * gain)


X86_PEAK_RATIO = 4.0  # AVX512-VNNI: 64 int8 multiply-adds in the place of 16 of float
_ANE = Rates(
    float_gmacs=9000,
    int8_gmacs=16900,
    slow_gmacs=16900,
    depthwise_float_gmacs=9000,
    depthwise_int8_gmacs=16900,
    gbytes=85,
    convert_gbytes=85,
    math_gbytes=85,
    outside_gbytes=85,
    outside_gmacs=9000,
    op_us=0,
    call_us=230,
)

PROFILES: dict[str, Profile] = {
    profile.name: profile
    for profile in (
        Profile(
            "x86-vnni",
            "x86-64 with AVX512-VNNI",
            True,
            {"ExecuTorch": _EXECUTORCH, "ONNX Runtime": _ONNXRUNTIME, "LiteRT": _LITERT},
        ),
        Profile(
            "arm64-dotprod",
            "64-bit ARM with SDOT",
            False,
            {"ExecuTorch": _arm(_EXECUTORCH, 4), "ONNX Runtime": _arm(_ONNXRUNTIME, 4), "LiteRT": _arm(_LITERT, 4)},
        ),
        Profile(
            "arm64-i8mm",
            "64-bit ARM with SMMLA",
            False,
            {"ExecuTorch": _arm(_EXECUTORCH, 8), "ONNX Runtime": _arm(_ONNXRUNTIME, 8), "LiteRT": _arm(_LITERT, 8)},
        ),
        Profile("apple-ane", "Apple's Neural Engine", False, {"Core ML": _ANE, "Core AI": _ANE}),
    )
}


def default_profile(core_ml: bool) -> Profile:
    """The Neural Engine for Core ML, and this machine's kind for all else."""
    here = "x86-vnni" if platform.machine().lower() in ("x86_64", "amd64") else "arm64-dotprod"
    return PROFILES["apple-ane" if core_ml else here]
