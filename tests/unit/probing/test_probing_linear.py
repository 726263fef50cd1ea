"""Ridge probes against scikit-learn, and what may not leak from the images held out."""

import numpy as np
import pytest
import torch
from sklearn.linear_model import Ridge, RidgeCV
from sklearn.preprocessing import StandardScaler

from mixlens.metrics import v_information
from mixlens.probing.components import components
from mixlens.probing.linear import STRENGTHS, linear_v_information, ridge
from mixlens.probing.targets import fold_of_images

IMAGES, FOLDS = 60, 5


def _states(positions: int, width: int, seed: int = 0) -> torch.Tensor:
    generator = torch.Generator().manual_seed(seed)
    states = torch.randn(positions, IMAGES, width, generator=generator, dtype=torch.float64)
    return 3 + states * torch.linspace(0.1, 5, width)


def _values(states: torch.Tensor, columns: int) -> torch.Tensor:
    generator = torch.Generator().manual_seed(1)
    weights = torch.randn(states.shape[-1], columns, generator=generator, dtype=torch.float64)
    noise = torch.randn(IMAGES, columns, generator=generator, dtype=torch.float64)
    return 7 + states[0] @ weights + 4 * noise


@pytest.mark.parametrize("width", [12, 90])
def test_ridge_is_scikit_learns_at_every_position_and_fold(width: int) -> None:
    states = _states(3, width)
    values = _values(states, 2)
    fold = fold_of_images(IMAGES, FOLDS)
    present = torch.ones(3, IMAGES, dtype=torch.bool)
    present[1, ::7] = False
    parts = components(states, present, fold, FOLDS)
    said = ridge(parts, values, torch.eye(2, dtype=torch.float64), fold, (0.3,)).numpy()
    for position in range(3):
        for number in range(FOLDS):
            train = (present[position] & (fold != number)).numpy()
            test = (present[position] & (fold == number)).numpy()
            x = states[position].numpy()
            scaler = StandardScaler().fit(x[train])
            # A standardised state has a mean squared norm of one a feature.
            model = Ridge(alpha=0.3 * width).fit(scaler.transform(x[train]), values[train])
            want = model.predict(scaler.transform(x[test]))
            np.testing.assert_allclose(said[position, test], want, rtol=1e-9, atol=1e-8)


@pytest.mark.parametrize("width", [12, 90])
def test_the_strength_is_the_one_of_least_leave_one_out_error(width: int) -> None:
    states = _states(1, width)
    values = _values(states, 3)
    values[:, 2] = values[:, 2].flip(0)  # nothing to find: the largest penalty is best
    fold = fold_of_images(IMAGES, FOLDS)
    parts = components(states, torch.ones(1, IMAGES, dtype=torch.bool), fold, FOLDS)
    # The first two columns are one attribute, and share a strength; the third has its own.
    member = torch.tensor([[1.0, 0], [1, 0], [0, 1]], dtype=torch.float64)
    said = ridge(parts, values, member, fold)[0].numpy()
    strengths = set()
    for number in range(FOLDS):
        train, test = (fold != number).numpy(), (fold == number).numpy()
        scaler = StandardScaler().fit(states[0][train])
        x = scaler.transform(states[0])
        for columns in ([0, 1], [2]):
            model = RidgeCV(alphas=[width * one for one in STRENGTHS])
            model.fit(x[train], values[train][:, columns])
            np.testing.assert_allclose(
                said[test][:, columns], model.predict(x[test]).reshape(-1, len(columns)), rtol=1e-7
            )
            strengths.add(model.alpha_)
    assert len(strengths) > 1  # there was something to choose


def test_images_held_out_change_nothing_of_what_is_learned() -> None:
    states, fold = _states(1, 90), fold_of_images(IMAGES, FOLDS)
    present = torch.ones(1, IMAGES, dtype=torch.bool)
    changed = states.clone()
    changed[:, fold == 2] = 1e3 * changed[:, fold == 2].flip(1)
    plain, other = (components(some, present, fold, FOLDS) for some in (states, changed))
    others = fold != 2
    torch.testing.assert_close(plain.power[:, 2], other.power[:, 2])
    torch.testing.assert_close(plain.scores[:, 2, others].abs(), other.scores[:, 2, others].abs())
    assert not torch.allclose(plain.power[:, 1], other.power[:, 1])


def test_components_have_the_power_and_products_of_standardised_states() -> None:
    for width in (12, 90):
        states, fold = _states(2, width), fold_of_images(IMAGES, FOLDS)
        present = torch.ones(2, IMAGES, dtype=torch.bool)
        parts = components(states, present, fold, FOLDS)
        train = (fold != 3).numpy()
        x = StandardScaler().fit(states[1][train]).transform(states[1])
        scores = parts.scores[1, 3]
        kept = scores[fold != 3]
        np.testing.assert_allclose(kept @ kept.T, x[train] @ x[train].T, atol=1e-8)
        np.testing.assert_allclose(scores @ kept.T, x @ x[train].T, atol=1e-8)
        np.testing.assert_allclose(kept.T @ kept, parts.power[1, 3].diag(), atol=1e-8)
        assert (parts.power.diff(dim=-1) <= 1e-9).all()


def test_constant_features_are_no_features() -> None:
    states = torch.full((1, IMAGES, 6), 0.1, dtype=torch.float32)
    values = torch.randn(IMAGES, 1, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    fold = fold_of_images(IMAGES, FOLDS)
    parts = components(states, torch.ones(1, IMAGES, dtype=torch.bool), fold, FOLDS)
    assert (parts.scores == 0).all()
    said = ridge(parts, values, torch.ones(1, 1, dtype=torch.float64), fold)[0]
    for number in range(FOLDS):
        mean = values[fold != number].mean()
        torch.testing.assert_close(said[fold == number, 0], mean.expand(12))


def test_v_information_is_that_of_the_folds_and_chooses_its_ridge_without_them() -> None:
    generator = torch.Generator().manual_seed(0)
    images, fold = 400, fold_of_images(400, FOLDS)
    labels = torch.randint(2, (images,), generator=generator)
    present = torch.ones(images, dtype=torch.bool)
    # Error-free copy of a fair coin: ln 2 nats, less what the penalty and the split cost.
    copy = (2.0 * labels - 1)[:, None].double()
    told = linear_v_information(copy, labels, 2, present, fold, FOLDS)
    assert np.log(2) - 0.03 < told < np.log(2) + 0.01
    # A coin that is right in 80 %: ln 2 less the entropy of 0.8.
    wrong = torch.rand(images, generator=generator) < 0.2
    partly = torch.where(wrong[:, None], -copy, copy)
    share = float(wrong.double().mean())
    want = np.log(2) + share * np.log(share) + (1 - share) * np.log(1 - share)
    assert linear_v_information(partly, labels, 2, present, fold, FOLDS) == pytest.approx(
        want, abs=0.02
    )
    # 300 features of noise: with a fixed small ridge they would mislead by more than a nat.
    noise = torch.randn(images, 300, generator=generator, dtype=torch.float64)
    held = fold == 0
    assert v_information(noise, labels, 2, held, ridge=1.0) < -0.5
    assert -0.15 < linear_v_information(noise, labels, 2, present, fold, FOLDS) < 0.05
