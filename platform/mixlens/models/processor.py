"""The processor of a model's folder, with nothing missing that its inputs depend on."""

import os
from pathlib import Path
from typing import Any

from mixlens.errors import CheckpointError, explain, first_line

# What processors leave open unless their file says it, and fail on at the first picture, and where
# a model's configuration tells the value.
_NEEDED = (
    ("patch_size", lambda config: config.vision_config.patch_size),
    ("vision_feature_select_strategy", lambda config: config.vision_feature_select_strategy),
    (
        "num_image_tokens",
        lambda config: (config.vision_config.image_size // config.vision_config.patch_size) ** 2,
    ),
)


def load_processor(source: str, config: Any) -> Any:
    """The processor at `source`, a folder or hub id, of the model that `config` describes.

    A tokenizer without a token for padding pads with its end token. Padding is masked wherever
    there is any, and labels are given by place and not by token, so that no number depends on which
    token it is.

    Raises:
        CheckpointError: there is none, or its files lack something that a person has to put there.
    """
    from transformers import AutoProcessor

    try:
        processor = AutoProcessor.from_pretrained(source)
    except Exception as error:  # files that are damaged raise all kinds
        raise CheckpointError(
            explain("model", source, f"its processor cannot be had{offline(source)}: "
                    f"{first_line(error).rstrip('.')}",
                    "Give a folder with the files of the processor too, as save_pretrained of the "
                    "processor writes them.")
        ) from error  # fmt: skip
    tokenizer = getattr(processor, "tokenizer", None)
    if tokenizer is None:
        raise CheckpointError(
            explain("model", source, f"its processor is a {type(processor).__name__}, which takes "
                    "no text or no images",
                    "Put the processor_config.json, preprocessor_config.json and the tokenizer "
                    "files of the model into its folder.")
        )  # fmt: skip
    if tokenizer.pad_token is None:
        if tokenizer.eos_token is None:
            raise CheckpointError(
                explain(f"model {_file(source, 'tokenizer_config.json')}, pad_token", None,
                        "the tokenizer can pad with no token, and has no end token to take its "
                        "place",
                        'Put "pad_token" and "eos_token" there, as the model was published with.')
            )  # fmt: skip
        tokenizer.pad_token = tokenizer.eos_token
    for field, told in _NEEDED:
        if getattr(processor, field, "") is None:
            raise CheckpointError(
                explain(f"model {_file(source, 'processor_config.json')}, {field}", None,
                        "without it the processor does not know how many tokens an image has",
                        f'Put "{field}": {told(config)!r} there, which is what the model\'s '
                        "config.json says.".replace("'", '"'))
            )  # fmt: skip
    return processor


def offline(source: str) -> str:
    """Why a hub id may not be had."""
    is_set = os.environ.get("HF_HUB_OFFLINE") and not Path(source).is_dir()
    return " (HF_HUB_OFFLINE is set)" if is_set else ""


def _file(source: str, name: str) -> str:
    return str(Path(source) / name) if Path(source).is_dir() else f"{source}/{name}"
