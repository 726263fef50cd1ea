"""The Redundancy Score against its closed forms (T1 to T8) and its invariances."""

import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import stats
from scipy.special import hyp2f1

from mixlens.metrics import directions, redundancy_score, redundancy_score_moment
from mixlens.metrics.redundancy import pool, position_mean


def seeded(seed):
    return torch.Generator().manual_seed(seed)


def shared_factor(rho, covariance_root, images, tokens, seed=0):
    """x_n = √ρ z + √(1 - ρ) e_n with z, e_n ~ N(0, Σ); ρ may differ by dimension."""
    random = seeded(seed)
    width = len(covariance_root)
    rho = torch.as_tensor(rho, dtype=torch.float64)
    z = torch.randn(images, 1, width, generator=random, dtype=torch.float64)
    e = torch.randn(images, tokens, width, generator=random, dtype=torch.float64)
    return (rho.sqrt() * z + (1 - rho).sqrt() * e) * covariance_root


@pytest.mark.parametrize(("rho", "truth"), [(0.3, 0.09), (0.6, 0.36), (0.9, 0.81)])
def test_t1_moment_score_of_a_shared_factor_is_rho_squared_for_any_covariance(rho, truth):
    root = torch.arange(1, 65, dtype=torch.float64) ** -0.5
    score = redundancy_score_moment(shared_factor(rho, root, 500, 16), centre="none")
    assert score.low <= truth <= score.high
    assert abs(score.value - truth) < 0.06


def test_t2_cosine_score_of_an_isotropic_shared_factor():
    width, rho = 32, 0.6
    like = 1 - (width - 1) / width * (1 - rho**2) * hyp2f1(1, 1, (width + 2) / 2, rho**2)
    truth = (like - 1 / width) / (1 - 1 / width)
    assert truth == pytest.approx(0.3459, abs=5e-5)
    tokens = shared_factor(rho, torch.ones(width, dtype=torch.float64), 400, 16)
    for centre in ("none", "position"):
        score = redundancy_score(tokens, centre=centre)
        assert score.value == pytest.approx(truth, abs=0.01)
        assert score.low <= truth <= score.high


def test_t3_moment_score_of_an_autoregression_along_the_tokens():
    a, n, width = 0.8, 24, 16
    q = a * a
    truth = 2 * q * (n * (1 - q) - (1 - q**n)) / (n * (n - 1) * (1 - q) ** 2)
    assert truth == pytest.approx(0.1367, abs=5e-5)
    random = torch.Generator().manual_seed(1)
    noise = torch.randn(1500, n, width, generator=random, dtype=torch.float64)
    tokens = noise.clone()
    for t in range(1, n):
        tokens[:, t] = a * tokens[:, t - 1] + math.sqrt(1 - q) * noise[:, t]
    score = redundancy_score_moment(tokens, centre="none", pairs="ring")
    assert score.value == pytest.approx(truth, abs=0.006)


def test_t4_each_image_in_its_own_random_subspace():
    width, r = 64, 4
    truth = (width - r) / (r * (width - 1))
    assert truth == pytest.approx(0.2381, abs=5e-5)
    random = torch.Generator().manual_seed(2)
    span = torch.randn(300, r, width, generator=random, dtype=torch.float64)
    span = torch.linalg.qr(span.mT).Q.mT
    tokens = torch.randn(300, 24, r, generator=random, dtype=torch.float64) @ span
    assert redundancy_score(tokens, centre="none").value == pytest.approx(truth, abs=0.003)


