"""What all families share: every input is made by the model's own processor and chat template."""

from collections.abc import Sequence
from dataclasses import replace
from itertools import takewhile
from typing import Any, cast

import numpy as np
import torch
from jaxtyping import Bool, Int
from torch import Tensor, nn

from mixlens.errors import CheckpointError, explain, first_line
from mixlens.models.adapter import Adapter, Batch, Encoded, Image, Stack, TokenSpans, Towers
from mixlens.models.conversation import Chat
from mixlens.models.prompts import check_prompts
from mixlens.models.turns import (
    IGNORED,
    IMAGE_OF_TOKEN,
    Item,
    Packed,
    TurnTokens,
    items_a_row,
    pack,
)
from mixlens.sources.example import Example
from mixlens.sources.pixels import as_pixels

# What a processor gives that has a place for each token; everything else it gives is of images.
TOKEN_TYPES = ("token_type_ids", "mm_token_type_ids")
SEQUENCES = ("input_ids", "attention_mask", *TOKEN_TYPES)
# Every processor takes a picture of at least so many pixels a side that is at most so many times as
# long as wide; whether it takes another one it is asked.
ORDINARY_SIDE, ORDINARY_RATIO = 8, 8
BLANK = np.full((16, 32, 3), 255, np.uint8)  # of a shape that few tiles are made of


