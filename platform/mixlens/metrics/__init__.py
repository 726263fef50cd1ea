"""Redundancy and compression metrics of tokens: pure functions on torch tensors.

Every function takes tokens `[*batch, tokens, width]` (or their norms `[*batch, tokens]`), any
number of leading batch dimensions, and an optional boolean mask `[*batch, tokens]` that is true
where a token exists. Every function answers in float64, one value a batch element:

* a NaN or infinity in an existing token makes the value of its batch element NaN, and no other's;
* what cannot be estimated is NaN: no tokens, only zero tokens, one token where pairs are needed.

Functions of information take samples `[*batch, samples, width]`, tokens or images, in place of
tokens and answer in nats; nulls give tokens, of the type they were given.

None of them changes its input: whether tokens are raw, position-centred or unit-normalised is the
caller's choice, and every table says which it was.
"""

from mixlens.metrics.decay import (
    PowerLaw,
    alpha_req,
    condition_number,
    numerical_rank,
    spectral_k,
)
from mixlens.metrics.dimension import twonn
from mixlens.metrics.entropy import (
    rankme,
    von_neumann_entropy,
)
from mixlens.metrics.gaussian import (
    gaussian_mutual_information,
)
from mixlens.metrics.geometry import mean_cosine, subspace_alignment, top_subspace
from mixlens.metrics.norms import energy_entropy, gini, hoyer, norm_cv, token_norms
from mixlens.metrics.nulls import gaussian_null, pseudo_images
from mixlens.metrics.redundancy import (
    Redundancy,
    directions,
    redundancy_score,
    redundancy_score_moment,
)
from mixlens.metrics.similarity import (
    cknna,
    linear_cka,
    svcca,
)
from mixlens.metrics.spectrum import effective_rank, participation_ratio, stable_rank
from mixlens.metrics.usable import v_information

__all__ = [
    "PowerLaw",
    "Redundancy",
    "alpha_req",
    "cknna",
    "condition_number",
    "directions",
    "effective_rank",
    "energy_entropy",
    "gaussian_mutual_information",
    "gaussian_null",
    "gini",
    "hoyer",
    "linear_cka",
    "mean_cosine",
    "norm_cv",
    "numerical_rank",
    "participation_ratio",
    "pseudo_images",
    "rankme",
    "redundancy_score",
    "redundancy_score_moment",
    "spectral_k",
    "stable_rank",
    "subspace_alignment",
    "svcca",
    "token_norms",
    "top_subspace",
    "twonn",
    "v_information",
    "von_neumann_entropy",
]