@pytest.mark.parametrize("groups", [1, 2, 4, 12])
def test_t5_orthogonal_groups_of_equal_tokens_in_images_that_share_nothing(groups):
    images, tokens = 4, 12
    axes = torch.eye(images * groups, dtype=torch.float64).reshape(images, groups, -1)
    score = redundancy_score(axes.repeat_interleave(tokens // groups, dim=1), centre="none")
    truth = (tokens / groups - 1) / (tokens - 1)
    assert score.chance == 0
    assert score.value == pytest.approx(truth, abs=1e-12)
    assert torch.allclose(score.per_image, torch.full((4,), truth, dtype=torch.float64))


@pytest.mark.parametrize(
    ("images", "plug_in", "corrected"), [(8, 0.2415, 0.2462), (16, 0.2462, 0.2488)]
)
def test_t6_the_jackknife_removes_most_of_the_bias(images, plug_in, corrected):
    repeats = 8000 // images
    root = torch.arange(1, 65, dtype=torch.float64) ** -0.5
    tokens = shared_factor(0.5, root, images * repeats, 8, seed=5).unflatten(0, (repeats, images))
    score = redundancy_score_moment(tokens, centre="none")
    assert score.value.shape == (repeats,)
    naive = score.per_image.mean(-1).mean()
    assert naive == pytest.approx(plug_in, abs=0.005)
    assert score.value.mean() == pytest.approx(corrected, abs=0.005)
    assert abs(score.value.mean() - 0.25) < 0.7 * abs(naive - 0.25)


def test_t7_moment_score_of_a_factor_that_differs_by_dimension():
    width = 24
    spectrum = torch.arange(1, width + 1, dtype=torch.float64) ** -0.5
    rho = torch.linspace(0.9, 0.1, width, dtype=torch.float64)
    shared = rho * spectrum
    truth = (shared.sum() ** 2 + (shared**2).sum()) / (spectrum.sum() ** 2 + (spectrum**2).sum())
    score = redundancy_score_moment(shared_factor(rho, spectrum.sqrt(), 800, 16), centre="none")
    assert score.value == pytest.approx(truth.item(), abs=0.02)
    assert score.low <= truth <= score.high


@pytest.mark.parametrize("score", [redundancy_score, redundancy_score_moment])
@pytest.mark.parametrize("centre", ["none", "position"])
@pytest.mark.parametrize("pairs", ["all", "ring"])
def test_t8_identical_tokens_score_one(score, centre, pairs):
    tokens = torch.randn(6, 1, 20, dtype=torch.float64, generator=seeded(3)).expand(6, 9, 20)
    result = score(tokens, centre=centre, pairs=pairs)
    assert result.value == pytest.approx(1, abs=1e-12)
    assert result.high - result.low < 1e-10


def test_t8_random_signs_change_nothing():
    tokens = shared_factor(0.5, torch.ones(12, dtype=torch.float64), 10, 7)
    signs = torch.randint(0, 2, (10, 7, 1), generator=seeded(4)) * 2.0 - 1
    same = redundancy_score(tokens * signs, centre="none")
    assert torch.allclose(same.per_image, redundancy_score(tokens, centre="none").per_image)


def test_tokens_no_more_alike_than_those_of_other_images_score_zero():
    random = torch.randn(200, 12, 8, generator=seeded(5), dtype=torch.float64)
    anisotropic = random * torch.arange(1, 9) ** -1.0
    for pairs in ("all", "ring"):
        score = redundancy_score(anisotropic, pairs=pairs)
        assert score.low < 0 < score.high
        assert abs(score.value) < 0.02
        assert score.clipped()[1] == 0


def test_orthogonal_tokens_score_below_zero():
    width = 16
    random = torch.randn(400, width, width, generator=seeded(6), dtype=torch.float64)
    score = redundancy_score(torch.linalg.qr(random).Q, centre="none")
    assert score.value == pytest.approx(-1 / (width - 1), abs=1e-3)
    assert score.clipped()[0] == 0
    assert (score.per_image < 0).all()
    assert (score.clipped_per_image() == 0).all()


def naive_parts(tokens, moment):
    """W_i, S_i and C_ij by loops over pairs of tokens, as METRICS spells them."""
    centred = tokens - tokens.mean(0)
    if not moment:
        centred = centred / centred.norm(dim=-1, keepdim=True)
    images, count = tokens.shape[:2]
    inner = torch.einsum("ind,jmd->ijnm", centred, centred) ** 2
    within = torch.stack(
        [
            sum(inner[i, i, n, m] for n in range(count) for m in range(count) if n != m)
            / (count * (count - 1))
            for i in range(images)
        ]
    )
    own = torch.stack([inner[i, i].diagonal().mean() for i in range(images)])
    return within, own, inner.mean((-2, -1))


@pytest.mark.parametrize("moment", [False, True])
@pytest.mark.parametrize("pairs", ["all", "ring"])
def test_score_interval_and_replicates_agree_with_loops(moment, pairs):
    tokens = shared_factor(0.4, torch.arange(1, 6, dtype=torch.float64), 7, 4) + 3.0
    within, own, across = naive_parts(tokens, moment)
    edges = {(i, j) for i in range(7) for j in range(i)}
    if pairs == "ring":
        edges = {(i, j) for i, j in edges if i - j in (1, 6)}

    def score_of(kept):
        chance = torch.stack([across[e] for e in edges if set(e) <= kept]).mean()
        index = sorted(kept)
        return (within[index].mean() - chance) / (own[index].mean() - chance)

    everything = set(range(7))
    naive = score_of(everything)
    without = torch.stack([score_of(everything - {i}) for i in range(7)])
    corrected = 7 * naive - 6 * without.mean()
    reach = stats.t.ppf(0.975, 6) * ((6 / 7) * ((without - without.mean()) ** 2).sum()).sqrt()

    result = (redundancy_score_moment if moment else redundancy_score)(tokens, pairs=pairs)
    assert result.images == 7
    assert torch.allclose(result.replicates, without)
    assert result.per_image.mean() == pytest.approx(naive.item())
    assert result.value == pytest.approx(corrected.item())
    assert result.low == pytest.approx((corrected - reach).item(), rel=2e-3, abs=2e-3)
    assert result.high == pytest.approx((corrected + reach).item(), rel=2e-3, abs=2e-3)


def test_the_interval_covers_the_truth_about_as_often_as_it_says():
    tokens = shared_factor(0.6, torch.ones(32, dtype=torch.float64), 6000, 6, seed=8)
    score = redundancy_score(tokens.unflatten(0, (400, 15)), centre="none", pairs="ring")
    covered = ((score.low < 0.3459) & (score.high > 0.3459)).double().mean()
    assert 0.9 < covered <= 0.99


@settings(max_examples=20, deadline=None)
@given(seed=st.integers(0, 2**31), scale=st.floats(1e-6, 1e6))
def test_rotation_scale_and_order_of_tokens_change_nothing(seed, scale):
    random = seeded(seed)
    tokens = torch.randn(5, 6, 8, generator=random, dtype=torch.float64) + 1
    rotation = torch.linalg.qr(torch.randn(8, 8, generator=random, dtype=torch.float64)).Q
    order = torch.randperm(6, generator=random)
    before = redundancy_score(tokens)
    after = redundancy_score(scale * (tokens @ rotation)[:, order])
    assert torch.allclose(before.per_image, after.per_image, atol=1e-9)
    assert after.value == pytest.approx(before.value.item(), abs=1e-9)


def test_leading_dimensions_are_separate_scores():
    tokens = shared_factor(0.5, torch.ones(6, dtype=torch.float64), 24, 5).unflatten(0, (2, 3, 4))
    together = redundancy_score(tokens)
    assert together.value.shape == (2, 3)
    assert together.value[1, 2] == pytest.approx(redundancy_score(tokens[1, 2]).value.item())


def test_masked_tokens_do_not_count():
    tokens = shared_factor(0.5, torch.ones(6, dtype=torch.float64), 5, 4)
    padded = torch.cat([tokens, torch.full((5, 3, 6), torch.nan, dtype=torch.float64)], 1)
    mask = torch.arange(7).expand(5, 7) < 4
    for score in (redundancy_score, redundancy_score_moment):
        assert torch.allclose(score(padded, mask).per_image, score(tokens).per_image)


def test_images_of_different_token_counts():
    tokens = shared_factor(0.5, torch.ones(6, dtype=torch.float64), 3, 5)
    mask = torch.ones(3, 5, dtype=torch.bool)
    mask[1, 2:] = False
    result = redundancy_score(tokens, mask, centre="none")
    units = tokens / tokens.norm(dim=-1, keepdim=True)
    within = (units[1, 0] @ units[1, 1]) ** 2
    pairs = [(units[i] @ units[j].T) ** 2 for i, j in ((0, 2), (0, 1), (2, 1))]
    chance = (pairs[0].mean() + pairs[1][:, :2].mean() + pairs[2][:, :2].mean()) / 3
    assert result.chance == pytest.approx(chance.item())
    assert result.per_image[1] == pytest.approx(((within - chance) / (1 - chance)).item())


def test_a_broken_or_lone_token_costs_its_own_image_only():
    tokens = shared_factor(0.5, torch.ones(6, dtype=torch.float64), 8, 4)
    tokens[2, 1, 3] = torch.nan
    mask = torch.ones(8, 4, dtype=torch.bool)
    mask[5, 1:] = False
    result = redundancy_score(tokens, mask)
    assert result.per_image.isnan().tolist() == [i in (2, 5) for i in range(8)]
    assert result.images == 6
    assert result.low < result.value < result.high


def test_nothing_to_estimate_is_nan():
    for tokens in (torch.zeros(4, 3, 5), torch.ones(4, 1, 5), torch.ones(4, 3, 5)):
        result = redundancy_score(tokens)  # equal over images: centring leaves no direction
        assert result.value.isnan()
        assert result.images == 0


def test_two_images_have_no_interval():
    tokens = shared_factor(0.5, torch.ones(6, dtype=torch.float64), 2, 4)
    result = redundancy_score(tokens, centre="none")
    assert result.per_image.isfinite().all()
    assert result.value.isnan()
    assert result.low.isnan()


def test_rounding_left_by_centring_is_no_direction():
    tokens = torch.randn(6, 4, 8, generator=seeded(9))
    tokens[:, 0] = 100 + 1e-5 * tokens[:, 0]  # equal over images up to rounding
    _, present = directions(tokens, None, position_mean(tokens))
    assert present.tolist() == [[[False, True, True, True]] * 6][0]


@pytest.mark.parametrize(("kind", "tolerance"), [(torch.float32, 1e-6), (torch.bfloat16, 2e-3)])
def test_low_precision_input(kind, tolerance):
    tokens = shared_factor(0.5, torch.ones(64, dtype=torch.float64), 20, 32)
    exact = redundancy_score(tokens)
    rounded = redundancy_score(tokens.to(kind))
    assert rounded.value == pytest.approx(exact.value.item(), abs=tolerance)
    assert torch.allclose(rounded.per_image, exact.per_image, atol=2 * tolerance)


def test_pooling_knows_which_pairs_were_measured():
    within = torch.tensor([0.5, 0.6, 0.7, 0.9], dtype=torch.float64)
    across = torch.tensor([0.1, 0.3], dtype=torch.float64)
    result = pool(
        within, torch.ones(4).double(), across, torch.tensor([0, 2]), torch.tensor([1, 3])
    )
    assert result.chance == pytest.approx(0.2)
    assert result.replicates[0] == pytest.approx(((0.6 + 0.7 + 0.9) / 3 - 0.3) / 0.7)
