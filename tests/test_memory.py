"""What glibc keeps of freed memory."""

from __future__ import annotations

import platform
import resource

import pytest
import torch

from lavit_edge.memory import keep_freed

MIB = 64


def pages_of_a_tensor() -> int:
    """That the kernel must find for a large tensor where a larger one was freed."""
    torch.ones(MIB + 1, 2**18)
    before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
    torch.ones(MIB, 2**18)
    return resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before


@pytest.mark.skipif(platform.libc_ver()[0] != "glibc", reason="another C library is left alone")
def test_freed_memory_is_kept_in_the_block_alone() -> None:
    pages = MIB * 2**20 // resource.getpagesize()
    with keep_freed():
        assert pages_of_a_tensor() < pages // 100
    assert pages_of_a_tensor() > pages // 1000  # huge pages of the kernel are 512 of these
    with pytest.raises(ValueError), keep_freed():
        raise ValueError
    assert pages_of_a_tensor() > pages // 1000
