"""Blocks that are called with other arguments, and the masks they get then."""

import pytest
import torch
from torch import nn

from mixlens.probing.blocks import causal, changed, picked, seen_of
from mixlens.probing.prefill import packing

LOWEST = torch.finfo(torch.float32).min
PRESENT = torch.tensor([[0, 1, 1, 1, 1], [1, 1, 0, 0, 1]])
CHOSEN = torch.tensor([[False, True, False, True, True], [True, False, False, False, True]])


def test_chosen_places_are_packed_to_the_right():
    index, exists = packing(CHOSEN)
    assert index[exists].tolist() == [1, 3, 4, 0, 4]
    assert exists.tolist() == [[True, True, True], [False, True, True]]
    nothing, there = packing(torch.zeros(2, 3, dtype=torch.bool))
    assert nothing.shape == there.shape == (2, 0)


@pytest.mark.parametrize("queries", [1, 3, 5])
def test_a_causal_mask_shows_what_is_there_and_not_ahead(queries: int):
    mask = causal(PRESENT, queries, torch.float32)
    assert mask.shape == (2, 1, queries, 5)
    for row in range(2):
        for query in range(queries):
            at = 5 - queries + query  # the last queries of the keys
            expected = [0.0 if key <= at and PRESENT[row, key] else LOWEST for key in range(5)]
            assert mask[row, 0, query].tolist() == expected
    assert causal(PRESENT, queries, torch.bfloat16).isfinite().all()


@pytest.mark.parametrize("boolean", [False, True])
def test_the_part_of_a_mask_between_places_is_that_of_the_whole(boolean: bool):
    """Whatever the mask: this one is not even causal."""
    sees = torch.rand(2, 1, 5, 5, generator=torch.manual_seed(0)) < 0.5
    mask = sees if boolean else torch.zeros(sees.shape).masked_fill(~sees, LOWEST)
    index, exists = packing(CHOSEN)
    part = seen_of(mask, index, exists, torch.float32)
    assert part.dtype == mask.dtype
    seen = part if boolean else part == 0
    assert boolean or set(part.unique().tolist()) == {0.0, LOWEST}
    for row in range(2):
        for query, at in enumerate(index[row].tolist()):
            for key, other in enumerate(index[row].tolist()):
                expected = sees[row, :, at, other] & exists[row, key]
                assert torch.equal(seen[row, :, query, key], expected)


def test_without_a_mask_the_places_see_back():
    index, exists = packing(CHOSEN)
    part = seen_of(None, index, exists, torch.float32)
    assert torch.equal(part, causal(exists, 3, torch.float32))


def test_states_are_picked_row_by_row_whatever_stands_before():
    states = torch.arange(60.0).view(2, 2, 5, 3)  # [planes, rows, seq, width]
    index = torch.tensor([[4, 1], [0, 0]])
    found = picked(states, index)
    assert found.shape == (2, 2, 2, 3)
    for plane in range(2):
        assert torch.equal(
            found[plane], torch.stack([states[plane, 0, [4, 1]], states[plane, 1, [0, 0]]])
        )
    assert torch.equal(picked(states[0], index), found[0])


def test_blocks_get_what_the_change_makes_of_a_call_and_only_inside():
    class Block(nn.Module):
        def forward(self, states, other, scale):
            return states * scale + other

    blocks, calls = [Block(), Block()], []

    def change(place, states, kwargs):
        calls.append((place, dict(kwargs)))
        return states + 100, {**kwargs, "scale": 10}

    with changed(blocks, change):
        assert [block(torch.ones(1), 5, scale=2).item() for block in blocks] == [1015, 1015]
    assert calls == [(0, {"scale": 2}), (1, {"scale": 2})]
    assert blocks[0](torch.ones(1), 5, scale=2).item() == 7
    with pytest.raises(ArithmeticError), changed(blocks, change):
        raise ArithmeticError
    assert blocks[1](torch.ones(1), 5, scale=2).item() == 7
