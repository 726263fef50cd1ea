"""What a linear probe can use, against scikit-learn's and against a code written out."""

import math
from itertools import pairwise

import numpy as np
import pytest
import torch
from sklearn.linear_model import LogisticRegression

from mixlens.errors import DataError
from mixlens.metrics import mdl_codelength, v_information
from mixlens.metrics.usable import FRACTIONS


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


def test_mdl_agrees_with_a_code_written_out():
    features, labels = drawn(200, 5)
    labels[:3] = torch.arange(3)
    x = ((features - features.mean(0)) / features.std(0, correction=0)).numpy()
    y = labels.numpy()
    ends = [3, 25, 100, 200]
    expected = 3 * math.log(3)
    for start, end in pairwise(ends):
        expected += losses_of_scikit_learn(
            x[:start], y[:start], x[start:end], y[start:end], 3, 1.0
        ).sum()
    fractions = (0.011, 0.125, 0.5, 1.0)  # 2.2 samples are sent as 3
    found = mdl_codelength(features, labels, 3, fractions=fractions)
    assert found == pytest.approx(expected, abs=1e-3)


def test_what_features_tell_saves_code_and_strangers_cost_it():
    told = drawn(400, 3, classes=2, signal=6.0)
    strange = drawn(400, 3, classes=2, signal=0.0)
    held = half_held_out(400)
    assert v_information(*told, 2, held) > 0.9 * math.log(2)
    assert abs(v_information(*strange, 2, held)) < 0.02
    assert mdl_codelength(*told, 2) < 0.2 * 400 * math.log(2)
    assert 400 * math.log(2) < mdl_codelength(*strange, 2) < 1.1 * 400 * math.log(2)


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


def of_both(features, labels, mask=None):
    held = half_held_out(labels.shape[-1]).expand(labels.shape)
    return torch.stack(
        [v_information(features, labels, 3, held, mask), mdl_codelength(features, labels, 3, mask)]
    )


def test_leading_dimensions_and_masks_of_probes():
    features, labels = drawn(2, 3, 60, 4)
    keep = torch.tensor([60, 50, 41])
    mask = (torch.arange(60) < keep[:, None]).expand(2, 3, 60)
    hidden = torch.where(mask[..., None], features, torch.nan)
    found = of_both(hidden, torch.where(mask, labels, -100), mask)
    assert found.shape == (2, 2, 3)
    assert found.dtype == torch.float64
    for i in range(2):
        for j in range(3):
            alone = of_both(features[i, j, : keep[j]], labels[i, j, : keep[j]])
            assert torch.allclose(found[:, i, j], alone, rtol=1e-4)


def test_scale_shift_and_names_of_classes_change_nothing():
    features, labels = drawn(80, 4)
    expected = of_both(features, labels)
    moved = features * torch.tensor([1e4, -1.0, 1e-4, 3.0]) - 5
    assert torch.allclose(of_both(moved, labels), expected, rtol=1e-4)
    renamed = torch.tensor([2, 0, 1])[labels]
    assert torch.allclose(of_both(features, renamed), expected, rtol=1e-4)


def test_low_precision_features():
    features, labels = drawn(200, 6)
    features = (features - 7) / torch.logspace(-3, 3, 6, dtype=torch.float64) + 1
    exact = of_both(features, labels)
    assert torch.allclose(of_both(features.float(), labels), exact, rtol=1e-4)
    assert torch.allclose(of_both(features.bfloat16(), labels), exact, rtol=2e-2)


def test_a_nan_spoils_its_own_probe_only():
    features, labels = drawn(3, 40, 4)
    whole = of_both(features, labels)
    features[1, 3, 2] = torch.nan
    found = of_both(features, labels)
    assert found.isnan().tolist() == [[False, True, False]] * 2
    assert torch.allclose(found[:, [0, 2]], whole[:, [0, 2]], rtol=1e-4)


def test_constant_features_say_nothing():
    labels = drawn(64, 1)[1]
    held = half_held_out(64)
    constant = torch.full((64, 3), 0.1, dtype=torch.float64)
    assert v_information(constant, labels, 3, held) == 0
    assert mdl_codelength(constant, labels, 3) == mdl_codelength(constant[:, :0], labels, 3)
    assert v_information(torch.zeros(64, 3), labels, 3, held) == 0


def test_constant_labels_leave_nothing_to_say():
    features = drawn(64, 3)[0]
    labels = torch.zeros(64, dtype=torch.long)
    held = half_held_out(64)
    assert v_information(features, labels, 3, held) == pytest.approx(0, abs=1e-6)
    assert v_information(features, labels, 1, held) == 0
    assert mdl_codelength(features, labels, 1) == 0
    assert mdl_codelength(features, labels, 3) < 0.3 * 64 * math.log(3)


def test_no_samples_on_a_side_are_not_estimable():
    features, labels = drawn(12, 3)
    nobody = torch.zeros(12, dtype=torch.bool)
    assert v_information(features, labels, 3, nobody).isnan()
    assert v_information(features, labels, 3, ~nobody).isnan()
    assert mdl_codelength(features, labels, 3, nobody).isnan()
    assert mdl_codelength(features[:1], labels[:1], 3) == pytest.approx(math.log(3))


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
        with pytest.raises(DataError):
            mdl_codelength(features, labels, 3)


def test_fractions_rise_to_one():
    assert list(FRACTIONS) == sorted(FRACTIONS)
    assert FRACTIONS[-1] == 1
