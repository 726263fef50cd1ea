"""The LLaVA 1.5 family: one fixed grid of visual tokens, which stand in the text's sequence."""

from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from jaxtyping import Float, Int
from PIL import Image as PillowImage
from torch import Tensor, nn

from mixlens.models.adapter import Batch, Image, Stack, TokenSpans
from mixlens.models.conversation import question, render
from mixlens.models.turns import TurnTokens, pack
from mixlens.sources.example import Example
from mixlens.sources.pixels import as_pixels
from mixlens.spec import Tower


class LlavaAdapter:
    """Adapter of `LlavaForConditionalGeneration` (see `Adapter` for what each method gives)."""

    def __init__(self, processor: Any) -> None:
        self.processor = processor
        self.tokenizer = processor.tokenizer
        self.image_token_id: int = processor.image_token_id

    def training_batch(self, examples: Sequence[Example]) -> Batch:
        pixels = self._pixels([example.image for example in examples])
        every = [turn for example in examples for turn in example.turns]
        texts, spans = render(every, self.processor.chat_template)
        mark = self.processor.image_token
        before = texts[0].partition(mark)[0]
        behind = len(before) + len(mark)
        tokens = self.tokenizer(
            [text[behind:] for text in texts], add_special_tokens=False, return_offsets_mapping=True
        )
        turns = iter(
            TurnTokens(
                ids,
                [
                    token if span[0] <= first + behind and end + behind <= span[1] else -100
                    for token, (first, end) in zip(ids, offsets, strict=True)
                ],
            )
            for ids, offsets, span in zip(
                tokens["input_ids"], tokens["offset_mapping"], spans, strict=True
            )
        )
        shared = [
            self.tokenizer(before + self._image_tokens(pixels, row), add_special_tokens=False)
            for row in range(len(examples))
        ]
        packed = pack(
            [row["input_ids"] for row in shared],
            [[next(turns) for _ in example.turns] for example in examples],
            self.tokenizer.pad_token_id,
        )
        return {**packed, "pixel_values": pixels}

    def question_batch(self, images: Sequence[Image], questions: Sequence[str]) -> Batch:
        pixels = self._pixels(images)
        mark, template = self.processor.image_token, self.processor.chat_template
        texts = [
            question(asked, template).replace(mark, self._image_tokens(pixels, row), 1)
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

    def visual_tokens(
        self, model: Any, pixel_values: Float[Tensor, "images 3 height width"]
    ) -> Float[Tensor, "images tokens width"]:
        whole = _unwrapped(model)
        full = whole.config.vision_config.image_size
        smaller = {} if pixel_values.shape[-1] == full else {"interpolate_pos_encoding": True}
        found = whole.get_image_features(
            pixel_values=pixel_values.to(whole.dtype), return_dict=True, **smaller
        )
        return torch.stack(list(found.pooler_output))

    def shrunk(
        self, pixel_values: Float[Tensor, "images 3 height width"], tokens: int
    ) -> Float[Tensor, "images 3 lower narrower"]:
        side = self.processor.patch_size
        most = pixel_values.shape[-1] // side
        grid = min(range(1, most + 1), key=lambda cells: abs(cells**2 - tokens))
        if grid == most:
            return pixel_values
        return nn.functional.interpolate(
            pixel_values, size=(grid * side, grid * side), mode="bicubic", antialias=True
        )

    def encoder_output(self, model: Any) -> tuple[int, int]:
        config = _unwrapped(model).config
        layers = config.vision_feature_layer
        # States are counted from the embeddings, so state l is what block l - 1 puts out.
        last = layers if isinstance(layers, int) else layers[-1]
        block = last - 1 if last >= 0 else len(self.blocks(model)["vision"]) + last
        return block, int(config.vision_feature_select_strategy == "default")

    def attention(self, model: Any, stack: Stack, block: int) -> nn.Module:
        return self.blocks(model)[stack][block].get_submodule("self_attn")

    def _pixels(self, images: Sequence[Image]) -> Float[Tensor, "images 3 height width"]:
        prepare = self.processor.image_processor
        pictures = [as_pixels(image) for image in images]
        if all(height == width for height, width, _ in map(np.shape, pictures)):
            return prepare(pictures, return_tensors="pt")["pixel_values"]
        return torch.cat([_prepared(prepare, picture) for picture in pictures])

    def _image_tokens(self, pixels: Tensor, row: int) -> str:
        """One placeholder a visual token, as the processor itself counts them."""
        return str(self.processor.replace_image_token({"pixel_values": pixels}, row))


def _unwrapped(model: Any) -> Any:
    """The transformers model inside a peft model, or the model itself."""
    return model.get_base_model() if hasattr(model, "get_base_model") else model


def _prepared(prepare: Any, picture: np.ndarray) -> Float[Tensor, "1 3 height width"]:
    """One picture as the encoder takes it; all of one that is not square, squeezed into a square.

    A crop would cut off what questions are asked about, and a margin would be empty tokens.
    Coordinates in fractions of the picture's sides stay those of the token grid.
    """
    height, width, _ = picture.shape
    if height == width:
        return prepare(picture, return_tensors="pt")["pixel_values"]
    shape = prepare.crop_size if prepare.do_center_crop else prepare.size
    side = shape.height or shape.shortest_edge
    square = PillowImage.fromarray(picture).resize((side, side), prepare.resample)
    return prepare(np.asarray(square), do_resize=False, do_center_crop=False, return_tensors="pt")[
        "pixel_values"
    ]
