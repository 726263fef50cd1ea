"""Null images: what they keep of an example and what they destroy."""

import io

import numpy as np
import pytest
from PIL import Image

from mixlens.sources import Example
from mixlens.sources.blank import null_images


@pytest.fixture
def examples():
    random = np.random.default_rng(0)
    images = [random.integers(0, 256, (20, 30, 3), dtype=np.uint8) for _ in range(2)]
    images[1][:, :15] = (200, 10, 60)
    file = io.BytesIO()
    Image.fromarray(images[1]).save(file, "png")
    return [
        Example(f"c/{i}", "c", image, (), {"object_count": i})
        for i, image in enumerate([*images, file.getvalue()])
    ]


def test_blank_is_the_mean_colour(examples):
    blank = null_images(examples, "blank")
    for example, null in zip(examples[:2], blank, strict=False):
        assert null.image.dtype == np.uint8
        assert null.image.shape == example.image.shape
        colours = np.unique(null.image.reshape(-1, 3), axis=0)
        assert len(colours) == 1
        np.testing.assert_allclose(colours[0], example.image.mean((0, 1)), atol=0.5)
    assert np.array_equal(blank[2].image, blank[1].image)  # an encoded file counts as its pixels


@pytest.mark.parametrize("kind", ["blank", "noise"])
def test_of_a_photograph_the_upright_picture_counts(kind):
    exif = Image.Exif()
    exif[274] = 6  # shown turned to the right
    file = io.BytesIO()
    Image.new("L", (30, 20), 77).save(file, "jpeg", exif=exif)
    (null,) = null_images([Example("p/0", "p", file.getvalue(), (), {})], kind)
    assert null.image.shape == (30, 20, 3)
    if kind == "blank":
        assert np.unique(null.image).tolist() == [77]


def test_noise_is_uniform_and_of_each_image_its_own(examples):
    noise = null_images(examples, "noise", seed=5)
    values = np.concatenate([null.image.ravel() for null in noise]).astype(float)
    assert values.min() == 0
    assert values.max() == 255
    assert values.mean() == pytest.approx(127.5, abs=4 * 73.9 / len(values) ** 0.5)
    first, second = (null.image.astype(float).ravel() for null in noise[:2])
    assert abs(np.corrcoef(first, second)[0, 1]) < 0.1
    rows = noise[0].image.astype(float)
    assert abs(np.corrcoef(rows[1:].ravel(), rows[:-1].ravel())[0, 1]) < 0.1


def test_an_image_s_noise_depends_on_no_other(examples):
    alone = null_images(examples[1:2], "noise", seed=5)[0]
    assert np.array_equal(alone.image, null_images(examples, "noise", seed=5)[1].image)
    assert not np.array_equal(alone.image, null_images(examples, "noise", seed=6)[1].image)


@pytest.mark.parametrize("kind", ["blank", "noise"])
def test_all_but_the_image_stays(examples, kind):
    before = [np.array(example.image) for example in examples[:2]]
    for example, null in zip(examples, null_images(examples, kind), strict=True):
        assert (null.example_id, null.turns, null.attributes) == (
            example.example_id,
            example.turns,
            example.attributes,
        )
    for example, image in zip(examples, before, strict=False):
        assert np.array_equal(example.image, image)
