"""What cannot be estimated is NaN: every metric, of an array of no tokens and of masked ones."""

from collections.abc import Callable

import pytest
import torch
from torch import Tensor

from mixlens import metrics

Metric = Callable[[Tensor, Tensor | None], Tensor]  # of tokens and a mask

OF_NORMS: dict[str, Metric] = {
    name: lambda tokens, mask, name=name: getattr(metrics, name)(metrics.token_norms(tokens), mask)
    for name in ("gini", "energy_entropy", "hoyer", "norm_cv")
}
OF_TOKENS: dict[str, Metric] = {
    name: lambda tokens, mask, name=name: getattr(metrics, name)(tokens, mask)
    for name in (
        "condition_number", "effective_rank", "lidar", "mean_cosine", "numerical_rank",
        "o_information", "participation_ratio", "rankme", "renyi2_entropy", "spectral_k",
        "stable_rank", "total_correlation", "twonn", "von_neumann_entropy",
    )
}  # fmt: skip
OF_TWO: dict[str, Metric] = {
    name: lambda tokens, mask, name=name: getattr(metrics, name)(tokens, tokens.clone(), mask)
    for name in (
        "cknna", "diff_erank", "gaussian_mutual_information", "ksg_mutual_information",
        "linear_cka", "matrix_renyi_mutual_information", "mutual_knn",
        "procrustes_distance", "svcca",
    )
}  # fmt: skip
OTHERS: dict[str, Metric] = {
    "alpha_req": lambda t, m: metrics.alpha_req(t, m).alpha,
    "alpha_req r2": lambda t, m: metrics.alpha_req(t, m).r2,
    "numerical_rank of noise": lambda t, m: metrics.numerical_rank(t, m, epsilon=None),
    "condition_number of a share": lambda t, m: metrics.condition_number(t, m, share=0.9),
    "linear_cka debiased": lambda t, m: metrics.linear_cka(t, t.clone(), m, debiased=True),
    "sliced_mutual_information": lambda t, m: metrics.sliced_mutual_information(
        t, t.clone(), 0, m, projections=4
    ),
    "redundancy_score": lambda t, m: metrics.redundancy_score(t, m).value,
    "redundancy_score of images": lambda t, m: metrics.redundancy_score(t, m).per_image,
    "redundancy_score uncentred": lambda t, m: metrics.redundancy_score(t, m, centre="none").value,
    "redundancy_score_moment": lambda t, m: metrics.redundancy_score_moment(t, m).value,
    "mdl_codelength": lambda t, m: metrics.mdl_codelength(
        t, torch.zeros(t.shape[:-1], dtype=torch.long), 2, m
    ),
    "v_information": lambda t, m: metrics.v_information(
        t, torch.zeros(t.shape[:-1], dtype=torch.long), 2,
        torch.zeros(t.shape[:-1], dtype=torch.bool), m,
    ),
    "patch_information": lambda t, m: metrics.patch_information(t, t.clone(), m),
    "information_overlap": lambda t, m: metrics.information_overlap(
        t, torch.randn(*t.shape[:-2], 3, dtype=torch.float64), 2, 0, m
    ).value,
    "against_null": lambda t, m: metrics.against_null(
        metrics.participation_ratio, metrics.gaussian_null, t, 0, m
    ).ratio,
    "rarefied": lambda t, m: metrics.rarefied(t, 2, 0, m),
}  # fmt: skip
ALL = OF_NORMS | OF_TOKENS | OF_TWO | OTHERS
# No metrics: they give tokens, masks, directions or bases, or work on norms that others give.
HELPERS = {
    "Against", "Overlap", "PowerLaw", "Redundancy", "directions", "gaussian_null",
    "position_centred", "pseudo_images", "rogue_dimensions", "subspace_alignment",
    "token_energies", "token_norms", "top_subspace", "unit_normalised",
    "without_rogue_dimensions", "without_sinks",
}  # fmt: skip


def test_no_metric_is_forgotten():
    assert {name.split(" ")[0] for name in ALL} == set(metrics.__all__) - HELPERS


@pytest.mark.case
@pytest.mark.parametrize("width", [6, 1])
@pytest.mark.parametrize("name", ALL)
def test_no_tokens_give_nan(name: str, width: int):
    generator = torch.Generator().manual_seed(0)
    masked = torch.randn(2, 5, 4, width, generator=generator, dtype=torch.float64)
    for tokens, mask in (
        (masked[..., :0, :], None),
        (masked[..., :0, :], torch.ones(2, 5, 0, dtype=torch.bool)),
        (masked[..., :0, :].float(), None),
        (masked, torch.zeros(2, 5, 4, dtype=torch.bool)),
    ):
        value = ALL[name](tokens, mask)
        assert value.isnan().all(), (name, tokens.shape, value)


@pytest.mark.parametrize("tokens", [0, 3])
def test_tokens_that_stand_for_none_stay_what_they_are(tokens: int):
    some = torch.randn(2, 5, tokens, 6, dtype=torch.float64)
    mask = torch.zeros(2, 5, tokens, dtype=torch.bool)
    assert metrics.token_norms(some).shape == (2, 5, tokens)
    assert metrics.position_centred(some, mask).shape == some.shape
    assert metrics.unit_normalised(some, mask)[0].shape == some.shape
    assert not metrics.without_sinks(some, mask).any()
    assert not metrics.rogue_dimensions(some, mask).any()
    assert metrics.without_rogue_dimensions(some, mask).shape == some.shape
    basis = metrics.top_subspace(some, 2, mask)
    assert basis.shape == (2, 5, 6, 2)
    assert metrics.gaussian_null(some, mask, 0)[0].shape == some.shape
    assert metrics.pseudo_images(some, mask, 0)[0].shape == some.shape
