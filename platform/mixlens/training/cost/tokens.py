"""How many tokens a row of a micro-batch has, in each part of a vision LLM."""

from dataclasses import dataclass


@dataclass(frozen=True)
class RowTokens:
    """Tokens of one row, padding included.

    Attributes:
        encoder: what the vision tower runs on, over all crops, tiles or images of the row.
        encoder_length: how many of them attend to each other: those of one crop in LLaVA-like
            families, of one image in Qwen-VL, of all padded tiles of an image in Llama 3.2 Vision.
        projected: what the projector gives the decoder.
        decoder: positions of the decoder's sequence. Visual tokens count where they stand in it,
            which they do in every family but those with cross-attention.
        logits: positions that the output layer is computed for.
        answers: positions whose token counts for the loss.
    """

    encoder: int
    encoder_length: int
    projected: int
    decoder: int
    logits: int
    answers: int
