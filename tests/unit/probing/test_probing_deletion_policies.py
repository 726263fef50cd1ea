"""Policies and budgets against closed forms and plain loops."""

import io

import numpy as np
import pytest
import torch
from PIL import Image

from mixlens.probing.policies import (
    keep_highest,
    leverage_scores,
    norm_scores,
    random_scores,
    tokens_to_keep,
    unique_scores,
)
from mixlens.probing.saliency import budgets, saliency


@pytest.fixture
def states():
    return torch.randn(3, 12, 20, generator=torch.Generator().manual_seed(1))


def counts(number, rows=3):
    return torch.full((rows,), number)


@pytest.mark.parametrize(
    ("share", "kept"),
    [(0, 64), (0.25, 48), (0.5, 32), (0.9, 6), (0.95, 3), (0.99, 1), (0.999, 1), (1, 0)],
)
def test_tokens_to_keep_of_64(share, kept):
    assert tokens_to_keep(64, share) == kept


def test_the_highest_stay_and_the_first_win_a_tie():
    scores = torch.tensor([[1.0, 3.0, 2.0, 3.0], [5.0, 5.0, 5.0, 5.0]])
    assert keep_highest(scores, torch.tensor([2, 3])).tolist() == [
        [False, True, False, True],
        [True, True, True, False],
    ]
    assert not keep_highest(scores, torch.tensor([0, 0])).any()


def test_norms_keep_the_longest_and_nest(states):
    scores = norm_scores(states)
    smaller = keep_highest(scores, counts(3))
    for kept in range(4, 13):
        larger = keep_highest(scores, counts(kept))
        assert (larger.sum(-1) == kept).all()
        assert (smaller <= larger).all()
        smaller = larger
    longest = states.square().sum(-1).argmax(-1)
    assert keep_highest(scores, counts(1))[torch.arange(3), longest].all()


def test_random_sets_nest_and_depend_on_image_and_seed_alone():
    names = ["a/0", "a/1", "a/2"]
    scores = random_scores(names, 64, 0)
    assert torch.equal(scores[1:], random_scores(names[1:], 64, 0))
    assert (keep_highest(scores, counts(8)) <= keep_highest(scores, counts(20))).all()
    assert not torch.equal(scores, random_scores(names, 64, 1))
    many = keep_highest(random_scores([f"b/{i}" for i in range(2000)], 16, 3), counts(4, 2000))
    # Every token is as likely as any: 500 of 2000 each, standard deviation 19.
    assert (many.sum(0) - 500).abs().max() < 90


def test_random_sets_of_a_larger_image_go_on_where_a_smaller_one_s_end():
    """An image's scores do not depend on how many tokens others of its batch have."""
    names = ["a/0", "a/1"]
    assert torch.equal(random_scores(names, 100, 5)[:, :64], random_scores(names, 64, 5))


@pytest.mark.parametrize("rank", [1, 3, 5])
def test_leverage_is_the_diagonal_of_the_hat_matrix(states, rank):
    scores = leverage_scores(states, rank)
    for image, found in zip(states.double().numpy(), scores, strict=True):
        left, values, right = np.linalg.svd(image, full_matrices=False)
        best = (left[:, :rank] * values[:rank]) @ right[:rank]
        hat = best @ np.linalg.pinv(best, rcond=1e-8)
        np.testing.assert_allclose(found, np.diag(hat), atol=1e-9)
        assert float(found.sum()) == pytest.approx(rank)


def test_every_image_can_have_a_rank_of_its_own(states):
    ranks = torch.tensor([1, 5, 3])
    together = leverage_scores(states, ranks)
    for place, rank in enumerate(ranks.tolist()):
        torch.testing.assert_close(together[place], leverage_scores(states, rank)[place])


def test_tokens_of_zeros_change_no_leverage(states):
    """They stand where an image has fewer tokens than another of its batch."""
    padded = torch.cat([states, torch.zeros(3, 7, states.shape[-1])], 1)
    found = leverage_scores(padded, 4)
    torch.testing.assert_close(found[:, :12], leverage_scores(states, 4))
    assert found[:, 12:].abs().max() < 1e-9


