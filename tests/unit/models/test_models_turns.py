"""Rows of several turns and several images, position by position."""

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from mixlens.models.turns import Item, TurnTokens, count_tokens, items_a_row, pack

LENGTHS = st.lists(st.integers(1, 400), min_size=1, max_size=24)


def item(shared: list[int], *turns: TurnTokens, both_ways: tuple[int, ...] = (), axes=None) -> Item:
    """An item whose shared tokens at the places `both_ways` see each other both ways."""
    positions = [list(range(len(shared)))] if axes is None else axes
    seen = torch.zeros(len(shared), dtype=torch.bool)
    seen[list(both_ways)] = True
    return Item(torch.tensor(shared, dtype=torch.long), torch.tensor(positions), seen, turns)


FIRST = item([1, 2], TurnTokens([5, 6], [-100, 6]), TurnTokens([7], [7]))
SECOND = item([1, 2, 3], TurnTokens([8], [8]))
NO_IMAGE = Item(
    torch.zeros(0, dtype=torch.long),
    torch.zeros(1, 0, dtype=torch.long),
    torch.zeros(0, dtype=torch.bool),
    [TurnTokens([9, 4], [-100, 4]), TurnTokens([3], [3])],
)
ROWS = pack([FIRST, SECOND], 1, pad_id=0)
SHARED_ROW = pack([FIRST, SECOND], 2, pad_id=0)


def test_rows_hold_shared_tokens_then_turns_then_padding():
    assert ROWS.input_ids.tolist() == [[1, 2, 5, 6, 7], [1, 2, 3, 8, 0]]
    assert ROWS.labels.tolist() == [[-100, -100, -100, 6, 7], [-100, -100, -100, 8, -100]]
    assert ROWS.item.tolist() == [[0, 0, 0, 0, 0], [1, 1, 1, 1, -1]]
    assert ROWS.turn.tolist() == [[0, 0, 1, 1, 2], [0, 0, 0, 1, -1]]


def test_every_turn_goes_on_from_the_image():
    assert ROWS.position_ids.tolist() == [[[0, 1, 2, 3, 2], [0, 1, 2, 3, 0]]]


def test_a_position_looks_at_the_shared_tokens_and_back_in_its_own_turn():
    assert ROWS.sees.dtype == torch.bool
    seen = ROWS.sees.int().tolist()
    assert seen[0] == [
        [1, 0, 0, 0, 0],
        [1, 1, 0, 0, 0],
        [1, 1, 1, 0, 0],
        [1, 1, 1, 1, 0],
        [1, 1, 0, 0, 1],
    ]
    assert any(seen[1][4])  # padding sees something, so that no softmax is empty
    assert all(row[4] == 0 for row in seen[1])  # and nothing sees padding


def test_items_of_one_row_begin_anew_and_do_not_see_each_other():
    assert SHARED_ROW.input_ids.tolist() == [[1, 2, 5, 6, 7, 1, 2, 3, 8]]
    assert SHARED_ROW.labels.tolist() == [[-100, -100, -100, 6, 7, -100, -100, -100, 8]]
    assert SHARED_ROW.position_ids.tolist() == [[[0, 1, 2, 3, 2, 0, 1, 2, 3]]]
    assert SHARED_ROW.item.tolist() == [[0, 0, 0, 0, 0, 1, 1, 1, 1]]
    assert SHARED_ROW.turn.tolist() == [[0, 0, 1, 1, 2, 0, 0, 0, 1]]
    (seen,) = SHARED_ROW.sees
    # What each sees of its own is what it sees in a row of its own, and there is nothing else.
    assert torch.equal(seen[:5, :5], ROWS.sees[0])
    assert torch.equal(seen[5:, 5:], ROWS.sees[1, :4, :4])
    assert not seen[:5, 5:].any()
    assert not seen[5:, :5].any()


def test_items_without_an_image_are_turns_that_begin_at_zero():
    rows = pack([NO_IMAGE, FIRST], 2, pad_id=0)
    assert rows.input_ids.tolist() == [[9, 4, 3, 1, 2, 5, 6, 7]]
    assert rows.position_ids.tolist() == [[[0, 1, 0, 0, 1, 2, 3, 2]]]
    assert rows.turn.tolist() == [[1, 1, 2, 0, 0, 1, 1, 2]]
    assert rows.sees[0, :3].int().tolist() == [
        [1, 0, 0, 0, 0, 0, 0, 0],
        [1, 1, 0, 0, 0, 0, 0, 0],
        [0, 0, 1, 0, 0, 0, 0, 0],
    ]


def test_an_item_without_turns_is_only_shown():
    rows = pack([item([1, 2]), FIRST], 2, pad_id=0)
    assert rows.input_ids.tolist() == [[1, 2, 1, 2, 5, 6, 7]]
    assert (rows.labels[0, :4] == -100).all()


