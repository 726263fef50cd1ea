"""The four token streams of an image, and one forward pass that visits all of them."""

from collections.abc import Callable, Sequence
from typing import Literal, get_args

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor
from torch.nn.utils.rnn import pad_sequence

from mixlens.errors import CheckpointError, explain
from mixlens.models import VLM
from mixlens.models.adapter import Image
from mixlens.models.capture import capture
from mixlens.models.places import patches
from mixlens.sources.pixels import as_pixels

Stream = Literal["pixels", "vision", "visual", "text"]
STREAMS: tuple[Stream, ...] = get_args(Stream)
PIXEL_LAYER = -1

# The text is the same for every image, so that the text positions of all images compare.
PROMPT = "describe the image ."

Place = tuple[str, int]
Visit = Callable[[Place, Float[Tensor, "images tokens width"], Bool[Tensor, "images tokens"]], None]


def visit(vlm: VLM, images: Sequence[Image], take: Visit) -> None:
    """Run the model once over images and call `take((stream, layer), tokens, exists)` for each.

    Streams:
        pixels (layer -1): the raw pixels under each visual token, 0 to 1; the floor that any
            redundancy is compared with. Tokens that stand for no place do not exist there.
        vision (layer -1): what the vision encoder gives the projector.
        visual (layers 0, 1, ...): the decoder's states at the visual tokens; layer 0 is its input.
            Of a decoder that reads the image by cross-attention: what the projector gives, and at
            layer l the keys beside the values that block l reads, in the blocks that read any.
        text (layers 0, 1, ...): its states at the text tokens behind the image, of the fixed
            `PROMPT`. Text before the image cannot depend on it in a causal decoder and is left out,
            and so are special tokens.

    Only the states of one layer exist at a time.

    Raises:
        CheckpointError: the model gives an image no visual token.
    """
    adapter = vlm.adapter
    pictures = [as_pixels(image) for image in images]
    batch = adapter.question_batch(pictures, [PROMPT] * len(pictures))
    device = next(vlm.model.parameters()).device
    batch = {name: tensor.to(device) for name, tensor in batch.items()}
    ids = batch["input_ids"]
    spans = adapter.spans(ids, batch["attention_mask"])
    behind = (ids == adapter.image_token_id).long().cumsum(-1) > 0
    where = {}
    encoder = adapter.encoder_tokens(batch).to(device)
    if not adapter.cross_attention(vlm.model):
        where["visual"] = _positions(spans.visual)
    where["text"] = _positions(spans.text & behind)
    if not (encoder if "visual" not in where else spans.visual).any(-1).all():
        raise CheckpointError(
            explain("model", vlm.path, "an image has no visual token", "Check its processor.")
        )

    def sort(states: str, layer: int, tensor: Tensor) -> None:
        if states != "language":
            stream = "vision" if states == "vision" else "visual"
            take((stream, layer), *_by_image(tensor, encoder))
            return
        for stream, (index, exists) in where.items():
            if exists.any():
                take((stream, layer), tensor.gather(1, _wide(index, tensor)), exists)

    sizes = [(picture.shape[0], picture.shape[1]) for picture in pictures]
    with torch.inference_mode():
        views = adapter.views(batch, sizes)
        cut = [
            patches(picture, of_image, adapter.cell_side())
            for picture, of_image in zip(pictures, views, strict=True)
        ]
        pixels = pad_sequence([found for found, _ in cut], batch_first=True)
        seen = pad_sequence([there for _, there in cut], batch_first=True)
        take(("pixels", PIXEL_LAYER), pixels.to(device), seen.to(device))
        with capture(vlm, sort):
            vlm.model(**batch, use_cache=False, logits_to_keep=1)


def _by_image(
    states: Float[Tensor, "*parts width"], exists: Bool[Tensor, "images tokens"]
) -> tuple[Float[Tensor, "images tokens width"], Bool[Tensor, "images tokens"]]:
    """States of all images in a row, or of as many places an image, as a row an image."""
    flat = states.flatten(0, -2)
    if len(flat) == exists.numel():
        return flat.view(*exists.shape, -1), exists
    found = flat.new_zeros(*exists.shape, flat.shape[-1])
    found[exists] = flat
    return found, exists


def _positions(
    chosen: Bool[Tensor, "batch seq"],
) -> tuple[Int[Tensor, "batch tokens"], Bool[Tensor, "batch tokens"]]:
    """Where the chosen positions of each row stand, in order, and which of these exist."""
    count = chosen.sum(-1)
    most = int(count.max())
    index = (~chosen).long().argsort(dim=-1, stable=True)[:, :most]
    return index, torch.arange(most, device=chosen.device) < count[:, None]


def _wide(index: Tensor, states: Tensor) -> Tensor:
    return index[..., None].expand(-1, -1, states.shape[-1])
