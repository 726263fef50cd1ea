"""Redundancy and compression metrics of tokens: pure functions on torch tensors.

Every function takes tokens `[*batch, tokens, width]` (or their norms `[*batch, tokens]`), any
number of leading batch dimensions, and an optional boolean mask `[*batch, tokens]` that is true
where a token exists. Every function answers in float64, one value a batch element:

* a NaN or infinity in an existing token makes the value of its batch element NaN, and no other's;
* what cannot be estimated is NaN: no tokens, only zero tokens, one token where pairs are needed.

Functions of information take samples `[*batch, samples, width]`, tokens or images, in place of
tokens and answer in nats; nulls and variants give tokens, of the type they were given but where
they compute (centring, unit length).

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
from mixlens.metrics.gaussian import (
    gaussian_mutual_information,
    o_information,
    patch_information,
    total_correlation,
)
from mixlens.metrics.geometry import mean_cosine, subspace_alignment, top_subspace
from mixlens.metrics.neighbours import ksg_mutual_information, sliced_mutual_information
from mixlens.metrics.norms import energy_entropy, gini, hoyer, norm_cv, token_norms
from mixlens.metrics.nulls import Against, against_null, gaussian_null, pseudo_images
from mixlens.metrics.overlap import Overlap, information_overlap
from mixlens.metrics.redundancy import (
    Redundancy,
    directions,
    redundancy_score,
    redundancy_score_moment,
)
from mixlens.metrics.renyi import matrix_renyi_mutual_information
from mixlens.metrics.similarity import (
    cknna,
    linear_cka,
    mutual_knn,
    procrustes_distance,
    svcca,
)
from mixlens.metrics.spectrum import effective_rank, participation_ratio, stable_rank
from mixlens.metrics.usable import mdl_codelength, v_information
from mixlens.metrics.variants import (
    position_centred,
    rarefied,
    rogue_dimensions,
    token_energies,
    unit_normalised,
    without_rogue_dimensions,
    without_sinks,
)

__all__ = [
    "Against",
    "Overlap",
    "PowerLaw",
    "Redundancy",
    "against_null",
    "alpha_req",
    "cknna",
    "condition_number",
    "diff_erank",
    "directions",
    "effective_rank",
    "energy_entropy",
    "gaussian_mutual_information",
    "gaussian_null",
    "gini",
    "hoyer",
    "information_overlap",
    "ksg_mutual_information",
    "lidar",
    "linear_cka",
    "matrix_renyi_mutual_information",
    "mdl_codelength",
    "mean_cosine",
    "mutual_knn",
    "norm_cv",
    "numerical_rank",
    "o_information",
    "participation_ratio",
    "patch_information",
    "position_centred",
    "procrustes_distance",
    "pseudo_images",
    "rankme",
    "rarefied",
    "redundancy_score",
    "redundancy_score_moment",
    "renyi2_entropy",
    "rogue_dimensions",
    "sliced_mutual_information",
    "spectral_k",
    "stable_rank",
    "subspace_alignment",
    "svcca",
    "token_energies",
    "token_norms",
    "top_subspace",
    "total_correlation",
    "twonn",
    "unit_normalised",
    "v_information",
    "von_neumann_entropy",
    "without_rogue_dimensions",
    "without_sinks",
]
