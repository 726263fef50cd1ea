"""The four token streams of an image, and one forward pass that visits all of them."""

from collections.abc import Callable, Sequence
from typing import Literal, get_args

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from mixlens.activations.capture import capture
from mixlens.errors import CheckpointError, explain
from mixlens.models import Vllm
from mixlens.models.adapter import Image

Stream = Literal["pixels", "vision", "visual", "text"]
STREAMS: tuple[Stream, ...] = get_args(Stream)
PIXEL_LAYER = -1

# The text is the same for every image, so that the text positions of all images compare.
PROMPT = "describe the image ."

Place = tuple[str, int]
Visit = Callable[[Place, Float[Tensor, "images tokens width"], Bool[Tensor, "images tokens"]], None]


def visit(vllm: Vllm, images: Sequence[Image], take: Visit) -> None:
    """Run the model once over images and call `take((stream, layer), tokens, exists)` for each.

    Streams:
        pixels (layer -1): the raw pixel patch under each visual token, 0 to 1; the floor that any
            redundancy is compared with.
        vision (layer -1): what the vision encoder gives the projector.
        visual (layers 0, 1, ...): the decoder's states at the visual tokens; layer 0 is its input.
        text (layers 0, 1, ...): its states at the text tokens behind the image, of the fixed
            `PROMPT`. Text before the image cannot depend on it in a causal decoder and is left out,
            and so are special tokens.

    Only the states of one layer exist at a time.

    Raises:
        CheckpointError: the model gives an image no visual token.
    """
    batch = vllm.adapter.question_batch(images, [PROMPT] * len(images))
    device = next(vllm.model.parameters()).device
    batch = {name: tensor.to(device) for name, tensor in batch.items()}
    spans = vllm.adapter.spans(batch["input_ids"], batch["attention_mask"])
    if not spans.visual.any(-1).all():
        raise CheckpointError(
            explain("model", vllm.path, "an image has no visual token", "Check its processor.")
        )
    behind = spans.visual.long().cumsum(-1) > 0
    where = {"visual": _positions(spans.visual), "text": _positions(spans.text & behind)}

    def sort(stack: str, layer: int, states: Tensor) -> None:
        if stack == "vision":
            take(("vision", layer), states, torch.ones_like(states[..., 0], dtype=torch.bool))
            return
        for stream in ("visual", "text"):
            index, exists = where[stream]
            if exists.any():
                take((stream, layer), states.gather(1, _wide(index, states)), exists)

    with torch.inference_mode():
        patches = vllm.adapter.patches(batch["pixel_values"])
        take(("pixels", PIXEL_LAYER), patches, torch.ones_like(patches[..., 0], dtype=torch.bool))
        with capture(vllm, sort):
            vllm.model(**batch, use_cache=False, logits_to_keep=1)


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
