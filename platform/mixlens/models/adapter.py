"""What Mixlens asks of every model family, in the same terms for all of them."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal, Protocol, runtime_checkable

import numpy as np
from jaxtyping import Bool, Float, Int
from torch import Tensor, nn

from mixlens.models.places import View
from mixlens.sources.example import Example
from mixlens.spec import Tower

Batch = dict[str, Tensor]
Image = np.ndarray | bytes
Stack = Literal["vision", "language"]
Towers = Mapping[Tower, Sequence[nn.Module | nn.Parameter]]


@dataclass(frozen=True)
class TokenSpans:
    """Which positions of the decoder's sequence are what; padding is none of them.

    Where the decoder reads the image by cross-attention, no position is visual: its visual tokens
    are the keys and values that `Encoded` and `cross_attention` tell of.
    """

    visual: Bool[Tensor, "batch seq"]
    text: Bool[Tensor, "batch seq"]
    special: Bool[Tensor, "batch seq"]


@dataclass(frozen=True)
class Encoded:
    """What the projector gives the decoder.

    Attributes:
        tokens: visual tokens, zero where none exists.
        exists: which of them exist; images may differ in how many they have.
        outputs: what the family's model made besides, for `Adapter.without`.
    """

    tokens: Float[Tensor, "images tokens width"]
    exists: Bool[Tensor, "images tokens"]
    outputs: Any


class Adapter(Protocol):
    """One model family: how its input is built, where its tokens are, how it is laid out.

    Attributes:
        config: the transformers configuration of the model.
        image_token_id: the token that stands for the image, or for each of its visual tokens, in
            the decoder's sequence.
        end_token_id: the token that ends an answer in training.
        sees_both_ways: whether an image's tokens attend to each other in both directions in the
            decoder.
    """

    config: Any
    image_token_id: int
    end_token_id: int
    sees_both_ways: bool

    def training_batch(self, examples: Sequence[Example], unmasked: bool = False) -> Batch:
        """Model inputs; `labels` is -100 but at answers and what ends them.

        The turns of an image share its tokens and do not see each other: each gets the logits that
        it would get alone. A row holds one example, or several consecutive ones where that leaves
        less to compute than padding would.

        `image_of_token` says of each visual token whose image it shows, so that what is made of it
        can be pooled image by image: the number of an example, or -1 where no visual token is. It
        is [rows, seq] where visual tokens stand in the decoder's sequence, and [rows, tokens] of
        the keys and values where the decoder reads them by cross-attention. Of each image the
        tokens are in the order of `views`. The blank image is nobody's.

        Args:
            examples: any, with or without an image. Where none has one, a blank image is shown
                that nothing looks at, so that every worker runs the same modules.
            unmasked: for kernels that take no masks: every turn is a row of its own.

        Raises:
            CheckpointError: `unmasked` for a family that cannot do without masks.
        """
        ...

    def question_batch(self, images: Sequence[Image], questions: Sequence[str]) -> Batch:
        """Left-padded inputs of one question an image, as the model's own processor makes them."""
        ...

    def image_batch(self, images: Sequence[Image]) -> Batch:
        """Left-padded inputs of what every question about an image begins with, up to its end."""
        ...

    def shown(self, picture: np.ndarray) -> np.ndarray:
        """An image as the model's own processor has to be given it."""
        ...

    def refuses(self, height: int, width: int) -> str | None:
        """Why the model cannot be given a picture of so many pixels; None if it can.

        A function of the size alone, by the model's own processor.
        """
        ...

    def begin_tokens(self) -> list[int]:
        """The tokens of every prompt up to the image's, which stands for all of its visual ones."""
        ...

    def question_tokens(self, questions: Sequence[str], with_image: bool = True) -> list[list[int]]:
        """The tokens of questions behind their image, whatever it is, or of such without one."""
        ...

    def positions(self, batch: Batch) -> Int[Tensor, "batch seq"] | Int[Tensor, "axes batch seq"]:
        """Position ids of an `image_batch`; text behind goes on from the largest, in every axis."""
        ...

    def behind(self, batch: Batch) -> Batch:
        """What passes over text behind the images of an `image_batch` need besides its tokens.

        Tensors with a row an image and one place, [images, 1, ...], for any number of tokens.
        """
        ...

    def model_inputs(self, batch: Batch) -> dict[str, Any]:
        """What the forward pass takes of a training batch, which also has what is learned of it."""
        ...

    def spans(
        self, input_ids: Int[Tensor, "batch seq"], attention_mask: Int[Tensor, "batch seq"]
    ) -> TokenSpans:
        """Kinds of the positions of a batch that this adapter built."""
        ...

    def views(self, batch: Batch, sizes: Sequence[tuple[int, int]]) -> list[list[View]]:
        """Which part of its image each visual token stands for: the views of each image, in order.

        Args:
            batch: an `image_batch` or `question_batch` of the images.
            sizes: their heights and widths in pixels.
        """
        ...

    def cell_side(self) -> int:
        """Side, in pixels of the encoder's input, of the square that a visual token stands for."""
        ...

    def encoder_tokens(self, batch: Batch) -> Bool[Tensor, "images tokens"]:
        """Which tokens of the projector's input, image by image, exist."""
        ...

    def encoder_positions(self, batch: Batch) -> tuple[int, int]:
        """Positions that the vision tower runs on, and how many of them attend to each other."""
        ...

    def visual_count(self, batch: Batch) -> int:
        """Visual tokens that the projector gives for a batch, those of empty tiles included."""
        ...

    def towers(self, model: Any) -> Towers:
        """The parts of the model. What stands in a later tower too belongs to that one."""
        ...

    def blocks(self, model: Any) -> dict[Stack, list[nn.Module]]:
        """The transformer blocks in order; each puts out hidden states [batch, seq, width]."""
        ...

    def projector(self, model: Any) -> nn.Module:
        """The module that takes what the vision encoder gives."""
        ...

    def cross_attention(self, model: Any) -> dict[int, tuple[nn.Module, nn.Module]]:
        """Of the decoder blocks that read the image by cross-attention, what makes keys and values.

        Keys come as [images, heads, tokens, head width], values as [images, tokens, width].
        """
        ...

    def whole_until(self, model: Any) -> int:
        """The first decoder block, from 0, before which visual tokens can be taken out again.

        Up to there the encoder still adds to them; before block 0 they always can.
        """
        ...

    def encode(self, model: Any, batch: Batch) -> Encoded:
        """Run vision encoder and projector over the images of a batch."""
        ...

    def without(
        self, batch: Batch, encoded: Encoded, stays: Bool[Tensor, "images tokens"]
    ) -> dict[str, Any]:
        """The image's part in the arguments of a decoder pass: only the visual tokens that stay.

        Of a decoder that reads them by cross-attention, all of them: there each block that reads
        them has to heed which stay.
        """
        ...


@runtime_checkable
class ShrinkingAdapter(Adapter, Protocol):
    """A family in which smaller images give fewer visual tokens, in the same layout."""

    def smaller_batch(self, images: Sequence[Image], share: float) -> Batch:
        """The `image_batch` of images so small that they have nearest to `share` of the tokens."""
        ...


@runtime_checkable
class LookingAdapter(Adapter, Protocol):
    """A family whose visual tokens are tokens of a vision block, one each."""

    def encoder_output(self, model: Any) -> tuple[int, int]:
        """The vision block that the visual tokens come from, and how many others come first."""
        ...
