"""The picture of the images: planted structure, one start for all panels, what is left out."""

import matplotlib as mpl
import numpy as np
import pandas as pd
import pytest
from scipy.spatial.distance import pdist
from threadpoolctl import threadpool_limits

from mixlens.measurement import Measured
from mixlens.report import embedding
from mixlens.report.embedding import FEWEST, embed, embedding_of, standardised, turned
from mixlens.report.style import STYLE, svg
from mixlens.scenes.render import RGB

IMAGES = 48
COLOURS = np.array(["red", "green", "blue"])


def results(seed=0, layers=(0, 1, 2, 3), separate=20.0, images=IMAGES, **columns):
    random = np.random.default_rng(seed)
    kind = np.arange(images) % 3
    attributes = pd.DataFrame(
        {
            "example_id": [f"a/{i}" for i in range(images)],
            "dominant_colour": COLOURS[kind],
            "object_count": 1 + np.arange(images) % 7,
            **columns,
        }
    )
    centres = np.random.default_rng(99).normal(size=(3, 8))
    rows = []
    for stream in ("visual", "text"):
        for layer in layers:
            space = centres[kind] * separate * layer + random.normal(size=(images, 8))
            space[:, 7] = 1e4 * random.normal(size=images)  # a rogue dimension, without meaning
            rows += [
                {"stream": stream, "layer": layer, "example_id": name, "vector": vector}
                for name, vector in zip(attributes["example_id"], space, strict=True)
            ]
    embeddings = pd.DataFrame(rows).sample(frac=1, random_state=seed)
    return measured(attributes, embeddings)


def measured(attributes, embeddings=None):
    tables = dict.fromkeys(("examples", "image_metrics", "pooled_metrics", "nulls"), pd.DataFrame())
    return Measured(
        None, attributes=attributes, throughput={}, embeddings=embeddings, **tables
    )  # fmt: skip


@pytest.fixture(autouse=True)
def look():
    with mpl.rc_context(dict(STYLE)):
        yield


def titles(figure):
    return [axis.get_title(loc="left") for axis in figure.axes if axis.get_title(loc="left")]


def agreements(figure):
    """The number below each panel, by row."""
    texts = [axis.get_xlabel() for axis in figure.axes if axis.get_xlabel()]
    found = [float(text.split()[1].replace("−", "-")) for text in texts]
    return np.reshape(found, (2, -1))


def test_planted_clusters_are_seen_and_counted():
    figure = embedding_of({"this model": results()})
    assert titles(figure) == ["Decoder input", "Layer 2", "Layer 3"]
    colour, count = agreements(figure)
    assert abs(colour[0]) < 0.1  # nothing was planted at layer 0
    assert colour[1] == colour[2] == 1
    assert (np.abs(count) < 0.25).all()
    first = figure.axes[2]
    groups = {tuple(np.round(group.get_facecolor()[0][:3], 3)): np.asarray(group.get_offsets())
              for group in first.collections}  # fmt: skip
    assert set(groups) == {tuple(np.round(np.array(RGB[c]) / 255, 3)) for c in COLOURS}
    centres = np.array([group.mean(0) for group in groups.values()])
    widest = max(pdist(group).max() for group in groups.values())
    assert pdist(centres).min() > widest


def test_the_same_tables_give_the_same_bytes():
    one, two = (svg(embedding_of({"m": results()})) for _ in range(2))
    assert one == two


def test_threads_change_nothing():
    points = standardised(np.random.default_rng(0).normal(size=(100, 20)))
    with threadpool_limits(4, "openmp"):
        several = embed(points)
    with threadpool_limits(1, "openmp"):
        assert np.array_equal(embed(points), several)


def test_a_picture_is_turned_and_nothing_else():
    random = np.random.default_rng(1)
    picture = random.normal(size=(30, 2))
    angle = 2.0
    rotation = np.array([[np.cos(angle), -np.sin(angle)], [np.sin(angle), np.cos(angle)]])
    mirrored = picture @ rotation * [1, -1] + 9
    back = turned(mirrored, picture)
    np.testing.assert_allclose(back, picture - picture.mean(0), atol=1e-9)
    other = random.normal(size=(30, 2))
    np.testing.assert_allclose(pdist(turned(other, picture)), pdist(other))


def test_no_dimension_decides_alone():
    random = np.random.default_rng(2)
    space = random.normal(size=(50, 4))
    rogue = space * [1, 1, 1e4, 1e-3] + [0, 7, 1e5, 0]
    np.testing.assert_allclose(standardised(rogue), standardised(space), atol=1e-8)
    flat = np.column_stack([space, np.full(50, 0.1, np.float32)])
    assert (standardised(flat)[:, 4] == 0).all()
    np.testing.assert_allclose(standardised(flat).std(0)[:4], 1)


