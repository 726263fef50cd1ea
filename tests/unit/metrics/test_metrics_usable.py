"""What a linear probe can use, against scikit-learn's."""

import math

import numpy as np
import pytest
import torch
from sklearn.linear_model import LogisticRegression

from mixlens.errors import DataError
from mixlens.metrics import v_information


def drawn(*shape, classes=3, signal=2.0, seed=0):
    """Features of which the first tells the label in noise, on scales far apart."""
    random = torch.Generator().manual_seed(seed)
    labels = torch.randint(0, classes, shape[:-1], generator=random)
    features = torch.randn(shape, generator=random, dtype=torch.float64)
    features[..., 0] += signal * labels
    return features * torch.logspace(-3, 3, shape[-1], dtype=torch.float64) + 7, labels


def half_held_out(samples):
    return torch.arange(samples) % 2 == 1


def losses_of_scikit_learn(learned, labels, judged, truth, classes, ridge):
    """-ln p of each judged label, biases penalised like weights; all classes are learned from."""
    assert len(np.unique(labels)) == classes
    wider = [np.concatenate([x, np.ones((len(x), 1))], 1) for x in (learned, judged)]
    model = LogisticRegression(C=1 / ridge, fit_intercept=False, tol=1e-10, max_iter=10_000)
    if classes == 2:
        # Two classes have one weight vector there, w = w1 - w0: the penalty ½|w1|² + ½|w0|² is
        # ¼|w|², half of theirs.
        model.C = 2 / ridge
    return -np.log(model.fit(wider[0], labels).predict_proba(wider[1]))[
        np.arange(len(truth)), truth
    ]


@pytest.mark.parametrize("classes", [2, 3, 6])
@pytest.mark.parametrize("ridge", [0.3, 10.0])
@pytest.mark.parametrize("width", [4, 90])
def test_v_information_agrees_with_scikit_learn(classes, ridge, width):
    features, labels = drawn(120, width, classes=classes)
    held = half_held_out(120)
    x, y = features.numpy(), labels.numpy()
    learn, judge = ~held.numpy(), held.numpy()
    x = (x - x[learn].mean(0)) / x[learn].std(0)
    without, given = (
        losses_of_scikit_learn(side[learn], y[learn], side[judge], y[judge], classes, ridge)
        for side in (x[:, :0], x)
    )
    found = v_information(features, labels, classes, held, ridge=ridge)
    assert found == pytest.approx((without - given).mean(), abs=1e-5)


def test_features_tell_of_their_labels_and_strangers_do_not():
    told = drawn(400, 3, classes=2, signal=6.0)
    strange = drawn(400, 3, classes=2, signal=0.0)
    held = half_held_out(400)
    assert v_information(*told, 2, held) > 0.9 * math.log(2)
    assert abs(v_information(*strange, 2, held)) < 0.02


def test_v_information_of_a_binary_channel():
    """X a label seen through a channel that lies every tenth time: ln 2 - H(.1) nats."""
    turn = torch.arange(4000) // 2
    labels, lies = turn % 2, turn // 2 % 10 == 0
    features = (labels ^ lies).double()[:, None]
    truth = math.log(2) + 0.1 * math.log(0.1) + 0.9 * math.log(0.9)
    found = v_information(features, labels, 2, half_held_out(4000))
    assert found == pytest.approx(truth, abs=1e-4)


def test_v_information_counts_linear_information_only():
    random = torch.Generator().manual_seed(0)
    bits = torch.randint(0, 2, (2000, 2), generator=random)
    labels = bits[:, 0] ^ bits[:, 1]
    held = half_held_out(2000)
    assert abs(v_information(bits.double(), labels, 2, held)) < 0.01
    product = (bits[:, :1] * bits[:, 1:]).double()
    assert v_information(torch.cat([bits, product], 1), labels, 2, held) > 0.65


def information(features, labels, mask=None):
    held = half_held_out(labels.shape[-1]).expand(labels.shape)
    return v_information(features, labels, 3, held, mask)


def test_leading_dimensions_and_masks_of_probes():
    features, labels = drawn(2, 3, 60, 4)
    keep = torch.tensor([60, 50, 41])
    mask = (torch.arange(60) < keep[:, None]).expand(2, 3, 60)
    hidden = torch.where(mask[..., None], features, torch.nan)
    found = information(hidden, torch.where(mask, labels, -100), mask)
    assert found.shape == (2, 3)
    assert found.dtype == torch.float64
    for i in range(2):
        for j in range(3):
            alone = information(features[i, j, : keep[j]], labels[i, j, : keep[j]])
            assert torch.allclose(found[i, j], alone, rtol=1e-4)


def test_scale_shift_and_names_of_classes_change_nothing():
    features, labels = drawn(80, 4)
    expected = information(features, labels)
    moved = features * torch.tensor([1e4, -1.0, 1e-4, 3.0]) - 5
    assert torch.allclose(information(moved, labels), expected, rtol=1e-4)
    renamed = torch.tensor([2, 0, 1])[labels]
    assert torch.allclose(information(features, renamed), expected, rtol=1e-4)


def test_low_precision_features():
    features, labels = drawn(200, 6)
    features = (features - 7) / torch.logspace(-3, 3, 6, dtype=torch.float64) + 1
    exact = information(features, labels)
    assert torch.allclose(information(features.float(), labels), exact, rtol=1e-4)
    assert torch.allclose(information(features.bfloat16(), labels), exact, rtol=2e-2)


def test_a_nan_spoils_its_own_probe_only():
    features, labels = drawn(3, 40, 4)
    whole = information(features, labels)
    features[1, 3, 2] = torch.nan
    found = information(features, labels)
    assert found.isnan().tolist() == [False, True, False]
    assert torch.allclose(found[[0, 2]], whole[[0, 2]], rtol=1e-4)


def test_constant_features_say_nothing():
    labels = drawn(64, 1)[1]
    held = half_held_out(64)
    constant = torch.full((64, 3), 0.1, dtype=torch.float64)
    for same in (constant, torch.zeros(64, 3)):
        # Products with columns of zeros may be summed in another order.
        assert v_information(same, labels, 3, held) == pytest.approx(0, abs=1e-15)


def test_constant_labels_leave_nothing_to_say():
    features = drawn(64, 3)[0]
    labels = torch.zeros(64, dtype=torch.long)
    held = half_held_out(64)
    assert v_information(features, labels, 3, held) == pytest.approx(0, abs=1e-6)
    assert v_information(features, labels, 1, held) == 0


def test_no_samples_on_a_side_are_not_estimable():
    features, labels = drawn(12, 3)
    nobody = torch.zeros(12, dtype=torch.bool)
    assert v_information(features, labels, 3, nobody).isnan()
    assert v_information(features, labels, 3, ~nobody).isnan()


def test_a_class_never_learned_from_has_a_finite_loss():
    features, labels = drawn(40, 3, classes=2)
    labels[half_held_out(40)] = 2
    assert v_information(features, labels, 3, half_held_out(40)).isfinite()


def test_labels_outside_their_classes_are_told():
    features, labels = drawn(12, 3)
    for wrong in (-1, 3):
        labels[5] = wrong
        with pytest.raises(DataError, match=f"got {wrong}: no class of 3"):
            v_information(features, labels, 3, half_held_out(12))
