"""The two shortcuts of the Gram: half of it by symmetry, and its own cosines."""

import pytest
import torch

from mixlens.metrics import mean_cosine, redundancy_score
from mixlens.metrics.geometry import mean_cosine_of
from mixlens.metrics.redundancy import directions
from mixlens.metrics.spectrum import decompose, gram, self_product


@pytest.mark.parametrize("tokens", [0, 1, 2, 3, 4, 5, 7, 9, 16, 63])
def test_half_of_the_products_and_the_rest_by_symmetry(tokens):
    vectors = torch.randn(2, 3, tokens, 11, dtype=torch.float64)
    found = self_product(vectors)
    assert found.shape == (2, 3, tokens, tokens)
    torch.testing.assert_close(found, vectors @ vectors.mT, rtol=1e-12, atol=1e-12)


def test_products_carry_gradients():
    vectors = torch.randn(2, 6, 5, dtype=torch.float64, requires_grad=True)
    assert torch.autograd.gradcheck(lambda x: (self_product(x) ** 2).sum((-2, -1)), (vectors,))


@pytest.mark.parametrize("shape", [(3, 6, 9), (3, 9, 6)])
@pytest.mark.parametrize("value", [torch.nan, torch.inf])
def test_one_broken_number_breaks_its_own_gram_throughout(shape, value):
    tokens = torch.randn(shape)
    whole = gram(tokens)
    for place in ((1, 0, 0), (1, 5, 5), (1, 2, 4)):
        broken = tokens.clone()
        broken[place] = value
        found = gram(broken)
        assert found[1].isnan().all()
        assert torch.equal(found[[0, 2]], whole[[0, 2]])
        parts = decompose(broken, 3)
        assert parts.eigenvalues[1].isnan().all()
        assert parts.basis[1].isnan().all()
        for part in parts:
            assert part[[0, 2]].isfinite().all()


def test_cosines_from_the_gram():
    tokens = torch.randn(4, 7, 12, dtype=torch.float64) + 0.5
    tokens[1, 3] = 0
    tokens[2] = 0
    tokens[3, 1, 0] = torch.nan
    torch.testing.assert_close(mean_cosine_of(gram(tokens)), mean_cosine(tokens), equal_nan=True)


def test_directions_of_float32_are_those_of_float64():
    random = torch.Generator().manual_seed(0)
    mean = 30 * torch.randn(9, 40, generator=random)
    tokens = mean + torch.randn(5, 9, 40, generator=random)
    units, present = directions(tokens, None, tokens.double().mean(0))
    exact, _ = directions(tokens.double(), None, tokens.double().mean(0))
    assert present.all()
    assert (units.dtype, exact.dtype) == (torch.float32, torch.float64)
    assert float((units - exact).abs().max()) < 1e-7
    scores = [float(redundancy_score(t).value) for t in (tokens, tokens.double())]
    assert scores[0] == pytest.approx(scores[1], abs=1e-7)


def test_a_masked_token_is_no_direction_even_if_it_is_broken():
    tokens = torch.randn(2, 4, 6)
    mask = torch.ones(2, 4, dtype=torch.bool)
    mask[0, 2] = False
    tokens[0, 2] = torch.nan
    units, present = directions(tokens, mask)
    assert torch.equal(present, mask)
    assert units[0, 2].tolist() == [0] * 6
    torch.testing.assert_close(units.norm(dim=-1)[mask], torch.ones(7))
