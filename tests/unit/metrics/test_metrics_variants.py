"""Variants of tokens: what each takes away, and that nothing else goes with it."""

import pytest
import torch
from sklearn.metrics.pairwise import cosine_similarity

from mixlens.metrics import (
    effective_rank,
    energy_entropy,
    gini,
    mean_cosine,
    participation_ratio,
    position_centred,
    rarefied,
    redundancy_score,
    rogue_dimensions,
    token_energies,
    token_norms,
    unit_normalised,
    without_rogue_dimensions,
    without_sinks,
)


def gaussian(*shape, seed=0):
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


# ---- centre, length, energy


def test_position_centring_takes_out_each_positions_mean_over_images():
    tokens = gaussian(7, 5, 4)
    offsets = 100 * gaussian(5, 4, seed=1)
    found = position_centred(tokens + offsets)
    assert torch.allclose(found, tokens - tokens.mean(0))
    assert found.dtype == torch.float64
    assert torch.allclose(position_centred(gaussian(1, 5, 4)), torch.zeros(1, 5, 4).double())


def test_position_centring_knows_absent_tokens_and_layers():
    tokens, mask = gaussian(2, 4, 3, 2), torch.ones(2, 4, 3, dtype=torch.bool)
    mask[1, 0, 2] = False
    found = position_centred(torch.where(mask[..., None], tokens, torch.nan), mask)
    assert torch.allclose(found[0], tokens[0] - tokens[0].mean(0))
    assert torch.allclose(found[1, 1:, 2], tokens[1, 1:, 2] - tokens[1, 1:, 2].mean(0))


def test_the_redundancy_score_is_of_centred_unit_tokens():
    tokens = gaussian(6, 5, 8) + 4 * gaussian(5, 8, seed=1)
    units, present = unit_normalised(position_centred(tokens))
    assert present.all()
    by_hand = redundancy_score(units, centre="none")
    assert torch.allclose(by_hand.per_image, redundancy_score(tokens).per_image)


def test_unit_tokens_keep_their_direction_only():
    tokens = gaussian(3, 4, 5) * torch.tensor([1.0, 10.0, 100.0, 0.0])[:, None]
    units, present = unit_normalised(tokens.float())
    assert present.tolist() == [[True, True, True, False]] * 3
    assert units.dtype == torch.float64
    assert torch.allclose(token_norms(units), present.double())
    assert torch.allclose(mean_cosine(units, present), mean_cosine(tokens))
    assert unit_normalised(tokens * torch.nan)[0].isnan().all()


def test_energies_are_squared_norms():
    tokens = gaussian(3, 6, 5)
    assert torch.allclose(token_energies(tokens.float()), (tokens**2).sum(-1), rtol=1e-5)
    assert (gini(token_energies(tokens)) > gini(token_norms(tokens))).all()
    assert token_energies(tokens.bfloat16()).dtype == torch.float64


# ---- sinks


def test_sinks_are_far_above_the_median_norm():
    tokens = torch.nn.functional.normalize(gaussian(2, 9, 6), dim=-1)
    tokens[0, 2] *= 3.1
    tokens[0, 5] *= 2.9
    tokens[1, [0, 1, 2]] *= 50
    keep = without_sinks(tokens)
    assert keep[0].tolist() == [i != 2 for i in range(9)]
    assert keep[1].tolist() == [i > 2 for i in range(9)]
    assert without_sinks(tokens, threshold=60.0).all()
    assert without_sinks(1000 * tokens).equal(keep)
    assert energy_entropy(token_norms(tokens), keep)[1] == pytest.approx(1)


def test_absent_tokens_are_no_yardstick_for_sinks():
    tokens = torch.ones(10, 3)
    tokens[6:] = 1000.0
    tokens[0] = 5.0
    mask = torch.arange(10) < 6
    assert without_sinks(tokens, mask).tolist() == [1 <= i < 6 for i in range(10)]
    tokens[6:] = torch.nan
    assert without_sinks(tokens, mask).tolist() == [1 <= i < 6 for i in range(10)]


def test_without_any_sink_or_norm_every_token_stays():
    for tokens in (torch.zeros(4, 3), torch.ones(4, 3), torch.ones(1, 3)):
        assert without_sinks(tokens).all()
    broken = torch.ones(4, 3)
    broken[2] = torch.nan
    assert without_sinks(broken).all()
    assert participation_ratio(broken, without_sinks(broken)).isnan()


# ---- rogue dimensions


