"""How alike two representations of the same tokens are: two layers, two models, two stages.

Row n of both is the same token; widths may differ, and one mask tells which tokens exist. All have
the mean token subtracted first (X, Y below), and none is changed by a rotation, a scale or a shift
of either. A broken token in either gives NaN, and so do representations that cannot be compared:
one token, all tokens equal.
"""

import torch
from jaxtyping import Bool, Float
from torch import Tensor

from mixlens.metrics.decay import spectral_k_of
from mixlens.metrics.dimension import squared_distances_of
from mixlens.metrics.spectrum import ROUNDING, centred, decompose, tokens_of


def linear_cka(
    first: Float[Tensor, "*batch tokens width"],
    second: Float[Tensor, "*batch tokens other"],
    mask: Bool[Tensor, "*batch tokens"] | None = None,
    debiased: bool = False,
) -> Float[Tensor, "*batch"]:
    """Linear CKA ‖YᵀX‖²_F / (‖XᵀX‖_F ‖YᵀY‖_F) = HSIC(K, L) / √(HSIC(K, K) HSIC(L, L)).

    K = XXᵀ, L = YYᵀ. Biased upwards for N <~ D: independent Gaussian tokens give D / (N + D).
    `debiased` takes HSIC_1, whose expectation is 0 there and which is 0/0 below four tokens:

        [tr K̃L̃ + (1ᵀK̃1)(1ᵀL̃1) / ((N-1)(N-2)) - 2 · 1ᵀK̃L̃1 / (N-2)] / (N(N-3)), K̃, L̃ zero diagonal

    Few directions of large variance decide it. Range [0, 1], debiased [-1, 1]; cost Grams of the
    smaller side. Source: Kornblith et al. 2019; Song et al. 2012 and Murphy et al. 2024 (debiased).
    """
    x, y = _pair(first, second, mask)
    hsic = _hsic_debiased if debiased else _inner
    count = tokens_of(first, mask)
    own = hsic(x, x, count) * hsic(y, y, count)
    return hsic(x, y, count) / own.sqrt()


def cknna(
    first: Float[Tensor, "*batch tokens width"],
    second: Float[Tensor, "*batch tokens other"],
    mask: Bool[Tensor, "*batch tokens"] | None = None,
    k: int = 10,
) -> Float[Tensor, "*batch"]:
    """CKNNA: CKA over those pairs only that are k nearest neighbours in both representations.

    A(K, L) / √(A(K, K) A(L, L)), A(K, L) = Σ_{n≠m} α_nm K_nm L_nm, K = XXᵀ, L = YYᵀ, and α_nm = 1
    where m is a neighbour of n in both; tokens as far as the k-th are neighbours too, so that equal
    tokens (white background) are not told apart by their order. Depends on k: state it; for
    k = N - 1 it is CKA without the diagonal. This is the formula of the source's text; its code
    takes HSIC_1 of the kernels times α instead. k >= N gives NaN. Range [-1, 1]; cost two Grams
    [N, N] and a selection. Source: Huh et al. 2024.
    """
    x, y = _pair(first, second, mask)
    kernel_x, kernel_y = x @ x.mT, y @ y.mT
    near_x, near_y = _neighbours(kernel_x, mask, k), _neighbours(kernel_y, mask, k)
    shared = (kernel_x * kernel_y * (near_x & near_y)).sum((-2, -1))
    own = (kernel_x**2 * near_x).sum((-2, -1)) * (kernel_y**2 * near_y).sum((-2, -1))
    return torch.where(tokens_of(first, mask) > k, shared / own.sqrt(), torch.nan)


def svcca(
    first: Float[Tensor, "*batch tokens width"],
    second: Float[Tensor, "*batch tokens other"],
    mask: Bool[Tensor, "*batch tokens"] | None = None,
    share: float = 0.99,
) -> Float[Tensor, "*batch"]:
    """SVCCA: mean canonical correlation of the principal components that hold `share` of energy.

    ‖UᵀV‖_* / min(k_X, k_Y), U, V the first k left singular vectors of X and of Y. Directions of
    large and of small variance count the same. Components near N in number span all: 1 whatever the
    representations are (N < D does it); unrelated ones of k ≪ N give about .85 √(k / N).
    Range [0, 1]; cost Gram + eigenvectors of each, then singular values of a k x k matrix.
    Source: Raghu et al. 2017.
    """
    parts = []
    for tokens in _pair(first, second, mask):
        whole = decompose(tokens.mT, min(tokens.shape[-2:]))
        k = spectral_k_of(whole.eigenvalues, share)
        kept = torch.arange(whole.basis.shape[-1], device=k.device) < k[..., None]
        parts.append((torch.where(kept[..., None, :], whole.basis, 0.0), k))
    (u, k_x), (v, k_y) = parts
    return torch.linalg.svdvals(u.mT @ v).sum(-1) / torch.minimum(k_x, k_y)


def _pair(first: Tensor, second: Tensor, mask: Tensor | None) -> tuple[Tensor, Tensor]:
    """Both centred; all zero, which all measures answer with NaN (0/0), where a token is broken."""
    x, y = centred(first, mask), centred(second, mask)
    sound = x.isfinite().all(-1).all(-1) & y.isfinite().all(-1).all(-1)
    return (
        torch.where(sound[..., None, None], x, 0.0),
        torch.where(sound[..., None, None], y, 0.0),
    )


def _inner(x: Tensor, y: Tensor, count: Tensor) -> Tensor:
    """⟨XXᵀ, YYᵀ⟩ = ‖XᵀY‖²_F, by whichever side is smaller."""
    if x.shape[-2] ** 2 < x.shape[-1] * y.shape[-1]:
        return ((x @ x.mT) * (y @ y.mT)).sum((-2, -1))
    return ((x.mT @ y) ** 2).sum((-2, -1))


def _hsic_debiased(x: Tensor, y: Tensor, count: Tensor) -> Tensor:
    """HSIC_1 times N(N - 3), which cancels. K̃1 = K1 - diag K = -diag K: centred tokens sum to 0."""
    own_x, own_y = (x**2).sum(-1), (y**2).sum(-1)
    overlap = (own_x * own_y).sum(-1)
    value = (
        _inner(x, y, count)
        - overlap
        + own_x.sum(-1) * own_y.sum(-1) / ((count - 1) * (count - 2))
        - 2 * overlap / (count - 2)
    )
    return torch.where(value.abs() <= ROUNDING * overlap, 0.0, value)


def _neighbours(kernel: Tensor, mask: Tensor | None, k: int) -> Tensor:
    """Which tokens (columns) are among the k nearest of each (rows), all that tie included."""
    if k < 1:
        raise ValueError(f"k={k}: at least one neighbour is needed")
    squared = squared_distances_of(kernel, mask)
    reach = squared.topk(min(k, squared.shape[-1]), largest=False).values[..., -1:]
    return (squared <= reach * (1 + 1e-9)) & squared.isfinite()