def test_tokens_of_zeros_change_no_uniqueness(states):
    padded = torch.cat([states, torch.zeros(3, 7, states.shape[-1])], 1)
    ours, theirs = unique_scores(padded)[:, :12], unique_scores(states)
    assert torch.equal(ours.argsort(-1)[:, :-2], theirs.argsort(-1)[:, :-2])


def test_leverage_counts_no_direction_that_is_not_there():
    line = torch.tensor([[[3.0, 4.0], [6.0, 8.0], [0.0, 0.0]]])
    torch.testing.assert_close(
        leverage_scores(line, 2), torch.tensor([[0.2, 0.8, 0.0]], dtype=torch.float64)
    )
    assert not leverage_scores(torch.zeros(1, 4, 2), 2).any()


def test_unique_keeps_one_of_duplicates():
    axes = torch.eye(5)
    # Tokens 1, 3 and 4 point one way, whatever their length and sign.
    tokens = torch.stack([axes[0], axes[1], axes[2], -2 * axes[1], 7 * axes[1], axes[3]])
    kept = keep_highest(unique_scores(tokens[None]), torch.tensor([4]))
    assert kept.tolist() == [[True, True, True, False, False, True]]


def test_unique_drops_the_most_redundant_again_and_again(states):
    scores = unique_scores(states)
    for image, found in zip(states.double().numpy(), scores, strict=True):
        unit = image / np.linalg.norm(image, axis=1, keepdims=True)
        left = list(range(len(unit)))
        dropped = []
        while left:
            mean = [
                np.mean([(unit[i] @ unit[j]) ** 2 for j in left if j != i] or [0.0]) for i in left
            ]
            dropped.append(left.pop(int(np.argmax(mean))))
        # The last two are alike to each other, so either may go first.
        assert found.argsort().tolist()[:-2] == dropped[:-2]


def test_budgets_follow_saliency_and_add_up():
    random = np.random.default_rng(0)
    values = {f"i{place}": value for place, value in enumerate(random.lognormal(0, 1.5, 300))}
    for mean in (1, 3, 16, 32, 63):
        found = budgets(values, 64, mean)
        assert sum(found.values()) == 300 * mean
        assert min(found.values()) >= 1
        assert max(found.values()) <= 64
        order = [found[name] for name in sorted(values, key=values.__getitem__)]
        assert (np.diff(order) >= -1).all()  # rounding may give one token to the lesser
        if 1 < mean < 63:
            assert order[-1] > order[0]


def test_budgets_are_proportional_where_nothing_binds():
    assert budgets({"a": 1.0, "b": 2.0, "c": 3.0}, 64, 20) == {"a": 10, "b": 20, "c": 30}
    # c is full; a and b share what is left, 56, as 1 to 6.
    assert budgets({"a": 1.0, "b": 6.0, "c": 90.0}, 64, 40) == {"a": 8, "b": 48, "c": 64}


@pytest.mark.parametrize(("mean", "each"), [(0, 0), (64, 64), (7, 7)])
def test_equal_images_keep_equally_many(mean, each):
    assert set(budgets({"a": 0.0, "b": 0.0, "c": 0.0}, 64, mean).values()) == {each}


def test_blank_images_leave_their_tokens_to_others():
    assert budgets({"a": 0.0, "b": 1.0}, 64, 20) == {"a": 1, "b": 39}


def test_saliency_is_edge_energy_at_any_resolution():
    assert saliency(np.full((100, 100, 3), 77, np.uint8)) == 0
    half = np.zeros((64, 64, 3), np.uint8)
    half[:, 32:] = 255  # one edge of height 1, in 63 of 63 x 63 places
    assert saliency(half) == pytest.approx(63 / 63**2)
    assert saliency(half.transpose(1, 0, 2)) == pytest.approx(63 / 63**2)
    large = half.repeat(5, 0).repeat(5, 1)
    assert saliency(large) == pytest.approx(saliency(half))
    file = io.BytesIO()
    Image.fromarray(half).save(file, format="png")
    assert saliency(file.getvalue()) == saliency(half)
    corner = np.zeros((64, 64, 3), np.uint8)
    corner[10, 10] = 255  # two steep slopes of 1 and one place with both
    assert saliency(corner) == pytest.approx((2 + 2**0.5) / 63**2)
