"""What policies choose by: the visual tokens at a place of deletion, and the attention they get."""

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

import torch
from jaxtyping import Bool, Float, Shaped
from torch import Tensor, nn

from mixlens.activations.streams import PROMPT
from mixlens.evaluation.generate import on_device
from mixlens.models import VLM, LookingAdapter
from mixlens.models.adapter import Image
from mixlens.spec.measure import ENCODER


@dataclass(frozen=True)
class Observed:
    """Visual tokens by place of deletion; zero where an image has none.

    Attributes:
        states: what enters the decoder block; behind the encoder what the projector gives. Of a
            decoder that reads the image by cross-attention, what the projector gives everywhere.
        attention: attention received, mean over heads and askers. Behind the encoder from all
            visual tokens in the vision block that they come from (the class token is no asker: some
            models never train it); before decoder block l from the text behind the image in block
            l - 1, before block 0 in block 0 itself. By cross-attention: in the last block before l
            that reads the image, or else in the first.
    """

    states: dict[int, Float[Tensor, "images tokens width"]] = field(default_factory=dict)
    attention: dict[int, Float[Tensor, "images tokens"]] = field(default_factory=dict)


def observe(vlm: VLM, images: Sequence[Image], layers: Sequence[int], attention: bool) -> Observed:
    """One forward pass over images with a fixed text; attention is only looked at on request."""
    seen = Observed()
    adapter, model = vlm.adapter, vlm.model
    batch = on_device(vlm, adapter.question_batch(images, [PROMPT] * len(images)))
    spans = adapter.spans(batch["input_ids"], batch["attention_mask"])
    begun = (batch["input_ids"] == adapter.image_token_id).long().cumsum(-1) > 0
    behind = spans.text & begun
    blocks, readers = adapter.blocks(model)["language"], adapter.cross_attention(model)

    def states_of(layer: int) -> Callable[..., None]:
        def hook(module: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
            seen.states[layer] = _of_images(args[0], spans.visual)

        return hook

    def projected(module: nn.Module, args: tuple[Any, ...], output: Tensor) -> None:
        for layer in layers:
            seen.states[layer] = output.flatten(1, -2)

    def received_in(layer: int) -> Callable[..., None]:
        def hook(module: nn.Module, args: tuple[Any, ...], output: Any) -> None:
            weights = output[1].float().mean(1)  # [images, askers, asked]
            if layer == ENCODER and not readers:
                seen.attention[layer] = weights[:, others:, others:].mean(1)
                return
            asked = (weights * behind[..., None]).sum(1) / behind.sum(-1, keepdim=True)
            seen.attention[layer] = asked if readers else _of_images(asked, spans.visual)

        return hook

    handles = []
    if readers:
        handles.append(adapter.projector(model).register_forward_hook(projected))
    else:
        handles += [
            blocks[max(layer, 0)].register_forward_pre_hook(states_of(layer), with_kwargs=True)
            for layer in layers
        ]
    others = 0
    for layer in layers if attention else ():
        if readers:
            before = [block for block in readers if block < layer] or [min(readers)]
            module = blocks[max(before)].get_submodule("cross_attn")
        elif layer == ENCODER:
            assert isinstance(adapter, LookingAdapter)  # checked before
            block, others = adapter.encoder_output(model)
            module = adapter.blocks(model)["vision"][block].get_submodule("self_attn")
        else:
            module = blocks[max(layer - 1, 0)].get_submodule("self_attn")
        handles.append(module.register_forward_hook(received_in(layer)))
    try:
        with torch.inference_mode(), _weights_given(model, attention):
            model(**batch, use_cache=False, logits_to_keep=1)
    finally:
        for handle in handles:
            handle.remove()
    return seen


def _of_images(
    values: Shaped[Tensor, "images seq *width"], visual: Bool[Tensor, "images seq"]
) -> Shaped[Tensor, "images tokens *width"]:
    """The values at visual places, in order; zero where an image has fewer than another."""
    counts = visual.sum(-1)
    found = values.new_zeros(len(visual), int(counts.max()), *values.shape[2:])
    exists = torch.arange(found.shape[1], device=visual.device) < counts[:, None]
    found[exists] = values[visual]
    return found


@contextmanager
def _weights_given(model: Any, wanted: bool) -> Iterator[None]:
    """Inside, attention gives its weights too; fused kernels do not."""
    from mixlens.models.attention import PLAIN

    usual = model.config._attn_implementation
    if not wanted or usual == PLAIN:
        yield
        return
    model.set_attn_implementation(PLAIN)
    try:
        yield
    finally:
        model.set_attn_implementation(usual)
