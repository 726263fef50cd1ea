"""The streams of an image against what transformers itself gives out."""

import weakref
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from PIL import Image

from mixlens.activations.streams import PROMPT, visit
from mixlens.errors import CheckpointError
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
    random = torch.Generator().manual_seed(0)
    return [
        torch.randint(0, 256, (40, 40, 3), generator=random, dtype=torch.uint8).numpy()
        for _ in range(3)
    ]


def test_streams_hold_the_tokens_they_name(vlm, images):
    batch = vlm.adapter.question_batch(images, [PROMPT] * 3)
    with torch.inference_mode():
        output = vlm.model(**batch, output_hidden_states=True)
    seen = {}
    visit(vlm, images, lambda place, tokens, exists: seen.update({place: (tokens, exists)}))

    visual = batch["input_ids"] == vlm.model.config.image_token_id
    after = batch["input_ids"][0].tolist()[int(visual[0].nonzero().max()) + 1 :]
    words = vlm.processor.tokenizer(f" {PROMPT}", add_special_tokens=False).input_ids
    assert after[: len(words)] == words  # the prompt stands behind the image
    for layer in (0, 1):
        states = output.hidden_states[layer]
        tokens, exists = seen["visual", layer]
        assert exists.all()
        assert torch.equal(tokens, states[visual].reshape(3, 64, -1))
        first = int(visual[0].nonzero().max()) + 1
        assert torch.equal(seen["text", layer][0], states[:, first : first + len(words)])
    for found, image in zip(seen["pixels", -1][0], images, strict=True):
        # 8 x 8 patches of 4 x 4 pixels, each channel by channel.
        scaled = np.asarray(Image.fromarray(image).resize((32, 32), Image.Resampling.BICUBIC))
        cells = scaled.reshape(8, 4, 8, 4, 3).transpose(0, 2, 4, 1, 3).reshape(64, -1)
        torch.testing.assert_close(found, torch.from_numpy(cells).float() / 255)
    for stream in ("pixels", "vision"):
        tokens, exists = seen[stream, -1]
        assert tokens.shape[:2] == (3, 64)
        assert exists.shape == (3, 64)
        assert exists.all()
    with torch.inference_mode():
        projected = vlm.adapter.projector(vlm.model)(seen["vision", -1][0])
    torch.testing.assert_close(projected, seen["visual", 0][0])


def test_one_layer_is_alive_at_a_time(vlm, images):
    alive = []

    def take(place, tokens, exists):
        # The patches are the caller's input, not a layer of the model.
        assert [p for p, r in alive if r() is not None and p[0] != "pixels"] in (
            [],
            [("visual", place[1])],
        )
        alive.append((place, weakref.ref(tokens)))

    visit(vlm, images, take)
    assert len(alive) == 2 + 2 * 3


def test_a_model_that_sees_nothing_is_refused(vlm, images, monkeypatch):
    spans = vlm.adapter.spans

    def blind(*args):
        found = spans(*args)
        return SimpleNamespace(visual=found.visual & False, text=found.text)

    monkeypatch.setattr(vlm.adapter, "spans", blind)
    with pytest.raises(CheckpointError, match="no visual token"):
        visit(vlm, images, lambda *_: None)
