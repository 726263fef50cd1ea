"""Pictures of every shape, given as arrays, through every family's own processor."""

from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from tiny_families import FAMILIES, build

from mixlens.activations.streams import visit
from mixlens.evaluation.generate import generate
from mixlens.models import VLM, load_vlm
from mixlens.models.family import ORDINARY_RATIO, ORDINARY_SIDE
from mixlens.models.places import patches

pytestmark = pytest.mark.case

NATIVE = ("qwen2_vl", "qwen2_5_vl", "qwen3_vl", "glm4v")
# Heights and widths: what may pass for channels, tiny ones, and wide and tall ones.
THIN = ((1, 100), (3, 90), (100, 1), (90, 3), (4, 60), (3, 3), (1, 1))
EXTREME = ((1, 300), (300, 1), (2, 402), (402, 2), (20, 3000), (3000, 20), (1, 1), (2, 1))
side, far = ORDINARY_SIDE, ORDINARY_RATIO * ORDINARY_SIDE
ORDINARY = ((side, side), (side, far), (far, side), (40, 40 * ORDINARY_RATIO))


@pytest.fixture(scope="module", params=FAMILIES)
def vlm(request: pytest.FixtureRequest, tmp_path_factory) -> VLM:
    folder: Path = tmp_path_factory.mktemp("pictures") / request.param
    build(request.param, folder)
    return load_vlm(str(folder))


def picture(height: int, width: int) -> np.ndarray:
    return np.random.default_rng(height).integers(0, 255, (height, width, 3), np.uint8)


@pytest.mark.parametrize("size", THIN, ids=str)
def test_an_array_is_the_picture_that_pillow_makes_of_it(vlm: VLM, size):
    """However few its rows are: they are rows, not channels."""
    given = picture(*size)
    ours = vlm.adapter.image_batch([given])
    theirs = vlm.processor(
        images=[[Image.fromarray(vlm.adapter.shown(given))]],
        text=[vlm.processor.tokenizer.decode(vlm.adapter.begin_tokens())],
        add_special_tokens=False,
        return_tensors="pt",
    )
    torch.testing.assert_close(ours["pixel_values"], theirs["pixel_values"], atol=0.02, rtol=0)
    for name in ("image_sizes", "image_grid_thw", "image_grids", "aspect_ratio_ids"):
        assert torch.equal(ours.get(name, torch.ones(1)), theirs.get(name, torch.ones(1)))


@pytest.mark.parametrize("size", [*EXTREME, *ORDINARY], ids=str)
@torch.no_grad()
def test_a_picture_is_taken_through_all_or_refused_by_its_size(vlm: VLM, size):
    refused = vlm.adapter.refuses(*size)
    high = max(size) / min(size) > 200
    if refused:
        assert high
        assert vlm.model.config.model_type in NATIVE
        assert refused.startswith("absolute aspect ratio must be smaller than 200, got ")
        return
    assert not (high and vlm.model.config.model_type in NATIVE)
    given = picture(*size)
    batch = vlm.adapter.image_batch([given])
    (views,) = vlm.adapter.views(batch, [size])
    pixels, exist = patches(vlm.adapter.shown(given), views, vlm.adapter.cell_side())
    encoded = vlm.adapter.encode(vlm.model, batch)
    assert len(pixels) == len(exist) == int(encoded.exists.sum())
    visit(vlm, [given], lambda place, tokens, exists: tokens)
    assert len(generate(vlm, [given], ["what ?"], [0], [2])) == 1
