"""What Mixlens asks of every model family, in the same terms for all of them."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Literal, Protocol, runtime_checkable

import numpy as np
from jaxtyping import Bool, Float, Int
from torch import Tensor, nn

from mixlens.sources.example import Example
from mixlens.spec import Tower

Batch = dict[str, Tensor]
Image = np.ndarray | bytes
Stack = Literal["vision", "language"]


@dataclass(frozen=True)
class TokenSpans:
    """Which positions of the decoder's sequence are what; padding is none of them."""

    visual: Bool[Tensor, "batch seq"]
    text: Bool[Tensor, "batch seq"]
    special: Bool[Tensor, "batch seq"]


class Adapter(Protocol):
    """One model family: how its input is built, where its tokens are, how it is laid out."""

    def training_batch(self, examples: Sequence[Example]) -> Batch:
        """Model inputs, a row an image; `labels` is -100 but at answers and what ends them.

        The turns of an image share its tokens and do not see each other: each gets the logits that
        it would get alone.
        """
        ...

    def question_batch(self, images: Sequence[Image], questions: Sequence[str]) -> Batch:
        """Left-padded inputs of one question an image, ready for generation."""
        ...

    def spans(
        self, input_ids: Int[Tensor, "batch seq"], attention_mask: Int[Tensor, "batch seq"]
    ) -> TokenSpans:
        """Kinds of the positions of a batch that this adapter built."""
        ...

    def towers(self, model: Any) -> dict[Tower, list[nn.Module]]:
        """The modules of vision tower, projector and language model."""
        ...

    def blocks(self, model: Any) -> dict[Stack, list[nn.Module]]:
        """The transformer blocks in order; each puts out hidden states [batch, seq, width]."""
        ...

    def projector(self, model: Any) -> nn.Module:
        """The module whose output is the visual tokens that enter the decoder."""
        ...

    def patches(
        self, pixel_values: Float[Tensor, "images 3 height width"]
    ) -> Float[Tensor, "images tokens pixels"]:
        """The pixels, 0 to 1, under each visual token, in token order."""
        ...


@runtime_checkable
class DeletingAdapter(Adapter, Protocol):
    """A family whose visual tokens stand in the decoder's sequence and can be taken out of it."""

    def visual_tokens(
        self, model: Any, pixel_values: Float[Tensor, "images 3 height width"]
    ) -> Float[Tensor, "images tokens width"]:
        """What the projector gives the decoder; smaller images give fewer tokens."""
        ...

    def shrunk(
        self, pixel_values: Float[Tensor, "images 3 height width"], tokens: int
    ) -> Float[Tensor, "images 3 lower narrower"]:
        """The images so small that they give as nearly so many visual tokens as any, at least 1."""
        ...

    def encoder_output(self, model: Any) -> tuple[int, int]:
        """The vision block that the visual tokens come from, and how many others come first."""
        ...

    def attention(self, model: Any, stack: Stack, block: int) -> nn.Module:
        """A block's attention; gives its output and, with plain attention, its weights."""
        ...
