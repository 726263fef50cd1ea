"""What policies choose by: the visual tokens at a place of deletion, and the attention they get."""

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor, nn

from mixlens.activations.streams import PROMPT
from mixlens.models import Batch, DeletingAdapter, Vllm
from mixlens.models.adapter import Image
from mixlens.spec.measure import ENCODER


@dataclass(frozen=True)
class Observed:
    """Visual tokens by place of deletion.

    Attributes:
        states: what enters the decoder block; behind the encoder what the projector gives.
        attention: attention received, mean over heads and askers. Behind the encoder from all
            visual tokens in the vision block that they come from (the class token is no asker: some
            models never train it); before decoder block l from the text behind the image in block
            l - 1, before block 0 in block 0 itself.
    """

    states: dict[int, Float[Tensor, "images tokens width"]] = field(default_factory=dict)
    attention: dict[int, Float[Tensor, "images tokens"]] = field(default_factory=dict)


def prompted(vllm: Vllm, images: Sequence[Image]) -> Batch:
    """The images with a text that is the same for all, on the model's device."""
    device = next(vllm.model.parameters()).device
    batch = vllm.adapter.question_batch(images, [PROMPT] * len(images))
    return {name: tensor.to(device) for name, tensor in batch.items()}


def observe(
    vllm: Vllm, adapter: DeletingAdapter, batch: Batch, layers: Sequence[int], attention: bool
) -> Observed:
    """One forward pass over a `prompted` batch; attention is only looked at on request."""
    seen = Observed()
    spans = adapter.spans(batch["input_ids"], batch["attention_mask"])
    images = len(spans.visual)
    behind = spans.text & (spans.visual.long().cumsum(-1) > 0)

    def states_of(layer: int) -> Callable[..., None]:
        def hook(module: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
            seen.states[layer] = args[0][spans.visual].unflatten(0, (images, -1))

        return hook

    def received_in(layer: int) -> Callable[..., None]:
        def hook(module: nn.Module, args: tuple[Any, ...], output: Any) -> None:
            weights = output[1].float().mean(1)  # [images, askers, asked]
            if layer == ENCODER:
                seen.attention[layer] = weights[:, others:, others:].mean(1)
            else:
                asked = (weights * behind[..., None]).sum(1) / behind.sum(-1, keepdim=True)
                seen.attention[layer] = asked[spans.visual].unflatten(0, (images, -1))

        return hook

    blocks = adapter.blocks(vllm.model)["language"]
    block, others = adapter.encoder_output(vllm.model)
    handles = [
        blocks[max(layer, 0)].register_forward_pre_hook(states_of(layer), with_kwargs=True)
        for layer in layers
    ]
    for layer in layers if attention else ():
        module = (
            adapter.attention(vllm.model, "vision", block)
            if layer == ENCODER
            else adapter.attention(vllm.model, "language", max(layer - 1, 0))
        )
        handles.append(module.register_forward_hook(received_in(layer)))
    try:
        with torch.inference_mode(), _weights_given(vllm.model, attention):
            vllm.model(**batch, use_cache=False, logits_to_keep=1)
    finally:
        for handle in handles:
            handle.remove()
    return seen


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
