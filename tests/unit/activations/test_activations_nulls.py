"""Nulls against closed forms, and against the public functions on the model's own states."""

import math
import weakref

import numpy as np
import pytest
import torch
from scipy import stats

from mixlens.activations import nulls, reduce
from mixlens.activations.nulls import NULLS, null_values
from mixlens.activations.reduce import image_values, position_sums
from mixlens.activations.streams import visit
from mixlens.metrics import (
    effective_rank,
    gini,
    participation_ratio,
    pseudo_images,
    redundancy_score,
    stable_rank,
    subspace_alignment,
    token_norms,
    top_subspace,
)
from mixlens.models import load_vlm
from mixlens.models.tiny import build_tiny_vlm
from mixlens.sources import open_source
from mixlens.spec import SceneComponent, SceneSpec
from mixlens.tasks import vocabulary

IMAGES = 24


@pytest.fixture(scope="module")
def vlm(tmp_path_factory):
    folder = tmp_path_factory.mktemp("tiny")
    build_tiny_vlm(folder, vocabulary(), seed=2, size="test")
    return load_vlm(str(folder))


@pytest.fixture(scope="module")
def examples():
    spec = SceneComponent(
        scene=SceneSpec(image_size=64, objects=(2, 9)), tasks={"coarse": 1}, seed=3
    )
    source = open_source("scenes", spec)
    return [source.example(index) for index in range(IMAGES)]


@pytest.fixture(scope="module")
def images(examples):
    return [example.image for example in examples]


@pytest.fixture(scope="module")
def sums(vlm, images):
    return position_sums(vlm, images)


@pytest.fixture(scope="module")
def table(vlm, images, sums):
    return null_values(vlm, images, sums)


@pytest.fixture(scope="module")
def states(vlm, images):
    seen = {}
    visit(vlm, images, lambda place, tokens, exists: seen.update({place: tokens.clone()}))
    return seen


def row_of(table, stream, layer, metric, null):
    rows = [
        row
        for row in table.to_pylist()
        if (row["stream"], row["layer"], row["metric"], row["null"])
        == (stream, layer, metric, null)
    ]
    assert len(rows) == 1
    return rows[0]


PLACES = [("pixels", -1), ("vision", -1), ("visual", 1), ("text", 2)]


@pytest.mark.parametrize("place", PLACES)
def test_gaussian_nulls_have_their_closed_forms(table, states, place):
    n, d = states[place].shape[1:]
    small, large = min(n, d), max(n, d)
    closed = {
        "participation_ratio": (n * d + 2) / (n + d + 1),
        # Page's mean entropy, of real matrices to the next order.
        "von_neumann_entropy": math.log(small) - small / (2 * large),
        "mean_cosine": 0.0,
        "redundancy_score": 0.0,
        "subspace_alignment_base": min(5, n) / d,
    }
    slack = {"von_neumann_entropy": 0.03, "participation_ratio": 2e-3 * small}
    for metric, value in closed.items():
        row = row_of(table, *place, metric, "gaussian")
        assert row["n"] == IMAGES
        spread = (row["high"] - row["low"]) / 2
        assert 0 < spread < 0.1 * small
        assert row["value"] == pytest.approx(value, abs=2.2 * spread + slack.get(metric, 0)), metric


def test_gaussian_nulls_are_of_as_many_tokens_as_wide(table, states):
    """Wider or longer tokens would be told by the participation ratio."""
    found = {
        place: row_of(table, *place, "participation_ratio", "gaussian")["value"] for place in PLACES
    }
    assert len({round(value, 1) for value in found.values()}) == 3  # vision is as wide as visual
    assert found["vision", -1] == found["visual", 1]


def test_each_shape_is_drawn_once(vlm, images, sums, states, monkeypatch):
    drawn = []
    gaussian = nulls.gaussian_null

    def count(tokens, mask, seed):
        drawn.append(tokens.shape)
        return gaussian(tokens, mask, seed)

    monkeypatch.setattr(nulls, "gaussian_null", count)
    null_values(vlm, images, sums)
    assert len(drawn) == len(set(drawn)) == len({tokens.shape for tokens in states.values()})


