"""The built-in vision LLM, small enough for a laptop: a stock LLaVA with random weights.

`jobs/pretrain.py` trains it; the result ships with the package as `builtin:tiny-vllm`.
"""

from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from tokenizers import Regex, Tokenizer, decoders, models, pre_tokenizers, trainers
from transformers import (
    CLIPVisionConfig,
    LlamaConfig,
    LlavaConfig,
    LlavaForConditionalGeneration,
    LlavaProcessor,
    PreTrainedTokenizerFast,
)
from transformers.models.clip.image_processing_pil_clip import CLIPImageProcessorPil

SPECIAL_TOKENS = ("<pad>", "<image>", "<|user|>", "<|assistant|>", "<|end|>")
CHAT_TEMPLATE = (
    "{% for message in messages %}"
    "{% if message.role == 'user' %}<|user|>"
    "{% for part in message.content %}"
    "{% if part.type == 'image' %}<image>{% else %} {{ part.text }}{% endif %}"
    "{% endfor %}"
    "{% else %}<|assistant|>{% generation %} {{ message.content[0].text }}<|end|>"
    "{% endgeneration %}{% endif %}"
    "{% endfor %}"
    "{% if add_generation_prompt %}<|assistant|>{% endif %}"
)


@dataclass(frozen=True)
class Size:
    """Shape of the built-in model; the image is a grid of 8 x 8 patches in every size."""

    image_size: int
    vision_width: int
    vision_layers: int
    width: int
    layers: int


SIZES = {
    "base": Size(image_size=112, vision_width=128, vision_layers=4, width=128, layers=6),
    "test": Size(image_size=32, vision_width=32, vision_layers=2, width=32, layers=2),
}
PATCHES_A_SIDE = 8
HEAD_WIDTH = 32
# The usual 0.02 suits widths in the thousands; this is nearer to 1 / sqrt(width).
INITIAL_SPREAD = 0.06


def build_tiny_vlm(folder: Path, words: Iterable[str], seed: int = 0, size: str = "base") -> None:
    """Write an ordinary Hugging Face folder of the model with random weights.

    Args:
        folder: where to; created if missing.
        words: words that become one token each. Any other text is spelt in bytes, so none is lost.
        seed: of the weights.
        size: a key of `SIZES`; "test" has about 50,000 parameters.
    """
    shape = SIZES[size]
    tokenizer = _tokenizer(words)
    torch.manual_seed(seed)
    model = LlavaForConditionalGeneration(_config(shape, tokenizer))
    processor = LlavaProcessor(
        CLIPImageProcessorPil(
            size={"height": shape.image_size, "width": shape.image_size},
            crop_size={"height": shape.image_size, "width": shape.image_size},
            do_center_crop=False,
            # The white background becomes zero, so that an empty patch starts as its position.
            image_mean=[1.0, 1.0, 1.0],
            image_std=[0.5, 0.5, 0.5],
        ),
        tokenizer,
        patch_size=shape.image_size // PATCHES_A_SIDE,
        vision_feature_select_strategy="default",
        num_additional_image_tokens=1,
        chat_template=CHAT_TEMPLATE,
    )
    model.save_pretrained(folder)
    processor.save_pretrained(folder)


def _config(shape: Size, tokenizer: Any) -> LlavaConfig:
    vision = CLIPVisionConfig(
        hidden_size=shape.vision_width,
        intermediate_size=3 * shape.vision_width,
        num_hidden_layers=shape.vision_layers,
        num_attention_heads=shape.vision_width // HEAD_WIDTH,
        image_size=shape.image_size,
        patch_size=shape.image_size // PATCHES_A_SIDE,
        initializer_range=INITIAL_SPREAD,
    )
    text = LlamaConfig(
        hidden_size=shape.width,
        intermediate_size=3 * shape.width,
        num_hidden_layers=shape.layers,
        num_attention_heads=shape.width // HEAD_WIDTH,
        num_key_value_heads=shape.width // HEAD_WIDTH,
        vocab_size=len(tokenizer),
        max_position_embeddings=1024,
        initializer_range=INITIAL_SPREAD,
        pad_token_id=tokenizer.pad_token_id,
        bos_token_id=None,
        eos_token_id=tokenizer.eos_token_id,
        tie_word_embeddings=True,
    )
    return LlavaConfig(
        vision_config=vision,
        text_config=text,
        image_token_id=tokenizer.convert_tokens_to_ids("<image>"),
        vision_feature_layer=-1,
        vision_feature_select_strategy="default",
        tie_word_embeddings=True,
        pad_token_id=tokenizer.pad_token_id,
        eos_token_id=tokenizer.eos_token_id,
    )


def _tokenizer(words: Iterable[str]) -> PreTrainedTokenizerFast:
    """Byte-level BPE in which each of `words` is one token when a space stands before it."""
    bpe = Tokenizer(models.BPE())
    bpe.pre_tokenizer = pre_tokenizers.Sequence(
        [
            pre_tokenizers.Split(Regex(r" ?[^\s]+|\s+"), "isolated"),
            pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False),
        ]
    )
    bpe.decoder = decoders.ByteLevel()
    corpus = [f" {word}" for word in sorted(set(words))]
    bpe.train_from_iterator(
        corpus,
        trainers.BpeTrainer(
            vocab_size=1 << 16,  # never reached: merging ends when every word is one token
            special_tokens=list(SPECIAL_TOKENS),
            initial_alphabet=sorted(pre_tokenizers.ByteLevel.alphabet()),
            show_progress=False,
        ),
    )
    return PreTrainedTokenizerFast(
        tokenizer_object=bpe,
        pad_token="<pad>",
        eos_token="<|end|>",
        additional_special_tokens=["<image>", "<|user|>", "<|assistant|>"],
        extra_special_tokens={"image_token": "<image>"},
        clean_up_tokenization_spaces=False,
    )