def test_models_stand_side_by_side_with_their_change():
    figure = embedding_of({"base": results(1, separate=0.0), "tuned": results(2)})
    assert titles(figure) == ["base\nlayer 2", "tuned\nlayer 2", "base\nlayer 3", "tuned\nlayer 3"]
    colour, _ = agreements(figure)
    assert (colour[[1, 3]] == 1).all()
    labels = [axis.get_xlabel() for axis in figure.axes if axis.get_xlabel()]
    assert ["change" in label for label in labels] == [False, True] * 4
    gain = float(labels[1].split("change ")[1].split()[0])
    assert gain == pytest.approx(colour[1] - colour[0], abs=0.011)
    three = embedding_of({name: results(layers=(0, 3)) for name in "abc"})
    assert titles(three) == ["a\nlayer 3", "b\nlayer 3", "c\nlayer 3"]


def test_an_image_without_a_mean_token_is_left_out():
    broken = results()
    table = broken.embeddings
    bad = (table["example_id"] == "a/7") & (table["layer"] == 2) & (table["stream"] == "visual")
    assert bad.sum() == 1
    table["vector"] = [v * np.nan if b else v for v, b in zip(table["vector"], bad, strict=True)]
    figure = embedding_of({"m": broken})
    for axis in figure.axes[:3]:
        assert sum(len(group.get_offsets()) for group in axis.collections) == IMAGES - 1
    assert agreements(figure)[0, 1] == 1


def test_more_images_than_a_picture_takes(monkeypatch):
    monkeypatch.setattr(embedding, "POINTS", 39)
    figure = embedding_of({"m": results(layers=(0, 3))})
    shown = figure.axes[0].collections
    assert sum(len(group.get_offsets()) for group in shown) == 39
    assert agreements(figure)[0, 1] > 0.95


def test_nothing_to_show_is_no_figure():
    assert embedding_of({}) is None
    assert embedding_of({"m": measured(pd.DataFrame())}) is None
    assert embedding_of({"m": results(images=FEWEST - 1)}) is None
    assert embedding_of({"m": results(dominant_colour="red", object_count=3)}) is None
    assert embedding_of({"m": results(images=FEWEST)}) is not None
    only = embedding_of({"m": results(dominant_colour="red")})
    assert len([axis for axis in only.axes if axis.get_xlabel()]) == 3
    many = embedding_of({"m": results(dominant_colour=[f"c{i}" for i in range(IMAGES)])})
    assert len([axis for axis in many.axes if axis.get_xlabel()]) == 3


def test_kinds_of_photographs_share_a_mark_where_they_are_many():
    names = ["person"] * 12 + ["vehicle"] * 10 + [f"kind {i // 2}" for i in range(26)]
    photos = results(dominant_colour="red", dominant_supercategory=names)
    figure = embedding_of({"m": photos})
    assert len([axis for axis in figure.axes if axis.get_xlabel()]) == 6  # kind and count
    shown = [len(group.get_offsets()) for group in figure.axes[0].collections]
    assert len(shown) == 10
    assert sorted(shown)[-3:] == [10, 12, 26 - 7 * 2]
    legend = next(axis.get_legend() for axis in figure.axes if axis.get_legend())
    labels = [text.get_text() for text in legend.get_texts()]
    assert labels[-1] == "others"
    assert {"person", "vehicle"} < set(labels)
    # What is nearly all others shows nothing; the next attribute that there is does.
    rare = [f"kind {i}" for i in range(IMAGES)]
    figure = embedding_of({"m": results(dominant_colour="red", dominant_supercategory=rare,
                                        dominant_shape=["star", "cross"] * 24)})  # fmt: skip
    legend = next(axis.get_legend() for axis in figure.axes if axis.get_legend())
    assert [text.get_text() for text in legend.get_texts()] == ["cross", "star"]


def test_what_is_unknown_of_photographs_has_a_mark_and_no_number():
    """As of images that lost annotations."""
    names = [None] * 6 + ["animal", "vehicle"] * 21
    counts = [np.nan] * 6 + [1.0, 2.0, 3.0] * 14
    photos = results(dominant_colour="red", dominant_supercategory=names, object_count=counts)
    figure = embedding_of({"m": photos})
    legend = next(axis.get_legend() for axis in figure.axes if axis.get_legend())
    assert [text.get_text() for text in legend.get_texts()] == ["animal", "unknown", "vehicle"]
    svg(figure)