@pytest.mark.parametrize("place", PLACES)
def test_pseudo_images_are_measured_like_images(table, states, place):
    moved, _ = pseudo_images(states[place], None, 0)
    for metric, function in {
        "participation_ratio": participation_ratio,
        "stable_rank": stable_rank,
        "effective_rank": effective_rank,
        "gini": lambda tokens: gini(token_norms(tokens)),
    }.items():
        values = function(moved).numpy()
        row = row_of(table, *place, metric, "pseudo_images")
        interval = stats.t.interval(0.95, IMAGES - 1, values.mean(), stats.sem(values))
        assert row["value"] == pytest.approx(values.mean(), rel=1e-6)
        assert (row["low"], row["high"]) == pytest.approx(interval, rel=1e-5)
        assert row["n"] == IMAGES
    score = redundancy_score(moved, pairs="ring")
    row = row_of(table, *place, "redundancy_score", "pseudo_images")
    for name in ("value", "low", "high"):
        assert row[name] == pytest.approx(float(getattr(score, name)), abs=1e-5)


def test_pseudo_images_of_two_layers_mix_the_same_tokens(table, states):
    first, second = (
        top_subspace(pseudo_images(states["visual", layer], None, 0)[0], 5) for layer in (0, 1)
    )
    row = row_of(table, "visual", 1, "subspace_alignment_previous", "pseudo_images")
    expected = float(subspace_alignment(first, second).mean())
    assert row["value"] == pytest.approx(expected, abs=1e-5)
    chance = row_of(table, "visual", 1, "subspace_alignment_previous", "gaussian")
    assert row["low"] > chance["high"]


def test_every_metric_has_both_nulls(vlm, images, sums):
    table = null_values(vlm, images[:5], sums)
    assert table.schema == NULLS
    keys = ["stream", "layer", "metric"]
    values, _ = image_values(vlm, images[:6], sums, 5, None)
    wanted = {key for key in values if key[2] not in (reduce.WITHIN, reduce.ACROSS)}
    wanted |= {(stream, layer, "redundancy_score") for stream, layer, _ in values}
    frame = table.to_pandas()
    for null, extra in (("gaussian", {"subspace_alignment_base"}), ("pseudo_images", set())):
        rows = frame[frame["null"] == null][keys]
        assert not rows.duplicated().any()
        found = set(rows.itertuples(index=False, name=None))
        assert wanted <= found
        assert {metric for _, _, metric in found - wanted} == extra
    assert set(frame["n"]) <= set(range(6))
    assert (frame["n"].max(), frame["n"].min()) == (5, 0)


def test_what_cannot_be_estimated_is_nan(table, vlm, images, sums):
    untouched = row_of(table, "text", 0, "redundancy_score", "pseudo_images")
    assert math.isnan(untouched["value"])
    assert untouched["n"] == 0
    one = null_values(vlm, images[:1], sums)
    for metric, ends in (("gini", False), ("redundancy_score", True)):
        row = row_of(one, "visual", 1, metric, "gaussian")
        assert math.isnan(row["value"]) is ends
        assert math.isnan(row["low"])
        assert math.isnan(row["high"])
    assert row_of(one, "visual", 1, "subspace_alignment_previous", "gaussian")["n"] == 0


def test_a_broken_token_is_left_out(vlm, images, sums):
    def poison(module, args, output):
        output = output.clone()
        output[4, 10] = torch.nan
        return output

    handle = vlm.adapter.projector(vlm.model).register_forward_hook(poison)
    try:
        table = null_values(vlm, images, sums)
    finally:
        handle.remove()
    for metric in ("gini", "effective_rank", "redundancy_score"):
        row = row_of(table, "visual", 0, metric, "pseudo_images")
        assert row["n"] == IMAGES
        assert np.isfinite([row["value"], row["low"], row["high"]]).all()


@pytest.mark.parametrize("room", [reduce, nulls])
def test_one_layer_is_alive_at_a_time(vlm, images, sums, monkeypatch, room):
    """Storages, not tensors: a view kept of a layer would keep all of it."""
    states = torch.ones(2, 2)
    kept, view = weakref.ref(states.untyped_storage()), states[0]
    del states
    assert kept() is not None  # so the test would see a view
    del view
    assert kept() is None

    storages = []

    def watched(vlm, images, take):
        def watch(place, tokens, exists):
            # The model itself holds its patches and what its encoder gave.
            alive = [p for p, kept in storages if kept() is not None and p[1] >= 0]
            assert alive in ([], [("visual", place[1])])  # text is of the same layer
            storages.append((place, weakref.ref(tokens.untyped_storage())))
            take(place, tokens, exists)

        visit(vlm, images, watch)

    monkeypatch.setattr(room, "visit", watched)
    if room is reduce:
        image_values(vlm, images[:4], sums, 3)
    else:
        null_values(vlm, images[:4], sums)
    assert len(storages) == 8
