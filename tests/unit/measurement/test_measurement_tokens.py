"""The measurement of a model against metrics of its hidden states, taken by another route."""

import numpy as np
import pandas as pd
import pytest
import torch
from here import Here
from PIL import Image

from mixlens.activations.reduce import PositionSums
from mixlens.activations.streams import PROMPT
from mixlens.activations.subspaces import read_subspaces, write_subspaces
from mixlens.errors import DataError
from mixlens.measurement import Asked, Measurement, Subject, load, measure
from mixlens.measurement.measure import held_out_examples
from mixlens.metrics import (
    effective_rank,
    energy_entropy,
    gini,
    mean_cosine,
    participation_ratio,
    redundancy_score,
    stable_rank,
    subspace_alignment,
    token_norms,
    top_subspace,
)
from mixlens.models import load_vlm
from mixlens.models.tiny import build_tiny_vlm
from mixlens.spec import HeldOut, SceneComponent, SceneSpec
from mixlens.tasks import vocabulary

IMAGES = 11
HELD_OUT = HeldOut(
    name="scenes",
    component=SceneComponent(
        scene=SceneSpec(image_size=64, objects=(2, 6)), tasks={"coarse": 1}, seed=3
    ),
    examples=IMAGES,
)


def measurement_in(root, name="model", base=None) -> Measurement:
    return Measurement(root, Subject(name, name, name), HELD_OUT, Asked(), base)


def look(vlm, root, batch_size=64):
    """A model measured in this process."""
    measurement = measurement_in(root)
    measure(Here(vlm), measurement, batch_size)
    return load(measurement)


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    folder = tmp_path_factory.mktemp("tiny")
    build_tiny_vlm(folder, vocabulary(), seed=2, size="test")
    return folder


@pytest.fixture(scope="module")
def vlm(folder):
    return load_vlm(str(folder))


@pytest.fixture(scope="module")
def examples():
    return held_out_examples(HELD_OUT, range(IMAGES))


@pytest.fixture(scope="module")
def measured(vlm, tmp_path_factory):
    return look(vlm, tmp_path_factory.mktemp("measured"), batch_size=4)


def cells_of(image: np.ndarray) -> torch.Tensor:
    """8 x 8 patches of 4 x 4 pixels, each channel by channel."""
    scaled = np.asarray(Image.fromarray(image).resize((32, 32), Image.Resampling.BICUBIC))
    cells = scaled.reshape(8, 4, 8, 4, 3).transpose(0, 2, 4, 1, 3).reshape(64, -1)
    return torch.from_numpy(cells).float() / 255


@pytest.fixture(scope="module")
def states(vlm, examples):
    """[images, tokens, width] of three places, straight from transformers."""
    batch = vlm.adapter.question_batch([e.image for e in examples], [PROMPT] * IMAGES)
    with torch.inference_mode():
        hidden = vlm.model(**batch, output_hidden_states=True).hidden_states
    visual = batch["input_ids"] == vlm.model.config.image_token_id
    first = int(visual[0].nonzero().max()) + 1
    words = vlm.processor.tokenizer(f" {PROMPT}", add_special_tokens=False).input_ids
    return {
        ("pixels", -1): torch.stack([cells_of(example.image) for example in examples]),
        ("visual", 0): hidden[0][visual].reshape(IMAGES, 64, -1),
        ("visual", 1): hidden[1][visual].reshape(IMAGES, 64, -1),
        ("text", 1): hidden[1][:, first : first + len(words)],
    }


def values_of(table, stream, layer, metric):
    frame = table.query("stream == @stream and layer == @layer and metric == @metric")
    return frame.set_index("example_id")["value"]


def row_of(table, stream, layer, metric):
    rows = [
        row
        for row in table.to_dict("records")
        if (row["stream"], row["layer"], row["metric"]) == (stream, layer, metric)
    ]
    assert len(rows) == 1
    return rows[0]


@pytest.mark.parametrize("place", [("pixels", -1), ("visual", 0), ("visual", 1), ("text", 1)])
def test_values_are_the_metrics_of_the_tokens(measured, states, examples, place):
    tokens = states[place]
    score = redundancy_score(tokens, pairs="ring")
    expected = {
        "gini": gini(token_norms(tokens)),
        "energy_entropy": energy_entropy(token_norms(tokens)),
        "participation_ratio": participation_ratio(tokens),
        "stable_rank": stable_rank(tokens),
        "effective_rank": effective_rank(tokens),
        "mean_cosine": mean_cosine(tokens),
        "redundancy_score": score.per_image,
    }
    for metric, value in expected.items():
        found = values_of(measured.image_metrics, *place, metric)
        assert list(found.index) == [example.example_id for example in examples]
        np.testing.assert_allclose(found, value, rtol=1e-5, atol=1e-6, err_msg=metric)
    pooled = row_of(measured.pooled_metrics, *place, "redundancy_score")
    assert pooled["n"] == IMAGES
    for name in ("value", "low", "high"):
        assert pooled[name] == pytest.approx(float(getattr(score, name)), abs=1e-6)
    clipped = row_of(measured.pooled_metrics, *place, "redundancy_score_clipped")
    assert clipped["value"] == pytest.approx(max(0, pooled["value"]))
    chance = row_of(measured.pooled_metrics, *place, "redundancy_chance")
    assert chance["value"] == pytest.approx(float(score.chance), abs=1e-6)


def test_alignment_of_consecutive_layers(measured, states):
    first, second = (top_subspace(states["visual", layer], 5) for layer in (0, 1))
    found = values_of(measured.image_metrics, "visual", 1, "subspace_alignment_previous")
    np.testing.assert_allclose(found, subspace_alignment(first, second), atol=1e-5)
    assert values_of(
        measured.image_metrics, "visual", 0, "subspace_alignment_previous"
    ).empty  # the encoder's layers are of another width


