"""Tokenizers and weights of the tiny models: generated here, downloaded nowhere."""

import functools
from pathlib import Path
from typing import Any, Literal

import torch
from tokenizers import Regex, Tokenizer, decoders, models, pre_tokenizers, processors
from transformers import PreTrainedTokenizerFast

# One token each, with and without a blank before them; any other text is spelt in pieces.
WORDS = """
    user assistant model system helpful You are a the The image images Image Describe in detail
    what What colour color is shape How many objects object there Which left right above below
    of red green blue yellow black white grey circle square triangle star large small yes no
    zero one two three four five six Answer with word USER ASSISTANT User Assistant
"""
# How the tokenizers of Llama 3 and Qwen cut a text: two line breaks stay together, for example.
PIECES = (
    r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}| ?[^\s\p{L}\p{N}]+[\r\n]*"
    r"|\s*[\r\n]+|\s+(?!\S)|\s+"
)
Blanks = Literal["bytes", "first", "always"]
"""How a tokenizer treats blanks: as bytes like others; or as SentencePiece does, which marks them
and puts one more at the very start of a text, or at the start and behind each special token."""
# 1 / sqrt(inputs) for matrices keeps signals near one through every layer; this is for the rest.
SPREAD_OF_VECTORS = 0.1
# Gates start at zero in the real models, so that an untrained one does not see the image at all.
OPEN_GATE = 0.5
# One row of such a table holds all tokens of all tiles, so its length says nothing about scale.
SPREAD_OF_TILES = 0.2


def tokenizer(
    specials: tuple[str, ...],
    pad: str,
    eos: str,
    bos: str | None = None,
    named: dict[str, str] | None = None,
    writes_bos: bool = False,
    padding_side: str = "left",
    blanks: Blanks = "bytes",
) -> PreTrainedTokenizerFast:
    """BPE that can spell any text, with the special tokens a processor wants.

    Args:
        specials: in the order of their ids, which follow those of the ordinary tokens.
        pad: one of `specials`, as are `eos` and `bos`.
        eos: the stop token.
        bos: the sequence start; None where the family has none.
        named: attribute of the tokenizer -> special token, such as image_token -> "<image>".
        writes_bos: whether tokenizing writes `bos` in front of the text.
        padding_side: "left" or "right".
        blanks: what is made of blanks.
    """
    backend = Tokenizer.from_str(
        _ordinary_tokens() if blanks == "bytes" else _marked_tokens(blanks)
    )
    backend.add_special_tokens(list(specials))
    if writes_bos:
        backend.post_processor = processors.TemplateProcessing(
            single=f"{bos} $A",
            pair=f"{bos} $A {bos} $B",
            special_tokens=[(bos, backend.token_to_id(bos))],
        )
    return PreTrainedTokenizerFast(
        tokenizer_object=backend,
        pad_token=pad,
        eos_token=eos,
        bos_token=bos,
        extra_special_tokens=dict(named or {}),
        clean_up_tokenization_spaces=False,
        padding_side=padding_side,
        model_max_length=4096,
    )


@functools.cache
def _ordinary_tokens() -> str:
    """The tokens that all families share: bytes, two and three line breaks, and `WORDS`.

    The merges are written down, not trained: training breaks ties differently in every process.
    """
    merges = {("Ċ", "Ċ"): None, ("ĊĊ", "Ċ"): None}
    # "Ġ" is the blank. Words that begin with it come first, so that no later merge breaks them up.
    words = WORDS.split()
    for word in [f"Ġ{word}" for word in words] + words:
        merges |= {(word[:end], word[end]): None for end in range(1, len(word))}
    pieces = sorted(pre_tokenizers.ByteLevel.alphabet()) + ["".join(pair) for pair in merges]
    bpe = Tokenizer(
        models.BPE(vocab={piece: i for i, piece in enumerate(pieces)}, merges=list(merges))
    )
    bpe.pre_tokenizer = pre_tokenizers.Sequence(
        [
            pre_tokenizers.Split(Regex(PIECES), "isolated"),
            pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False),
        ]
    )
    bpe.decoder = decoders.ByteLevel()
    return bpe.to_str()


@functools.cache
def _marked_tokens(blanks: Literal["first", "always"]) -> str:
    """The same words as SentencePiece has them: blanks are marked, what is unknown is bytes."""
    words = WORDS.split()
    merges: dict[tuple[str, str], None] = {}
    for word in [f"▁{word}" for word in words] + words:
        merges |= {(word[:end], word[end]): None for end in range(1, len(word))}
    pieces = [f"<0x{byte:02X}>" for byte in range(256)]
    pieces += sorted({chr(code) for code in range(33, 127)} | {"▁"})
    pieces += ["".join(pair) for pair in merges]
    bpe = Tokenizer(
        models.BPE(
            vocab={piece: i for i, piece in enumerate(dict.fromkeys(pieces))},
            merges=list(merges),
            byte_fallback=True,
        )
    )
    bpe.pre_tokenizer = pre_tokenizers.Metaspace("▁", prepend_scheme=blanks, split=False)
    bpe.decoder = decoders.Sequence(
        [
            decoders.Replace("▁", " "),
            decoders.ByteFallback(),
            decoders.Fuse(),
            decoders.Strip(" ", 1, 0),
        ]
    )
    return bpe.to_str()


def save_tiny(folder: Path, model: torch.nn.Module, processor: Any, seed: int) -> None:
    """Write model and processor as one Hugging Face folder, the weights drawn from `seed`."""
    spread_weights(model, seed)
    model.save_pretrained(folder)
    processor.save_pretrained(folder)


@torch.no_grad()
def spread_weights(model: torch.nn.Module, seed: int) -> None:
    """Draw all weights anew, wide enough that another image gives clearly other logits.

    Also what the real models start at zero or one: norms, biases, learned positions and gates.
    """
    draw = torch.Generator().manual_seed(seed)
    for name, weight in model.named_parameters():
        noise = torch.randn(weight.shape, generator=draw)
        if "gate" in name.rsplit(".", 1)[-1]:
            weight.fill_(OPEN_GATE)
        elif "tile" in name:
            weight.copy_(noise * SPREAD_OF_TILES)
        elif weight.dim() >= 2:
            weight.copy_(noise * weight[0].numel() ** -0.5)
        else:
            weight.add_(noise * SPREAD_OF_VECTORS)
