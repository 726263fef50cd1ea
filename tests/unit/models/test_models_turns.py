import torch

from mixlens.models.turns import TurnTokens, count_tokens, pack

ROWS = pack(
    [[1, 2], [1, 2, 3]],
    [[TurnTokens([5, 6], [-100, 6]), TurnTokens([7], [7])], [TurnTokens([8], [8])]],
    pad_id=0,
)


def test_rows_hold_shared_tokens_then_turns_then_padding():
    assert ROWS["input_ids"].tolist() == [[1, 2, 5, 6, 7], [1, 2, 3, 8, 0]]
    assert ROWS["labels"].tolist() == [[-100, -100, -100, 6, 7], [-100, -100, -100, 8, -100]]


def test_every_turn_goes_on_from_the_image():
    assert ROWS["position_ids"].tolist() == [[0, 1, 2, 3, 2], [0, 1, 2, 3, 0]]


def test_a_position_looks_at_the_shared_tokens_and_back_in_its_own_turn():
    seen = (ROWS["attention_mask"][:, 0] == 0).int().tolist()
    assert seen[0] == [
        [1, 0, 0, 0, 0],
        [1, 1, 0, 0, 0],
        [1, 1, 1, 0, 0],
        [1, 1, 1, 1, 0],
        [1, 1, 0, 0, 1],
    ]
    assert seen[1][4] == [1, 1, 1, 0, 0]  # padding sees something, so that no softmax is empty
    assert all(row[4] == 0 for row in seen[1])  # and nothing sees padding
    assert bool(torch.isfinite(ROWS["attention_mask"]).all())


def test_tokens_are_counted_in_both_kinds_of_mask():
    assert count_tokens(ROWS["attention_mask"]) == 9
    assert count_tokens(torch.tensor([[1, 1, 0], [1, 1, 1]])) == 5
