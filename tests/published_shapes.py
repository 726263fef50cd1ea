"""Models of published size without weights: a configuration and a processor, to reckon with.

Architectures are those of the checkpoints that shipped sweep files name; the image processors have
their sizes. The tokenizer is the tiny models' own, whose vocabulary is small: more tokens a text.
"""

import json
from pathlib import Path
from typing import Any

import transformers as hf
from tiny_families import build


def write_shape(family: str, folder: Path) -> None:
    """Write the folder of a model of `family` in its published size, without weights."""
    build(family, folder)
    (folder / "model.safetensors").unlink()
    tiny = json.loads((folder / "config.json").read_text())
    config, images = PUBLISHED[family]()
    for name, value in tiny.items():
        if name.endswith(("_token_id", "_token_index", "_patch_id")):
            setattr(config, name, value)
    config.dtype = "bfloat16"
    config.save_pretrained(folder)
    path = folder / "processor_config.json"
    processor = json.loads(path.read_text())
    for part in ("image_processor", "video_processor"):
        if part in processor:
            processor[part] |= images
    path.write_text(json.dumps(processor))


def _qwen() -> tuple[Any, dict[str, Any]]:
    """Qwen2.5-VL-3B-Instruct, whose images have at most 1280 tokens here."""
    config = hf.Qwen2_5_VLConfig(
        text_config={
            "hidden_size": 2048, "intermediate_size": 11008, "num_hidden_layers": 36,
            "num_attention_heads": 16, "num_key_value_heads": 2, "vocab_size": 151936,
            "max_window_layers": 36, "tie_word_embeddings": True,
            "rope_parameters": {
                "rope_type": "default", "rope_theta": 1e6, "mrope_section": [16, 24, 24]
            },
        },
        vision_config={
            "depth": 32, "hidden_size": 1280, "intermediate_size": 3420, "num_heads": 16,
            "out_hidden_size": 2048, "patch_size": 14, "window_size": 112,
            "fullatt_block_indexes": [7, 15, 23, 31],
        },
        tie_word_embeddings=True,
    )  # fmt: skip
    size = {"shortest_edge": 56 * 56, "longest_edge": 28 * 28 * 1280}
    return config, {"patch_size": 14, "merge_size": 2, "size": size}


def _molmo() -> tuple[Any, dict[str, Any]]:
    """Molmo2-8B: the defaults of its configuration."""
    images = {"patch_size": 14, "size": {"height": 378, "width": 378}, "max_crops": 8}
    return hf.Molmo2Config(), images | {"overlap_margins": [4, 4]}


def _mllama() -> tuple[Any, dict[str, Any]]:
    """Llama-3.2-11B-Vision-Instruct: the defaults of its configuration, at 560 pixels a tile."""
    config = hf.MllamaConfig(vision_config={"image_size": 560})
    return config, {"size": {"height": 560, "width": 560}}


PUBLISHED = {"qwen2_5_vl": _qwen, "molmo2": _molmo, "mllama": _mllama}