class FamilyAdapter:
    """The parts of an `Adapter` that follow from the processor alone, for joint attention.

    A family overrides what is different about it (see `mixlens.models.adapter` on what each method
    gives). It is given the processor and the configuration of a model.
    """

    sees_both_ways = False
    shares_rows = True  # whether several images may stand in a row of training

    def __init__(self, processor: Any, config: Any) -> None:
        self.processor, self.config = processor, config
        self.tokenizer = processor.tokenizer
        self.image_token_id: int = config.image_token_id
        if not processor.chat_template:
            raise CheckpointError(
                explain("model", config.name_or_path, "its processor has no chat template",
                        "Use an instruction-tuned checkpoint, or put a chat_template.jinja into "
                        "its folder.")
            )  # fmt: skip
        self.chat = Chat.of(processor.chat_template, self.tokenizer)
        self._mark: str = processor.image_token  # of an image, in the text of a conversation
        shown, plain = (self.chat.question("", with_image) for with_image in (True, False))
        before, mark, _ = shown.partition(self._mark)
        if not mark:
            raise CheckpointError(_no_mark(config.name_or_path, self._mark, self.chat))
        self._begin = before + mark
        self._mark_tokens = self._plain_tokens([self._mark])[0]
        # As `apply_chat_template` does it: most templates write the first token themselves.
        bos = self.tokenizer.bos_token
        self._adds_special = {
            with_image: bos is None or not text.startswith(bos)
            for with_image, text in ((True, shown), (False, plain))
        }
        # Some processors write a first token that neither template nor tokenizer does.
        given = processor(text=[plain], add_special_tokens=self._adds_special[False])["input_ids"]
        own = self._plain_tokens([plain], self._adds_special[False])[0]
        self._first = list(given[0])[: len(given[0]) - len(own)]
        self.end_token_id: int = self.tokenizer.convert_tokens_to_ids(self.chat.end())
        self._refused: dict[tuple[int, int], str | None] = {}
        check_prompts(self, BLANK)

    # Inputs.

    def training_batch(self, examples: Sequence[Example], unmasked: bool = False) -> Batch:
        if unmasked and self.sees_both_ways:
            raise CheckpointError(
                explain("training.attention", "flash_attention_2", "it takes no masks, and in "
                        f"{self.config.model_type} the tokens of an image see each other in both "
                        "directions", "Use sdpa.")
            )  # fmt: skip
        numbers = list(range(len(examples)))
        if unmasked:
            numbers = [i for i in numbers for _ in examples[i].turns]
            examples = [replace(e, turns=(turn,)) for e in examples for turn in e.turns]
        images = [example.image for example in examples if shows_image(example)]
        begun = self.image_batch(images or [BLANK])
        items = self._items(begun, examples, bool(images))
        each = 1
        if self.shares_rows and not unmasked:
            width = self.config.get_text_config().hidden_size
            each = items_a_row([len(item) for item in items], width)
        rows = pack(items, each, self.tokenizer.pad_token_id or 0)
        batch = {
            "input_ids": rows.input_ids,
            "labels": rows.labels,
            "position_ids": rows.position_ids[0] if len(rows.position_ids) == 1
            else rows.position_ids,
            "attention_mask": (rows.item >= 0).long() if unmasked else rows.sees[:, None],
        }  # fmt: skip
        shown = [i if shows_image(e) else -1 for i, e in zip(numbers, examples, strict=True)]
        of_items = torch.tensor(shown if images else [-1, *shown])
        batch[IMAGE_OF_TOKEN] = self.image_of_token(begun, rows, of_items)
        return batch | self.training_inputs(begun, rows)

    def image_of_token(
        self, begun: Batch, rows: Packed, of_items: Int[Tensor, " items"]
    ) -> Int[Tensor, "rows tokens"]:
        """Whose image each visual token shows, as a training batch has it.

        Args:
            begun: the `image_batch` of the images, in the order in which the rows show them.
            rows: the rows.
            of_items: the number of the example whose image an item shows; -1: none's.
        """
        visual = self.visual_positions(rows.input_ids) & (rows.turn == 0)
        return torch.where(visual, of_items[rows.item], -1)

    def training_inputs(self, begun: Batch, rows: Packed) -> Batch:
        """What the model takes besides tokens, labels, positions and mask.

        Args:
            begun: the `image_batch` of the images, in the order in which the rows show them.
            rows: the rows; a family may add what has a place for each of their tokens.
        """
        return {name: value for name, value in begun.items() if name not in SEQUENCES}

    def question_batch(self, images: Sequence[Image], questions: Sequence[str]) -> Batch:
        texts = [self.chat.question(asked) for asked in questions]
        return self.process([as_pixels(image) for image in images], texts)

    def image_batch(self, images: Sequence[Image]) -> Batch:
        return self.process([as_pixels(image) for image in images], [self._begin] * len(images))

    def process(self, pictures: Sequence[np.ndarray], texts: Sequence[str]) -> Batch:
        """The processor's own inputs of texts with an image each, left-padded."""
        given = self.processor(
            # torch takes arrays over without a copy, and warns of those that cannot be written.
            images=[[np.require(picture, requirements="W")] for picture in pictures],
            text=list(texts),
            padding=True,
            padding_side="left",
            add_special_tokens=self._adds_special[True],
            # Else a picture of one or three pixels in height passes for one of so many channels.
            input_data_format="channels_last",
            return_tensors="pt",
        )
        return dict(given)

    def shown(self, picture: np.ndarray) -> np.ndarray:
        return picture

    def refuses(self, height: int, width: int) -> str | None:
        shorter, longer = sorted((height, width))
        if shorter >= ORDINARY_SIDE and longer <= ORDINARY_RATIO * shorter:
            return None
        size = (height, width)
        if size not in self._refused:
            try:
                shown = self.image_batch([np.zeros((*size, 3), np.uint8)])
                cast(Adapter, self).views(shown, [size])
                self._refused[size] = None
            # Whatever a library raises: each has its own.
            except Exception as error:
                self._refused[size] = first_line(error).rstrip(".")
        return self._refused[size]

    def begin_tokens(self) -> list[int]:
        given = self.tokenizer([self._begin], add_special_tokens=self._adds_special[True])
        return list(given["input_ids"][0])

    def question_tokens(self, questions: Sequence[str], with_image: bool = True) -> list[list[int]]:
        texts = [self.chat.question(asked, with_image) for asked in questions]
        return self._tokens(texts, with_image)

    def positions(self, batch: Batch) -> Int[Tensor, "batch seq"] | Int[Tensor, "axes batch seq"]:
        return (batch["attention_mask"].cumsum(-1) - 1).clamp_min(0)

    def behind(self, batch: Batch) -> Batch:
        return {}

    def model_inputs(self, batch: Batch) -> dict[str, Any]:
        told = ("labels", IMAGE_OF_TOKEN)
        return {name: value for name, value in batch.items() if name not in told}

    # Where tokens are.

    def visual_positions(self, input_ids: Int[Tensor, "batch seq"]) -> Bool[Tensor, "batch seq"]:
        """Which positions of the decoder's sequence hold a visual token."""
        return input_ids == self.image_token_id

    def spans(
        self, input_ids: Int[Tensor, "batch seq"], attention_mask: Int[Tensor, "batch seq"]
    ) -> TokenSpans:
        present = attention_mask.bool()
        visual = self.visual_positions(input_ids) & present
        added = self.tokenizer.added_tokens_decoder
        reserved = torch.tensor(
            [number for number, token in added.items() if token.special], device=input_ids.device
        )
        special = torch.isin(input_ids, reserved) & present & ~visual
        return TokenSpans(visual=visual, text=present & ~visual & ~special, special=special)

    def cell_side(self) -> int:
        return int(self.config.vision_config.patch_size)

    def encoder_tokens(self, batch: Batch) -> Bool[Tensor, "images tokens"]:
        """By default as many as there are visual tokens."""
        return existing((batch["input_ids"] == self.image_token_id).sum(-1))

    def encoder_positions(self, batch: Batch) -> tuple[int, int]:
        """By default as many as reach the projector, crop by crop."""
        vision = self.config.vision_config
        return int(self.encoder_tokens(batch).sum()), (vision.image_size // vision.patch_size) ** 2

    def visual_count(self, batch: Batch) -> int:
        return int(self.visual_positions(batch["input_ids"]).sum())

    # How the model is laid out.

    def towers(self, model: Any) -> Towers:
        whole = unwrapped(model)
        return {
            "vision": [whole.model.vision_tower],
            "projector": [whole.model.multi_modal_projector],
            "language": [whole.model.language_model, whole.lm_head],
        }

    def blocks(self, model: Any) -> dict[Stack, list[nn.Module]]:
        inner = unwrapped(model).model
        vision = getattr(inner.vision_tower, "vision_model", inner.vision_tower)
        return {
            "vision": list(vision.encoder.layers),
            "language": list(inner.language_model.layers),
        }

    def projector(self, model: Any) -> nn.Module:
        return unwrapped(model).model.multi_modal_projector

    def cross_attention(self, model: Any) -> dict[int, tuple[nn.Module, nn.Module]]:
        return {}

    # Visual tokens, taken out.

    def whole_until(self, model: Any) -> int:
        return 0

    def encode(self, model: Any, batch: Batch, **options: Any) -> Encoded:
        whole = unwrapped(model)
        images = {name: value for name, value in batch.items() if name not in SEQUENCES}
        outputs = whole.get_image_features(**images, **options, return_dict=True)
        found = outputs.pooler_output
        flat = found.flatten(0, -2) if isinstance(found, Tensor) else torch.cat(list(found))
        exists = existing((batch["input_ids"] == self.image_token_id).sum(-1))
        if int(exists.sum()) != len(flat):
            raise CheckpointError(
                explain("model", self.config.name_or_path, "its processor and its vision encoder "
                        f"disagree on the number of visual tokens: {int(exists.sum())} and "
                        f"{len(flat)}", "Check its processor.")
            )  # fmt: skip
        tokens = flat.new_zeros(*exists.shape, flat.shape[-1])
        tokens[exists] = flat
        return Encoded(tokens, exists, outputs)

    def without(
        self, batch: Batch, encoded: Encoded, stays: Bool[Tensor, "images tokens"]
    ) -> dict[str, Any]:
        from transformers.modeling_outputs import BaseModelOutputWithPooling

        kept = encoded.tokens[stays & encoded.exists]
        # Some models join a list of images, others take one tensor of them.
        joins = not isinstance(encoded.outputs.pooler_output, Tensor)
        outputs = BaseModelOutputWithPooling(pooler_output=[kept] if joins else kept[None])
        return {"mm_encoder_outputs": {"image": outputs}}

    # Training rows.

    def _items(self, begun: Batch, examples: Sequence[Example], any_image: bool) -> list[Item]:
        """Every example as tokens; where none shows an image, first the blank one."""
        positions = self.positions(begun)
        planes = positions if positions.dim() == 3 else positions[None]
        present = begun["attention_mask"].bool()
        types = begun.get("mm_token_type_ids", begun.get("token_type_ids"))
        both_ways = torch.zeros_like(present)
        if self.sees_both_ways:
            assert types is not None, "the processor marks no tokens of images"
            both_ways = types == 1
        turns = iter(self._turns([(shows_image(e), turn) for e in examples for turn in e.turns]))
        rows = iter(range(len(present)))

        def item(example: Example | None) -> Item:
            told = [next(turns) for _ in example.turns] if example else []
            if example is not None and not shows_image(example):
                nothing = torch.zeros(0, dtype=torch.long)
                return Item(nothing, nothing.expand(len(planes), 0), nothing.bool(), told)
            row = next(rows)
            there = present[row]
            return Item(
                begun["input_ids"][row][there],
                planes[:, row][:, there],
                both_ways[row][there],
                told,
            )

        blank = [] if any_image else [item(None)]
        return blank + [item(example) for example in examples]

    def _turns(self, turns: Sequence[tuple[bool, Any]]) -> list[TurnTokens]:
        """The tokens of turns behind their image, or of whole conversations where there is none."""
        found: list[TurnTokens | None] = [None] * len(turns)
        for with_image in (True, False):
            places = [i for i, (seen, _) in enumerate(turns) if seen == with_image]
            own = [turns[i][1] for i in places]
            asked = self.question_tokens([turn.question for turn in own], with_image)
            texts = [self.chat.question(turn.question, with_image) for turn in own]
            answers = [self.chat.answer(turn.answer, with_image) for turn in own]
            told = self._answer_tokens(asked, texts, answers, with_image)
            for place, before, behind in zip(places, asked, told, strict=True):
                labels = [IGNORED] * len(before) + behind
                found[place] = TurnTokens(before + behind, labels)
        return [turn for turn in found if turn is not None]

    def _answer_tokens(
        self,
        asked: Sequence[list[int]],
        texts: Sequence[str],
        answers: Sequence[str],
        with_image: bool,
    ) -> list[list[int]]:
        """The tokens of answers behind the tokens of their questions, which are not touched.

        An answer's first token may join with what the question ends with, such as a line break
        before it with another. No such token can ever follow the question that is asked: then the
        answer is taken without the blanks before it, and at last by itself.
        """
        told: list[list[int]] = [[] for _ in asked]
        left = list(range(len(asked)))
        for answer_of in (str, str.lstrip):
            whole = self._tokens([texts[i] + answer_of(answers[i]) for i in left], with_image)
            for i, tokens in zip(left, whole, strict=True):
                if tokens[: len(asked[i])] == asked[i]:
                    told[i] = tokens[len(asked[i]) :]
            left = [i for i in left if not told[i]]
        for i, tokens in zip(left, self._behind([answers[i].lstrip() for i in left]), strict=True):
            told[i] = tokens
        return told

    def _tokens(self, texts: Sequence[str], with_image: bool) -> list[list[int]]:
        """The tokens of conversations; of those that show an image what stands behind it."""
        if with_image:
            assert all(text.startswith(self._begin) for text in texts)
            return self._behind([text[len(self._begin) :] for text in texts])
        found = self._plain_tokens(texts, self._adds_special[False])
        return [[*self._first, *tokens] for tokens in found]

    def _behind(self, texts: Sequence[str]) -> list[list[int]]:
        """The tokens of texts that stand behind an image.

        They are cut with the image's mark before them: some tokenizers begin a text with a blank
        of their own, but not one behind a mark.
        """
        cut = len(self._mark_tokens)
        return [tokens[cut:] for tokens in self._plain_tokens([self._mark + t for t in texts])]

    def _plain_tokens(
        self, texts: Sequence[str], add_special_tokens: bool = False
    ) -> list[list[int]]:
        if not texts:
            return []
        given = self.tokenizer(list(texts), add_special_tokens=add_special_tokens)
        return list(given["input_ids"])


def _no_mark(model: str, mark: str, chat: Chat) -> str:
    """What is wrong with a template that does not write the `mark` of an image."""
    shown, plain = (chat.question("?", with_image) for with_image in (True, False))
    same = takewhile(lambda pair: pair[0] == pair[1], zip(shown, plain, strict=False))
    place = len(list(same))
    written = shown[place : place + len(shown) - len(plain)].strip()
    if not written:
        return explain("model", model, f"its chat template shows no {mark}",
                       "Use a checkpoint whose template takes images.")  # fmt: skip
    return explain("model", model, f"its chat template writes {written!r} for an image, but its "
                   f"processor looks for {mark!r}",
                   f"Write {mark} there in chat_template.jinja of a copy of its folder, or take "
                   "the newest files of the repository that is made for transformers (its name "
                   "often ends in -hf).")  # fmt: skip


def shows_image(example: Example) -> bool:
    """Whether the turns of an example are about an image."""
    return isinstance(example.image, bytes) or example.image.size > 0


def existing(counts: Int[Tensor, " images"]) -> Bool[Tensor, "images tokens"]:
    """The first so many of each image's tokens."""
    return torch.arange(int(counts.max()), device=counts.device) < counts[:, None]


def unwrapped(model: Any) -> Any:
    """The transformers model inside a peft model, or the model itself."""
    return model.get_base_model() if hasattr(model, "get_base_model") else model