def test_tokens_of_an_image_see_each_other_both_ways_where_they_should():
    both = [
        item([1, 9, 9, 2], TurnTokens([5], [5]), both_ways=(1, 2)),
        item([9, 9], TurnTokens([6], [6]), both_ways=(0, 1)),
    ]
    rows = pack(both, 2, pad_id=0)
    assert rows.both_ways.int().tolist() == [[0, 1, 1, 0, 0, 1, 1, 0]]
    assert rows.sees[0].int().tolist() == [
        [1, 0, 0, 0, 0, 0, 0, 0],
        [1, 1, 1, 0, 0, 0, 0, 0],
        [1, 1, 1, 0, 0, 0, 0, 0],
        [1, 1, 1, 1, 0, 0, 0, 0],
        [1, 1, 1, 1, 1, 0, 0, 0],
        [0, 0, 0, 0, 0, 1, 1, 0],
        [0, 0, 0, 0, 0, 1, 1, 0],
        [0, 0, 0, 0, 0, 1, 1, 1],
    ]


def test_text_goes_on_from_the_largest_position_in_every_axis():
    """As in Qwen-VL: time stands still within an image, while height and width run."""
    image = [[0, 1, 1, 1, 1, 3], [0, 1, 1, 2, 2, 3], [0, 1, 2, 1, 4, 3]]
    first = item([1, 9, 9, 9, 9, 2], TurnTokens([5, 6], [5, 6]), TurnTokens([7], [7]), axes=image)
    second = item([1, 9], TurnTokens([8], [8]), axes=[[0, 1]] * 3)
    rows = pack([first, second], 2, pad_id=0)
    assert rows.position_ids.tolist() == [[[*plane, 5, 6, 5, 0, 1, 2]] for plane in image]
    assert rows.input_ids.tolist() == [[1, 9, 9, 9, 9, 2, 5, 6, 7, 1, 9, 8]]


@settings(max_examples=50, deadline=None)
@given(LENGTHS, st.data())
def test_every_position_sees_what_its_conversation_shows_alone(lengths, data):
    """Whatever the rows: turn by turn as in a plain conversation of the image and this turn."""
    items = []
    for length in lengths[:6]:
        shared = [1] * (length % 4)
        turns = [
            TurnTokens(ids, ids)
            for ids in data.draw(st.lists(st.lists(st.just(7), min_size=1, max_size=3), max_size=3))
        ]
        items.append(item(shared, *turns, axes=[list(range(len(shared)))]))
    if not any(map(len, items)):
        return
    each = data.draw(st.sampled_from([n for n in range(1, 7) if len(items) % n == 0]))
    rows = pack(items, each, pad_id=0)
    assert rows.input_ids.shape[0] == len(items) // each
    assert int((rows.item >= 0).sum()) == sum(map(len, items))
    for row, query in (rows.item >= 0).nonzero().tolist():
        expected = [
            key
            for key in range(query + 1)
            if rows.item[row, key] == rows.item[row, query]
            and rows.turn[row, key] in (0, rows.turn[row, query])
        ]
        assert rows.sees[row, query].nonzero()[:, 0].tolist() == expected


def operations(lengths: list[int], each: int, width: int) -> int:
    """Of one block: 12 width^2 weights and the scores and sums of attention, a product twice."""
    rows = [sum(lengths[first : first + each]) for first in range(0, len(lengths), each)]
    positions, seq = len(rows) * max(rows), max(rows)
    return positions * (2 * 12 * width**2 + 2 * 2 * width * seq)


@given(LENGTHS, st.sampled_from([32, 128, 1024, 4096]))
def test_so_many_items_share_a_row_that_there_is_least_to_compute(lengths, width):
    each = items_a_row(lengths, width)
    assert len(lengths) % each == 0  # all rows get equally many
    divisors = [n for n in range(1, len(lengths) + 1) if len(lengths) % n == 0]
    least = min(operations(lengths, n, width) for n in divisors)
    assert operations(lengths, each, width) <= least * (1 + 1e-9)


@pytest.mark.parametrize(
    ("lengths", "width", "each"),
    [
        ([50], 128, 1),
        ([50, 50, 50], 128, 1),
        ([100, 100], 4096, 1),  # nothing to gain: as few as there can be
        ([100, 90], 4096, 2),  # in a wide decoder padding costs more than longer rows do
        ([100, 90], 32, 1),  # in a narrow one the longer rows do
        ([100, 10, 10, 100], 4096, 2),
        ([10, 10, 100, 100], 4096, 4),
        ([100, 1, 1, 1, 1], 4096, 5),  # five are prime: each alone, or all in one row
        ([100, 1, 1, 1, 1], 32, 5),
    ],
)
def test_items_a_row(lengths: list[int], width: int, each: int):
    assert items_a_row(lengths, width) == each


def test_tokens_are_counted_in_both_kinds_of_mask():
    assert count_tokens(ROWS.sees[:, None]) == 9
    assert count_tokens(SHARED_ROW.sees[:, None]) == 9
    assert count_tokens(torch.tensor([[1, 1, 0], [1, 1, 1]])) == 5
