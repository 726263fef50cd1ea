"""The default set: every metric of one image's tokens, from one Gram and one decomposition."""

import torch
from jaxtyping import Bool, Float
from torch import Tensor

from mixlens.metrics import energy_entropy, gini, hoyer, mean_cosine, norm_cv, token_norms
from mixlens.metrics.decay import (
    alpha_req_of,
    condition_number_of,
    numerical_rank_of,
    spectral_k_of,
)
from mixlens.metrics.entropy import von_neumann_entropy_of
from mixlens.metrics.geometry import mean_cosine_of
from mixlens.metrics.norms import no_sinks
from mixlens.metrics.spectrum import (
    above_rounding,
    decompose,
    effective_rank_of,
    masked,
    participation_ratio_of,
    stable_rank_of,
)

SUBSPACE = 5  # dimension of the subspaces that are compared
EPSILON = 0.01  # of the numerical rank
SHARES = {90: 0.90, 95: 0.95, 99: 0.99}
# The window of the power law, first and last index, from so many singular values on.
WINDOWS = ((200, (11, 100)), (60, (6, 30)))


def token_metrics(
    tokens: Float[Tensor, "images tokens width"],
    mask: Bool[Tensor, "images tokens"] | None,
    positions: int,
) -> tuple[dict[str, Float[Tensor, " images"]], Float[Tensor, "images width k"]]:
    """Metrics that need one image's tokens only, and the basis of their top subspace.

    Each equals the public function of `mixlens.metrics` of that name, with these settings:
    `spectral_k90`, `_k95`, `_k99` are `spectral_k` at those shares, `condition_number_k99` is
    `condition_number` at share .99, `numerical_rank` has ε = .01. Beside them `sink_share`, the
    share of tokens that `no_sinks` drops, and `subspace_gap` 1 - σ_6 / σ_5: a small gap makes
    the top subspace, and every alignment with it, ill posed; without a fifth direction it is NaN.

    `alpha_req` (and `alpha_req_r2`, its fit) is of the window 11 to 100 from 200 singular values
    on, of 6 to 30 from 60 on, and not in the answer below: compare it at equal numbers only. It is
    of the tokens as they are, like all others. Defined on the covariance, it would cost a second
    decomposition for little: the squared singular values of centred tokens interlace with those of
    the raw ones, so centring moves each at most to the next one in order.

    The Rényi-2 entropy is ln of the participation ratio and left out.

    Args:
        tokens: hidden states as they are.
        mask: which tokens exist; None when all do.
        positions: the most tokens that any image has in this stream, here or in another batch:
            what is measured must not depend on the batch.
    """
    wide = masked(tokens, mask)
    gram, eigenvalues, basis = decompose(wide, SUBSPACE)
    if wide.shape[-2] <= wide.shape[-1]:
        norms = gram.diagonal(dim1=-2, dim2=-1).sqrt()
        cosine = mean_cosine_of(gram)
    else:
        norms = token_norms(wide)
        cosine = mean_cosine(wide)
    k = {percent: spectral_k_of(eigenvalues, share) for percent, share in SHARES.items()}
    found = {
        "gini": gini(norms, mask),
        "hoyer": hoyer(norms, mask),
        "energy_entropy": energy_entropy(norms, mask),
        "norm_cv": norm_cv(norms, mask),
        "sink_share": _sink_share(norms, mask),
        "mean_cosine": cosine,
        "participation_ratio": participation_ratio_of(gram),
        "stable_rank": stable_rank_of(eigenvalues),
        "effective_rank": effective_rank_of(eigenvalues),
        "von_neumann_entropy": von_neumann_entropy_of(eigenvalues),
        "numerical_rank": numerical_rank_of(eigenvalues, EPSILON**2 * eigenvalues[..., 0]),
        **{f"spectral_k{percent}": value for percent, value in k.items()},
        "condition_number_k99": condition_number_of(eigenvalues, k[99]),
    }
    values = min(positions, wide.shape[-1])
    if values > SUBSPACE:
        # A batch of images with few tokens has fewer values than the stream.
        short = max(0, SUBSPACE + 1 - eigenvalues.shape[-1])
        singular = torch.nn.functional.pad(above_rounding(eigenvalues), (0, short)).sqrt()
        found["subspace_gap"] = 1 - singular[..., SUBSPACE] / singular[..., SUBSPACE - 1]
    window = next((window for least, window in WINDOWS if values >= least), None)
    if window is not None:
        law = alpha_req_of(eigenvalues, window)
        found["alpha_req"], found["alpha_req_r2"] = law.alpha, law.r2
    return found, basis


def _sink_share(
    norms: Float[Tensor, "images tokens"], mask: Bool[Tensor, "images tokens"] | None
) -> Float[Tensor, " images"]:
    exists = torch.ones_like(norms, dtype=torch.bool) if mask is None else mask
    share = 1 - no_sinks(norms, exists).sum(-1) / exists.sum(-1).double()
    return torch.where(norms.isfinite().all(-1), share, torch.nan)
