"""Whether a device computes in bfloat16, or only pretends to."""

from __future__ import annotations

from functools import cache

import torch


@cache
def quick_in_bf16(kind: str) -> bool:
    """Of ``torch.device.type``: all of CUDA is; a CPU where there is oneDNN (not in wheels for macOS), and has kernels for it.

    On an AMD EPYC with AVX2 alone a training step of ``lavit_mobile_s`` (32 pictures of 128 pixels, one thread) took 4.4 s in
    bf16 and 0.30 s in fp32, a matrix product ten times as long: such a CPU converts each number.
    """
    if kind != "cpu":
        return True
    return torch.backends.mkldnn.is_available() and bool(torch.ops.mkldnn._is_mkldnn_bf16_supported())