def test_rogue_dimensions_bring_the_mean_cosine():
    tokens = gaussian(5, 30, 64)
    tokens[..., 7] += 12
    tokens[..., 9] -= 9
    assert rogue_dimensions(tokens).nonzero().flatten().tolist() == [7, 9]
    without = without_rogue_dimensions(tokens)
    kept = [d for d in range(64) if d not in (7, 9)]
    assert (without[..., [7, 9]] == 0).all()
    assert (without[..., kept] == tokens[..., kept]).all()
    for metric in (participation_ratio, effective_rank, mean_cosine):
        assert torch.allclose(metric(without), metric(tokens[..., kept]))
    assert without_rogue_dimensions(tokens.bfloat16()).dtype == torch.bfloat16


def test_contributions_are_of_all_pairs_of_different_tokens():
    tokens = gaussian(4, 6, 20) + torch.eye(20, dtype=torch.float64)[3]
    units = tokens.flatten(0, 1)
    units = units / units.norm(dim=-1, keepdim=True)
    brought = torch.stack(
        [(units[:, d, None] * units[:, d]).fill_diagonal_(0).sum() / (24 * 23) for d in range(20)]
    )
    table = cosine_similarity(tokens.flatten(0, 1).numpy())
    assert brought.sum() == pytest.approx((table.sum() - 24) / (24 * 23))
    for share in (0.2, 1.0, 2.0):
        assert rogue_dimensions(tokens, threshold=share).equal(brought > share / 20)
    most = brought.max().item() * 20
    assert rogue_dimensions(tokens, threshold=0.99 * most).sum() == 1
    assert not rogue_dimensions(tokens, threshold=1.01 * most).any()


def test_rogue_dimensions_are_of_each_layer_over_all_its_images():
    tokens = gaussian(3, 5, 30, 64)
    tokens[1, ..., 4] += 12
    assert rogue_dimensions(tokens).sum(-1).tolist() == [0, 1, 0]
    mask = torch.ones(3, 5, 30, dtype=torch.bool)
    mask[2, 3] = False
    tokens[2, 3] = torch.nan
    tokens[0, 1, 1, 1] = torch.nan
    assert rogue_dimensions(tokens, mask).sum(-1).tolist() == [0, 1, 0]
    scaled = tokens * (1 + gaussian(3, 5, 30, 1).abs())
    assert rogue_dimensions(scaled, mask).equal(rogue_dimensions(tokens, mask))


def test_no_dimension_is_rogue_where_nothing_can_be_told():
    for tokens in (torch.zeros(2, 3, 40), torch.ones(2, 3, 40), torch.ones(1, 1, 40)):
        assert not rogue_dimensions(tokens).any()
    assert not rogue_dimensions(position_centred(gaussian(9, 9, 40) + 50)).any()


# ---- rarefying


def test_rarefied_tokens_are_a_sample_without_replacement_in_order():
    tokens = torch.arange(20.0).expand(50, 20)[..., None]
    found = rarefied(tokens, 8, 0)[..., 0]
    assert found.shape == (50, 8)
    assert (found.diff(dim=-1) > 0).all()
    often = torch.bincount(found.flatten().long(), minlength=20)
    assert often.min() > 8
    assert often.max() < 33
    assert (rarefied(tokens, 20, 0) == tokens).all()


def test_rarefied_tokens_exist_or_are_not_estimable():
    tokens = gaussian(4, 10, 3)
    mask = torch.arange(10) < torch.tensor([10, 6, 5, 0])[:, None]
    found = rarefied(torch.where(mask[..., None], tokens, torch.nan), 6, 0, mask)
    assert found.shape == (4, 6, 3)
    assert found.isfinite().all((-2, -1)).tolist() == [True, True, False, False]
    assert found[2:].isnan().all()
    assert (found[1] == tokens[1, :6]).all()
    assert rarefied(tokens, 11, 0).isnan().all()
    assert rarefied(tokens, 11, 0).shape == (4, 11, 3)


def test_one_seed_rarefies_all_layers_alike():
    layers = [gaussian(6, 12, 3, seed=s) for s in (0, 1)]
    chosen = [
        (rarefied(x, 5, 7)[:, :, None] == x[:, None]).all(-1).nonzero()[:, -1] for x in layers
    ]
    assert chosen[0].equal(chosen[1])
    again = rarefied(layers[0], 5, torch.Generator().manual_seed(7))
    assert again.equal(rarefied(layers[0], 5, 7))
    assert not again.equal(rarefied(layers[0], 5, 8))
    assert rarefied(layers[0].bfloat16(), 5, 7).dtype == torch.bfloat16


def test_rarefied_tokens_keep_what_does_not_depend_on_their_number():
    tokens = gaussian(40, 60, 16) + 1
    few = rarefied(tokens, 15, 3)
    assert mean_cosine(few).mean() == pytest.approx(mean_cosine(tokens).mean().item(), abs=0.02)
    assert effective_rank(few).mean() < effective_rank(tokens).mean()
