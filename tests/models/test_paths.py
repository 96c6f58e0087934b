"""Parts of a model by module path."""

from __future__ import annotations

from lavit_edge.models.paths import block_of, part_of


def test_a_block_is_a_transformer_block_or_a_part_of_a_stage() -> None:
    assert block_of("stages.0.blocks.1.attention.query") == "stages.0.blocks.1"
    assert block_of("stages.10.blocks.12") == "stages.10.blocks.12"
    assert block_of("stages.2.embedding.norm") == "stages.2.embedding"
    assert block_of("blocks.3.ffn.expand") == "blocks.3"
    assert block_of("head") == "head"
    assert block_of("") == ""


def test_a_part_is_that_of_a_block_or_the_part_of_a_stage() -> None:
    assert part_of("stages.0.blocks.1.attention.query") == "stages.0.blocks.1.attention"
    assert part_of("stages.0.blocks.1") == "stages.0.blocks.1"
    assert part_of("stages.2.embedding.norm") == "stages.2.embedding"
    assert part_of("head") == "head"
