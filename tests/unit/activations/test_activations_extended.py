"""Metrics that are asked for by name, against their functions on the states of transformers."""

import numpy as np
import pytest
import torch

from mixlens.activations.extended import extended_values
from mixlens.activations.streams import PROMPT, visit
from mixlens.metrics import gaussian_mutual_information, linear_cka, svcca, twonn
from mixlens.models import load_vlm
from mixlens.models.tiny import build_tiny_vlm
from mixlens.tasks import vocabulary


@pytest.fixture(scope="module")
def vlm(tmp_path_factory):
    folder = tmp_path_factory.mktemp("tiny")
    build_tiny_vlm(folder, vocabulary(), seed=1, size="test")
    return load_vlm(str(folder))


@pytest.fixture(scope="module")
def images():
    random = np.random.default_rng(0)
    return [random.integers(0, 256, (32, 32, 3), np.uint8) for _ in range(3)]


@pytest.fixture(scope="module")
def visual(vlm, images):
    """The states at the visual tokens, layer by layer: [images, tokens, width]."""
    batch = vlm.adapter.question_batch(images, [PROMPT] * 3)
    with torch.inference_mode():
        states = vlm.model(**batch, output_hidden_states=True).hidden_states
    here = batch["input_ids"] == vlm.adapter.image_token_id
    return [layer[here].unflatten(0, (3, -1)) for layer in states]


def test_values_are_those_of_the_public_functions(vlm, images, visual):
    names = ["twonn", "cka_previous", "svcca_previous", "mutual_information"]
    found = extended_values(vlm, images, names)
    pixels = {}
    visit(vlm, images, lambda place, tokens, _: pixels.setdefault(place[0], tokens))
    np.testing.assert_allclose(found["pixels", -1, "twonn"], twonn(pixels["pixels"]))
    for layer in (0, 1):
        tokens = visual[layer]
        expected = {
            "twonn": twonn(tokens),
            "mutual_information": gaussian_mutual_information(
                tokens, pixels["pixels"], components=8
            ),
        }
        if layer:
            pair = visual[layer - 1], tokens
            expected["cka_previous"] = linear_cka(*pair, debiased=True)
            expected["svcca_previous"] = svcca(*pair)
        for name, value in expected.items():
            np.testing.assert_allclose(
                found["visual", layer, name], value, rtol=1e-6, err_msg=f"{layer} {name}"
            )
    assert ("visual", 0, "cka_previous") not in found
    assert {stream for stream, _, name in found if name == "mutual_information"} == {"visual"}


def test_only_what_is_asked_for_is_measured(vlm, images):
    assert extended_values(vlm, images, []) == {}
    found = extended_values(vlm, images, ["rankme"])
    assert {name for _, _, name in found} == {"rankme"}
    assert {stream for stream, _, _ in found} == {"pixels", "vision", "visual", "text"}


def test_information_of_a_patch_is_what_its_token_tells(vlm, images, monkeypatch):
    """Of tokens that are the patches in noise of some size; of those of another image nothing."""

    def seen_as(tokens_of):
        def pretend(vlm, images, take):
            random = torch.Generator().manual_seed(0)
            patches = torch.randn(len(images), 400, 2, generator=random, dtype=torch.float64)
            noise = torch.randn(patches.shape, generator=random, dtype=torch.float64)
            exists = torch.ones(patches.shape[:2], dtype=torch.bool)
            take(("pixels", -1), patches, exists)
            take(("visual", 0), tokens_of(patches, noise), exists)

        monkeypatch.setattr("mixlens.activations.extended.visit", pretend)
        found = extended_values(vlm, images * 20, ["mutual_information"])
        return found["visual", 0, "mutual_information"].mean()

    # Two dimensions of correlation 1 / sqrt(2) each: -1/2 ln(1 - 1/2) twice.
    assert seen_as(lambda patches, noise: patches + noise) == pytest.approx(np.log(2), abs=0.02)
    assert seen_as(lambda patches, noise: patches.roll(1, 0)) == pytest.approx(0, abs=0.01)
