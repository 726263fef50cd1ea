"""The LLaVA 1.5 family: one fixed grid of visual tokens, which stand in the text's sequence."""

import io
from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from jaxtyping import Bool, Float, Int
from PIL import Image as PillowImage
from torch import Tensor, nn

from mixlens.models.adapter import Batch, Image, Stack, TokenSpans
from mixlens.models.conversation import Spans, messages, question, render
from mixlens.sources.example import Example
from mixlens.spec import Tower


class LlavaAdapter:
    """Adapter of `LlavaForConditionalGeneration` (see `Adapter` for what each method gives)."""

    def __init__(self, processor: Any) -> None:
        self.processor = processor
        self.tokenizer = processor.tokenizer
        self.image_token_id: int = processor.image_token_id

    def training_batch(self, examples: Sequence[Example]) -> Batch:
        pixels = self._pixels([example.image for example in examples])
        chats = [messages(example.turns) for example in examples]
        texts, spans = render(chats, self.processor.chat_template)
        for row, text in enumerate(texts):
            texts[row], spans[row] = self._with_image_tokens(pixels, row, text, spans[row])
        tokens = self.tokenizer(
            texts, padding=True, padding_side="right", add_special_tokens=False,
            return_offsets_mapping=True, return_tensors="pt",
        )  # fmt: skip
        answered = torch.stack(
            [_inside(*pair) for pair in zip(tokens["offset_mapping"], spans, strict=True)]
        )
        labels = tokens["input_ids"].masked_fill(~answered, -100)
        return {
            "input_ids": tokens["input_ids"],
            "attention_mask": tokens["attention_mask"],
            "labels": labels,
            "pixel_values": pixels,
        }

    def question_batch(self, images: Sequence[Image], questions: Sequence[str]) -> Batch:
        pixels = self._pixels(images)
        texts = [
            self._with_image_tokens(pixels, row, question(asked, self.processor.chat_template))[0]
            for row, asked in enumerate(questions)
        ]
        tokens = self.tokenizer(
            texts, padding=True, padding_side="left", add_special_tokens=False, return_tensors="pt"
        )
        return {
            "input_ids": tokens["input_ids"],
            "attention_mask": tokens["attention_mask"],
            "pixel_values": pixels,
        }

    def spans(
        self, input_ids: Int[Tensor, "batch seq"], attention_mask: Int[Tensor, "batch seq"]
    ) -> TokenSpans:
        present = attention_mask.bool()
        visual = (input_ids == self.image_token_id) & present
        added = self.tokenizer.added_tokens_decoder
        reserved = torch.tensor(
            [number for number, token in added.items() if token.special], device=input_ids.device
        )
        special = torch.isin(input_ids, reserved) & present & ~visual
        return TokenSpans(visual=visual, text=present & ~visual & ~special, special=special)

    def towers(self, model: Any) -> dict[Tower, list[nn.Module]]:
        whole = _unwrapped(model)
        return {
            "vision": [whole.model.vision_tower],
            "projector": [whole.model.multi_modal_projector],
            "language": [whole.model.language_model, whole.lm_head],
        }

    def blocks(self, model: Any) -> dict[Stack, list[nn.Module]]:
        inner = _unwrapped(model).model
        vision = getattr(inner.vision_tower, "vision_model", inner.vision_tower)
        return {
            "vision": list(vision.encoder.layers),
            "language": list(inner.language_model.layers),
        }

    def projector(self, model: Any) -> nn.Module:
        return _unwrapped(model).model.multi_modal_projector

    def patches(
        self, pixel_values: Float[Tensor, "images 3 height width"]
    ) -> Float[Tensor, "images tokens pixels"]:
        normal = self.processor.image_processor
        mean = torch.tensor(normal.image_mean, device=pixel_values.device).view(3, 1, 1)
        std = torch.tensor(normal.image_std, device=pixel_values.device).view(3, 1, 1)
        side = self.processor.patch_size
        raw = pixel_values.float() * std + mean
        return nn.functional.unfold(raw, kernel_size=side, stride=side).transpose(1, 2)

    def _pixels(self, images: Sequence[Image]) -> Float[Tensor, "images 3 height width"]:
        decoded = [_decode(image) for image in images]
        return self.processor.image_processor(decoded, return_tensors="pt")["pixel_values"]

    def _with_image_tokens(
        self, pixels: Tensor, row: int, text: str, spans: Spans | None = None
    ) -> tuple[str, Spans]:
        """One placeholder a visual token; answers move along with the text before them."""
        tokens = self.processor.replace_image_token({"pixel_values": pixels}, row)
        mark = self.processor.image_token
        added = len(tokens) - len(mark)
        return text.replace(mark, tokens, 1), [(a + added, b + added) for a, b in spans or []]


def _unwrapped(model: Any) -> Any:
    """The transformers model inside a peft model, or the model itself."""
    return model.get_base_model() if hasattr(model, "get_base_model") else model


def _decode(image: Image) -> np.ndarray:
    if isinstance(image, bytes):
        return np.asarray(PillowImage.open(io.BytesIO(image)).convert("RGB"))
    return image


def _inside(offsets: Int[Tensor, "seq 2"], spans: Spans) -> Bool[Tensor, " seq"]:
    """Tokens whose characters lie within one of the spans."""
    first, end = offsets.unbind(-1)
    inside = torch.zeros(len(offsets), dtype=torch.bool)
    for low, high in spans:
        inside |= (first >= low) & (end <= high) & (end > first)
    return inside
