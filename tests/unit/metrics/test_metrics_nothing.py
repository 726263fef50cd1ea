"""What cannot be estimated is NaN: every metric, of an array of no tokens and of masked ones."""

from collections.abc import Callable

import pytest
import torch
from torch import Tensor

from mixlens import metrics
from mixlens.metrics.norms import no_sinks

Metric = Callable[[Tensor, Tensor | None], Tensor]  # of tokens and a mask

OF_NORMS: dict[str, Metric] = {
    name: lambda tokens, mask, name=name: getattr(metrics, name)(metrics.token_norms(tokens), mask)
    for name in ("gini", "energy_entropy", "hoyer", "norm_cv")
}
OF_TOKENS: dict[str, Metric] = {
    name: lambda tokens, mask, name=name: getattr(metrics, name)(tokens, mask)
    for name in (
        "condition_number", "effective_rank", "mean_cosine", "numerical_rank",
        "participation_ratio", "rankme", "spectral_k", "stable_rank", "twonn",
        "von_neumann_entropy",
    )
}  # fmt: skip
OF_TWO: dict[str, Metric] = {
    name: lambda tokens, mask, name=name: getattr(metrics, name)(tokens, tokens.clone(), mask)
    for name in ("cknna", "gaussian_mutual_information", "linear_cka", "svcca")
}
OTHERS: dict[str, Metric] = {
    "alpha_req": lambda t, m: metrics.alpha_req(t, m).alpha,
    "alpha_req r2": lambda t, m: metrics.alpha_req(t, m).r2,
    "condition_number of a share": lambda t, m: metrics.condition_number(t, m, share=0.9),
    "linear_cka debiased": lambda t, m: metrics.linear_cka(t, t.clone(), m, debiased=True),
    "redundancy_score": lambda t, m: metrics.redundancy_score(t, m).value,
    "redundancy_score of images": lambda t, m: metrics.redundancy_score(t, m).per_image,
    "redundancy_score uncentred": lambda t, m: metrics.redundancy_score(t, m, centre="none").value,
    "redundancy_score_moment": lambda t, m: metrics.redundancy_score_moment(t, m).value,
    "v_information": lambda t, m: metrics.v_information(
        t, torch.zeros(t.shape[:-1], dtype=torch.long), 2,
        torch.zeros(t.shape[:-1], dtype=torch.bool), m,
    ),
}  # fmt: skip
ALL = OF_NORMS | OF_TOKENS | OF_TWO | OTHERS
# No metrics: they give tokens, directions or bases, or work on norms that others give.
HELPERS = {
    "PowerLaw", "Redundancy", "directions", "gaussian_null", "pseudo_images", "subspace_alignment",
    "token_norms", "top_subspace",
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
    assert not no_sinks(metrics.token_norms(some), mask).any()
    basis = metrics.top_subspace(some, 2, mask)
    assert basis.shape == (2, 5, 6, 2)
    assert metrics.gaussian_null(some, mask, 0)[0].shape == some.shape
    assert metrics.pseudo_images(some, mask, 0)[0].shape == some.shape
