"""Which part of a model a module is in, by its path: ``stages.1.blocks.0.attention.query``."""

from __future__ import annotations

import re

BLOCK = re.compile(r"stages\.\d+(?:\.blocks\.\d+|\.[^.]+)?|blocks\.\d+|[^.]+")


def block_of(path: str) -> str:
    """``stages.0.blocks.1`` of what is in a block, else the part of stage or model: ``stages.1.embedding``, ``head``."""
    match = BLOCK.match(path)
    return match[0] if match else path


def part_of(path: str) -> str:
    """As :func:`block_of`, but of what is in a block the block's part: ``stages.0.blocks.1.attention``."""
    block = block_of(path)
    part = re.match(r"\.([^.]+)", path.removeprefix(block)) if "blocks." in block else None
    return f"{block}.{part[1]}" if part else block