def test_gap_below_the_top_subspace(measured, states):
    singular = torch.linalg.svdvals(states["visual", 1])
    found = values_of(measured.image_metrics, "visual", 1, "subspace_gap")
    np.testing.assert_allclose(found, 1 - singular[:, 5] / singular[:, 4], atol=1e-5)


def test_every_stream_and_layer_is_there(measured):
    places = {(r["stream"], r["layer"]) for r in measured.image_metrics.to_dict("records")}
    assert places == {
        ("pixels", -1),
        ("vision", -1),
        *((stream, layer) for stream in ("visual", "text") for layer in range(3)),
    }


@pytest.mark.parametrize("batch_size", [1, 3, 64])
def test_batch_size_changes_nothing(vlm, measured, tmp_path, batch_size):
    other = look(vlm, tmp_path, batch_size)
    for name in ("image_metrics", "pooled_metrics"):
        here, there = (getattr(one, name) for one in (measured, other))
        pd.testing.assert_frame_equal(here, there, rtol=1e-5, atol=1e-6)


def test_text_that_no_image_has_touched_is_not_estimable(measured):
    assert values_of(measured.image_metrics, "text", 0, "redundancy_score").isna().all()
    pooled = row_of(measured.pooled_metrics, "text", 0, "redundancy_score")
    assert np.isnan(pooled["value"])
    assert pooled["n"] == 0


def test_a_broken_image_spoils_no_other(vlm, tmp_path):
    def poison(module, args, output):
        output = output.clone()
        if len(output) >= IMAGES:  # image 4, in every pass over all of them
            output[4, 10] = torch.nan
        return output

    handle = vlm.adapter.projector(vlm.model).register_forward_hook(poison)
    try:
        broken = look(vlm, tmp_path, IMAGES)
    finally:
        handle.remove()
    for metric in ("redundancy_score", "effective_rank", "gini", "subspace_alignment_previous"):
        found = values_of(broken.image_metrics, "visual", 2, metric).isna()
        assert found.tolist() == [i == 4 for i in range(IMAGES)], metric
    pooled = row_of(broken.pooled_metrics, "visual", 2, "redundancy_score")
    assert pooled["n"] == IMAGES - 1
    assert np.isfinite([pooled["value"], pooled["low"], pooled["high"]]).all()


def test_alignment_with_the_model_before(vlm, examples, tmp_path):
    base = measurement_in(tmp_path / "base")
    look(vlm, tmp_path / "base", batch_size=7)
    metric = "subspace_alignment_base"
    same = measurement_in(tmp_path / "same", "same", base)
    measure(Here(vlm), same)
    for place in (("vision", -1), ("visual", 0), ("visual", 2), ("text", 2)):
        found = values_of(load(same).image_metrics, *place, metric)
        np.testing.assert_allclose(found, 1, atol=5e-4)

    build_tiny_vlm(tmp_path / "other", vocabulary(), seed=9, size="test")
    other = load_vlm(str(tmp_path / "other"))
    compared = measurement_in(tmp_path / "compared", "other", base)
    measure(Here(other), compared)
    table = load(compared).image_metrics
    found = values_of(table, "visual", 2, metric)
    ids = [example.example_id for example in examples]
    look(other, tmp_path / "alone")
    first, second = (
        read_subspaces(one.part(one.tokens), ids)["visual", 2].float()
        for one in (base, measurement_in(tmp_path / "alone"))
    )
    np.testing.assert_allclose(found, subspace_alignment(first, second), atol=5e-4)
    assert found.mean() < 0.6
    pixels = values_of(table, "pixels", -1, metric)
    np.testing.assert_allclose(pixels, 1, atol=5e-4)  # the images are the same


def test_subspaces_come_back_in_the_order_asked_for(tmp_path):
    bases = {("visual", 3): torch.arange(24.0).reshape(4, 3, 2)}
    write_subspaces(tmp_path, ["a/0", "a/1"], {k: v[:2] for k, v in bases.items()})
    write_subspaces(tmp_path, ["a/2", "a/3"], {k: v[2:] for k, v in bases.items()})
    found = read_subspaces(tmp_path, ["a/3", "a/0", "a/2"])
    assert torch.equal(found["visual", 3].float(), bases["visual", 3][[3, 0, 2]])
    with pytest.raises(DataError, match=r"no subspaces of 1 images, such as a/9"):
        read_subspaces(tmp_path, ["a/0", "a/9"])


def test_position_sums_merge_over_different_numbers_of_tokens():
    # Broken tokens are there, but do not count.
    short = PositionSums(np.ones((1, 2)), np.array([2]), np.array([2]))
    long = PositionSums(np.array([[5.0, 5], [5, 5], [0, 0]]), *np.array([[1, 1, 0], [1, 3, 0]]))
    for merged in (short + long, long + short):
        assert merged.count.tolist() == [3, 1, 0]
        assert merged.mean()[:2].tolist() == [[2, 2], [5, 5]]
        assert merged.mean()[2].isnan().all()


def test_where_images_differ_in_tokens_the_mean_is_that_of_all_positions():
    short = PositionSums(np.ones((1, 2)), np.array([2]), np.array([2]))
    long = PositionSums(np.array([[5.0, 5], [5, 3]]), np.array([1, 1]), np.array([1, 1]))
    for merged in (short + long, long + short):
        assert merged.mean().tolist() == [[11 / 4, 9 / 4]] * 2


def test_two_images_are_too_few(vlm, tmp_path):
    few = HELD_OUT.model_copy(update={"examples": 2})
    with pytest.raises(DataError, match="at least 3"):
        measure(Here(vlm), Measurement(tmp_path, Subject("m", "m", "0"), few, Asked()))
