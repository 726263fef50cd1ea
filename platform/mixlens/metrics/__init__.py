"""Redundancy and compression metrics of tokens: pure functions on torch tensors.

Every function takes tokens `[*batch, tokens, width]` (or their norms `[*batch, tokens]`), any
number of leading batch dimensions, and an optional boolean mask `[*batch, tokens]` that is true
where a token exists. Every function answers in float64, one value a batch element:

* a NaN or infinity in an existing token makes the value of its batch element NaN, and no other's;
* what cannot be estimated is NaN: no tokens, only zero tokens, one token where pairs are needed.

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
    diff_erank,
    lidar,
    rankme,
    renyi2_entropy,
    von_neumann_entropy,
)
from mixlens.metrics.geometry import mean_cosine, subspace_alignment, top_subspace
from mixlens.metrics.norms import energy_entropy, gini, hoyer, norm_cv, token_norms
from mixlens.metrics.redundancy import (
    Redundancy,
    directions,
    redundancy_score,
    redundancy_score_moment,
)
from mixlens.metrics.similarity import (
    cknna,
    linear_cka,
    mutual_knn,
    procrustes_distance,
    svcca,
)
from mixlens.metrics.spectrum import effective_rank, participation_ratio, stable_rank

__all__ = [
    "PowerLaw",
    "Redundancy",
    "alpha_req",
    "cknna",
    "condition_number",
    "diff_erank",
    "directions",
    "effective_rank",
    "energy_entropy",
    "gini",
    "hoyer",
    "lidar",
    "linear_cka",
    "mean_cosine",
    "mutual_knn",
    "norm_cv",
    "numerical_rank",
    "participation_ratio",
    "procrustes_distance",
    "rankme",
    "redundancy_score",
    "redundancy_score_moment",
    "renyi2_entropy",
    "spectral_k",
    "stable_rank",
    "subspace_alignment",
    "svcca",
    "token_norms",
    "top_subspace",
    "twonn",
    "von_neumann_entropy",
]
