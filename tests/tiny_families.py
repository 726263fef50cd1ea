"""Tiny models of every supported family: real classes, random weights, folders under 2 MB.

A folder loads with plain `AutoModelForImageTextToText.from_pretrained` and
`AutoProcessor.from_pretrained`. Sizes are chosen so that an image of 16 x 16 to 160 x 100 pixels
gives some 4 to 120 visual tokens, and so that everything a family does with images happens: crops,
padding, newlines, pooling, windows, merging, gated cross attention.
"""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
import transformers as hf
from tiny_assets import Blanks, save_tiny, tokenizer
from tiny_templates import (
    GEMMA3,
    GLM4V,
    IDEFICS3,
    INTERNVL,
    LLAVA,
    LLAVA_BLANK_BEFORE_ANSWER,
    LLAVA_NEXT,
    LLAVA_NEXT_LLAMA3,
    LLAVA_NEXT_MISTRAL_OLD,
    LLAVA_NEXT_VICUNA,
    LLAVA_ONEVISION,
    MLLAMA,
    MOLMO2,
    QWEN2_VL,
    QWEN3_VL,
    SMOLVLM,
    THINKING,
    THINKING_ASKED,
)

from mixlens.models.torchvision_ops import make_torchvision_importable

make_torchvision_importable()

VISION_LAYERS = 2
VISION_WIDTH = 32
WIDTH = 48
HEADS = {"num_attention_heads": 4, "num_key_value_heads": 2}
HEAD_WIDTH = 16
POSITIONS = 2048


def build(family: str, folder: Path, seed: int = 0) -> None:
    """Write the tiny model and processor of a family.

    Args:
        family: one of `FAMILIES`, a `model_type` of transformers, or of `SHAPES`.
        folder: where to; created if missing.
        seed: of the weights.
    """
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        model, processor = (_BUILDERS | _SHAPES)[family]()
    model.generation_config.max_length = None
    save_tiny(folder, model, processor, seed)


def _text(tokens: Any, **more: Any) -> dict[str, Any]:
    """What the decoders of nearly all families have in common."""
    return {
        "hidden_size": WIDTH,
        "intermediate_size": 2 * WIDTH,
        "num_hidden_layers": 3,
        **HEADS,
        "head_dim": HEAD_WIDTH,
        # Published vocabularies are padded, so there are rows that no token has.
        "vocab_size": -(-len(tokens) // 8) * 8 + 8,
        "max_position_embeddings": POSITIONS,
        "pad_token_id": tokens.pad_token_id,
        "bos_token_id": tokens.bos_token_id,
        "eos_token_id": tokens.eos_token_id,
        **more,
    }


def _vision(image_size: int, patch_size: int, **more: Any) -> dict[str, Any]:
    """What the image encoders of CLIP's kind have in common."""
    return {
        "hidden_size": VISION_WIDTH,
        "intermediate_size": 2 * VISION_WIDTH,
        "num_hidden_layers": VISION_LAYERS,
        "num_attention_heads": 4,
        "image_size": image_size,
        "patch_size": patch_size,
        **more,
    }


def _square(side: int) -> dict[str, int]:
    return {"height": side, "width": side}


def _model(config: Any) -> torch.nn.Module:
    """The model of a config in float32, before its weights are drawn."""
    config.dtype = torch.float32
    model = hf.AutoModelForImageTextToText.from_config(config, dtype=torch.float32)
    return model.eval()


def _llava(template: str = LLAVA, blanks: Blanks = "bytes") -> tuple[Any, Any]:
    tokens = tokenizer(
        ("<unk>", "<s>", "</s>", "<image>", "<pad>"),
        blanks=blanks,
        pad="<pad>",
        bos="<s>",
        eos="</s>",
        named={"image_token": "<image>"},
        writes_bos=True,
    )
    side, patch = 32, 8
    config = hf.LlavaConfig(
        vision_config=hf.CLIPVisionConfig(**_vision(side, patch, projection_dim=VISION_WIDTH)),
        text_config=hf.LlamaConfig(**_text(tokens)),
        image_token_index=tokens.image_token_id,
        image_seq_length=(side // patch) ** 2,
    )
    processor = hf.LlavaProcessor(
        hf.CLIPImageProcessor(size={"shortest_edge": side}, crop_size=_square(side)),
        tokens,
        patch_size=patch,
        vision_feature_select_strategy="default",
        num_additional_image_tokens=1,
        chat_template=template,
    )
    return _model(config), processor


_BRACKETS = ("[INST]", "[/INST]")


def _llava_next(
    template: str = LLAVA_NEXT, blanks: Blanks = "bytes", marks: tuple[str, ...] = _BRACKETS
) -> tuple[Any, Any]:
    tokens = tokenizer(
        ("<unk>", "<s>", "</s>", *marks, "<image>", "<pad>"),
        pad="<pad>",
        bos="<s>",
        eos="</s>",
        named={"image_token": "<image>"},
        writes_bos=True,
        blanks=blanks,
    )
    return _llava_next_of(tokens, hf.MistralConfig(**_text(tokens, sliding_window=None)), template)


def _llava_next_llama3() -> tuple[Any, Any]:
    tokens = tokenizer(
        (
            *("<|begin_of_text|>", "<|end_of_text|>", "<|start_header_id|>"),
            *("<|end_header_id|>", "<|eot_id|>", "<image>", "<pad>"),
        ),
        pad="<pad>",
        bos="<|begin_of_text|>",
        eos="<|eot_id|>",
        named={"image_token": "<image>"},
        writes_bos=True,
    )
    return _llava_next_of(tokens, hf.LlamaConfig(**_text(tokens)), LLAVA_NEXT_LLAMA3)


def _llava_next_of(tokens: Any, text: Any, template: str) -> tuple[Any, Any]:
    side, patch = 16, 4
    pinpoints = [[16, 32], [32, 16], [32, 32], [48, 16], [16, 48]]
    config = hf.LlavaNextConfig(
        vision_config=hf.CLIPVisionConfig(**_vision(side, patch, projection_dim=VISION_WIDTH)),
        text_config=text,
        image_token_index=tokens.image_token_id,
        image_grid_pinpoints=pinpoints,
        image_seq_length=(side // patch) ** 2,
    )
    processor = hf.LlavaNextProcessor(
        hf.LlavaNextImageProcessor(
            size={"shortest_edge": side}, crop_size=_square(side), image_grid_pinpoints=pinpoints
        ),
        tokens,
        patch_size=patch,
        vision_feature_select_strategy="default",
        num_additional_image_tokens=1,
        chat_template=template,
    )
    return _model(config), processor


def _llava_onevision() -> tuple[Any, Any]:
    tokens = tokenizer(
        ("<|endoftext|>", "<|im_start|>", "<|im_end|>", "<image>", "<video>"),
        pad="<|endoftext|>",
        eos="<|im_end|>",
        named={"image_token": "<image>", "video_token": "<video>"},
        padding_side="right",
    )
    side, patch = 16, 4
    pinpoints = [[side * rows, side * columns] for rows in (1, 2, 3) for columns in (1, 2, 3)]
    config = hf.LlavaOnevisionConfig(
        vision_config=hf.SiglipVisionConfig(**_vision(side, patch, vision_use_head=False)),
        text_config=hf.Qwen2Config(**_text(tokens, tie_word_embeddings=False)),
        image_token_index=tokens.image_token_id,
        video_token_index=tokens.video_token_id,
        image_grid_pinpoints=pinpoints,
        # More tiles than four are shrunk after encoding, as more than nine are in the real ones.
        vision_aspect_ratio="anyres_max_4",
    )
    processor = hf.LlavaOnevisionProcessor(
        hf.LlavaOnevisionImageProcessor(size=_square(side), image_grid_pinpoints=pinpoints),
        tokens,
        hf.LlavaOnevisionVideoProcessor(size=_square(side)),
        num_image_tokens=(side // patch) ** 2,
        vision_feature_select_strategy="full",
        vision_aspect_ratio="anyres_max_4",
        chat_template=LLAVA_ONEVISION,
    )
    return _model(config), processor


def _mllama() -> tuple[Any, Any]:
    tokens = tokenizer(
        (
            *("<|begin_of_text|>", "<|end_of_text|>", "<|finetune_right_pad_id|>"),
            *("<|start_header_id|>", "<|end_header_id|>", "<|eom_id|>", "<|eot_id|>"),
            *("<|python_tag|>", "<|image|>"),
        ),
        pad="<|finetune_right_pad_id|>",
        bos="<|begin_of_text|>",
        eos="<|eot_id|>",
        named={"image_token": "<|image|>"},
        writes_bos=True,
    )
    side, patch, tiles = 16, 4, 4
    text = _text(tokens, num_hidden_layers=4, cross_attention_layers=[1, 3])
    del text["head_dim"]
    # As published: the image token lies just outside the words that can be predicted.
    text["vocab_size"] = tokens.image_token_id
    vision = _vision(side, patch)
    vision["attention_heads"] = vision.pop("num_attention_heads")
    config = hf.MllamaConfig(
        vision_config=hf.models.mllama.MllamaVisionConfig(
            **vision,
            num_global_layers=1,
            max_num_tiles=tiles,
            intermediate_layers_indices=[0, 1],
            vision_output_dim=3 * VISION_WIDTH,
        ),
        text_config=hf.models.mllama.MllamaTextConfig(**text),
        image_token_index=tokens.image_token_id,
    )
    processor = hf.MllamaProcessor(
        hf.MllamaImageProcessor(size=_square(side), max_image_tiles=tiles),
        tokens,
        chat_template=MLLAMA,
    )
    return _model(config), processor


def _molmo2() -> tuple[Any, Any]:
    # As published: what stands for images lies outside the words that can be predicted.
    images = (
        *("<im_start>", "<im_end>", "<im_patch>", "<im_col>", "<low_res_im_start>"),
        *("<|image|>", "<im_low>", "<frame_start>", "<frame_end>", "<|video|>"),
    )
    tokens = tokenizer(
        ("<|endoftext|>", "<|im_start|>", "<|im_end|>", *images),
        pad="<|endoftext|>",
        bos="<|im_end|>",
        eos="<|im_end|>",
        named={"image_token": "<|image|>", "video_token": "<|video|>"},
    )
    ids = {token: tokens.convert_tokens_to_ids(token) for token in images}
    # Seven patches a side: an odd number, so that pooling two by two needs padding.
    side, patch = 28, 4
    heads = {"num_attention_heads": 4, "num_key_value_heads": 4, "head_dim": 8}
    text = _text(tokens, additional_vocab_size=len(images))
    text["vocab_size"] = ids["<im_start>"]
    config = hf.Molmo2Config(
        vision_config=hf.Molmo2VisionConfig(
            **{**_vision(side, patch), **heads, "image_size": [side, side]}
        ),
        adapter_config=hf.Molmo2AdapterConfig(
            vision_feature_layer=[1, 0],
            hidden_size=VISION_WIDTH,
            intermediate_size=2 * WIDTH,
            text_hidden_size=WIDTH,
            **heads,
        ),
        text_config=hf.Molmo2TextConfig(**text),
        image_start_token_id=ids["<im_start>"],
        image_end_token_id=ids["<im_end>"],
        low_res_image_start_token_id=ids["<low_res_im_start>"],
        image_patch_id=ids["<im_patch>"],
        frame_start_token_id=ids["<frame_start>"],
        frame_end_token_id=ids["<frame_end>"],
    )
    processor = hf.Molmo2Processor(
        hf.Molmo2ImageProcessor(
            size=_square(side), patch_size=patch, overlap_margins=[1, 1], max_crops=4
        ),
        hf.Molmo2VideoProcessor(size=_square(side), patch_size=patch),
        tokens,
        chat_template=MOLMO2,
    )
    return _model(config), processor


def _qwen_tokens(padding_side: str) -> Any:
    return tokenizer(
        (
            *("<|endoftext|>", "<|im_start|>", "<|im_end|>", "<|vision_start|>"),
            *("<|vision_end|>", "<|vision_pad|>", "<|image_pad|>", "<|video_pad|>"),
        ),
        pad="<|endoftext|>",
        eos="<|im_end|>",
        named={"image_token": "<|image_pad|>", "video_token": "<|video_pad|>"},
        padding_side=padding_side,
    )


def _qwen_ids(tokens: Any) -> dict[str, int]:
    return {
        "image_token_id": tokens.image_token_id,
        "video_token_id": tokens.video_token_id,
        "vision_start_token_id": tokens.convert_tokens_to_ids("<|vision_start|>"),
        "vision_end_token_id": tokens.convert_tokens_to_ids("<|vision_end|>"),
    }


# Patches of 4 x 4 pixels, merged two by two: 4 tokens at least, 100 at most.
_NATIVE = {"patch_size": 4, "temporal_patch_size": 2, "merge_size": 2}
_NATIVE_SIZE = {"shortest_edge": 4 * 8 * 8, "longest_edge": 100 * 8 * 8}
_NATIVE_VISION = {
    "depth": VISION_LAYERS,
    "num_heads": 2,
    "patch_size": 4,
    "spatial_merge_size": 2,
    "temporal_patch_size": 2,
}


def _rope(theta: float, sections: list[int], **more: Any) -> dict[str, Any]:
    """Rotary positions of time, height and width; the sections halve the rotated width."""
    return {"rope_type": "default", "rope_theta": theta, "mrope_section": sections, **more}


def _qwen2_vl() -> tuple[Any, Any]:
    tokens = _qwen_tokens("right")
    text = _text(tokens, rope_parameters=_rope(1e6, [2, 3, 3]))
    # Their heads share out the width, so it is that of four heads.
    del text["head_dim"]
    config = hf.Qwen2VLConfig(
        vision_config={
            **_NATIVE_VISION,
            "embed_dim": VISION_WIDTH,
            "hidden_size": 64,
            "mlp_ratio": 2,
        },
        text_config={**text, "hidden_size": 64},
        **_qwen_ids(tokens),
    )
    processor = hf.Qwen2VLProcessor(
        hf.Qwen2VLImageProcessor(**_NATIVE, size=_NATIVE_SIZE),
        tokens,
        hf.Qwen2VLVideoProcessor(**_NATIVE, size=_NATIVE_SIZE),
        chat_template=QWEN2_VL,
    )
    return _model(config), processor


def _qwen2_5_vl() -> tuple[Any, Any]:
    tokens = _qwen_tokens("left")
    text = _text(tokens, rope_parameters=_rope(1e6, [2, 3, 3]))
    del text["head_dim"]
    config = hf.Qwen2_5_VLConfig(
        vision_config={
            **_NATIVE_VISION,
            "hidden_size": VISION_WIDTH,
            "intermediate_size": 2 * VISION_WIDTH,
            "out_hidden_size": 64,
            # Windows of two by two merged tokens in the first block, all of them in the second.
            "window_size": 16,
            "fullatt_block_indexes": [1],
        },
        text_config={**text, "hidden_size": 64},
        **_qwen_ids(tokens),
    )
    processor = hf.Qwen2_5_VLProcessor(
        hf.Qwen2VLImageProcessor(**_NATIVE, size=_NATIVE_SIZE),
        tokens,
        hf.Qwen2VLVideoProcessor(**_NATIVE, size=_NATIVE_SIZE),
        chat_template=QWEN2_VL,
    )
    return _model(config), processor


def _qwen3_vl() -> tuple[Any, Any]:
    tokens = _qwen_tokens("left")
    config = hf.Qwen3VLConfig(
        vision_config={
            **_NATIVE_VISION,
            "hidden_size": VISION_WIDTH,
            "intermediate_size": 2 * VISION_WIDTH,
            "out_hidden_size": WIDTH,
            "num_position_embeddings": 64,
            "deepstack_visual_indexes": [0, 1],
        },
        text_config=_text(tokens, rope_parameters=_rope(5e6, [4, 2, 2], mrope_interleaved=True)),
        tie_word_embeddings=True,
        **_qwen_ids(tokens),
    )
    processor = hf.Qwen3VLProcessor(
        hf.Qwen2VLImageProcessor(
            **_NATIVE, size=_NATIVE_SIZE, image_mean=[0.5] * 3, image_std=[0.5] * 3
        ),
        tokens,
        hf.Qwen3VLVideoProcessor(**_NATIVE, size=_NATIVE_SIZE),
        chat_template=QWEN3_VL,
    )
    return _model(config), processor


_CELLS = tuple(f"<row_{row}_col_{column}>" for row in range(1, 7) for column in range(1, 7))


def _idefics3() -> tuple[Any, Any]:
    tokens = tokenizer(
        (
            *("<|begin_of_text|>", "<|end_of_text|>", "<|pad|>", "<fake_token_around_image>"),
            *("<image>", "<end_of_utterance>", "<global-img>", *_CELLS),
        ),
        pad="<|pad|>",
        bos="<|begin_of_text|>",
        eos="<end_of_utterance>",
        writes_bos=True,
        padding_side="right",
    )
    side, patch = 16, 4
    config = hf.Idefics3Config(
        vision_config=_vision(side, patch),
        text_config=hf.LlamaConfig(**_text(tokens, rms_norm_eps=1e-5)),
        image_token_id=tokens.convert_tokens_to_ids("<image>"),
        scale_factor=2,
        pad_token_id=tokens.pad_token_id,
    )
    processor = hf.Idefics3Processor(
        hf.Idefics3ImageProcessor(
            size={"longest_edge": 4 * side}, max_image_size={"longest_edge": side}
        ),
        tokens,
        image_seq_len=(side // patch // 2) ** 2,
        chat_template=IDEFICS3,
    )
    return _model(config), processor


def _smolvlm() -> tuple[Any, Any]:
    special = {
        "fake_image_token": "<fake_token_around_image>",
        "image_token": "<image>",
        "end_of_utterance_token": "<end_of_utterance>",
        "global_image_token": "<global-img>",
    }
    tokens = tokenizer(
        ("<|endoftext|>", "<|im_start|>", "<|im_end|>", *special.values(), *_CELLS),
        pad="<|im_end|>",
        bos="<|im_start|>",
        eos="<end_of_utterance>",
        named=special,
        padding_side="right",
    )
    side, patch = 24, 4
    config = hf.SmolVLMConfig(
        vision_config=_vision(side, patch),
        text_config=hf.LlamaConfig(**_text(tokens, rms_norm_eps=1e-5)),
        image_token_id=tokens.image_token_id,
        scale_factor=3,
        pad_token_id=tokens.pad_token_id,
    )
    sizes = {"size": {"longest_edge": 3 * side}, "max_image_size": {"longest_edge": side}}
    processor = hf.SmolVLMProcessor(
        hf.SmolVLMImageProcessor(**sizes),
        tokens,
        hf.SmolVLMVideoProcessor(**sizes),
        image_seq_len=(side // patch // 3) ** 2,
        chat_template=SMOLVLM,
    )
    return _model(config), processor


def _internvl() -> tuple[Any, Any]:
    special = {
        "start_image_token": "<img>",
        "end_image_token": "</img>",
        "context_image_token": "<IMG_CONTEXT>",
        "video_token": "<video>",
    }
    tokens = tokenizer(
        ("<|endoftext|>", "<|im_start|>", "<|im_end|>", *special.values()),
        pad="<|endoftext|>",
        eos="<|im_end|>",
        named=special,
    )
    side, patch = 24, 4
    each = (side // patch // 2) ** 2
    config = hf.InternVLConfig(
        vision_config=_vision(side, patch, attention_bias=True),
        text_config=hf.Qwen2Config(**_text(tokens, tie_word_embeddings=True)),
        image_token_id=tokens.context_image_token_id,
        image_seq_length=each,
        downsample_ratio=0.5,
    )
    processor = hf.InternVLProcessor(
        hf.GotOcr2ImageProcessor(
            size=_square(side), crop_to_patches=True, min_patches=1, max_patches=6
        ),
        tokens,
        hf.InternVLVideoProcessor(size=_square(side)),
        image_seq_length=each,
        chat_template=INTERNVL,
    )
    return _model(config), processor


def _gemma3() -> tuple[Any, Any]:
    special = {
        "boi_token": "<start_of_image>",
        "eoi_token": "<end_of_image>",
        "image_token": "<image_soft_token>",
    }
    tokens = tokenizer(
        (
            *("<pad>", "<eos>", "<bos>", "<unk>", "<start_of_turn>", "<end_of_turn>"),
            *special.values(),
        ),
        pad="<pad>",
        bos="<bos>",
        eos="<end_of_turn>",
        named=special,
        writes_bos=True,
    )
    side, patch, each = 32, 4, 16
    config = hf.Gemma3Config(
        vision_config=hf.SiglipVisionConfig(**_vision(side, patch, vision_use_head=False)),
        text_config=hf.Gemma3TextConfig(
            **_text(
                tokens,
                query_pre_attn_scalar=HEAD_WIDTH,
                # Shorter than a question with its image, so that the window cuts something off.
                sliding_window=24,
                layer_types=["sliding_attention", "sliding_attention", "full_attention"],
            )
        ),
        mm_tokens_per_image=each,
        boi_token_index=tokens.boi_token_id,
        eoi_token_index=tokens.eoi_token_id,
        image_token_index=tokens.image_token_id,
    )
    processor = hf.Gemma3Processor(
        hf.Gemma3ImageProcessor(
            size=_square(side), image_mean=[0.5] * 3, image_std=[0.5] * 3, do_pan_and_scan=None
        ),
        tokens,
        image_seq_length=each,
        chat_template=GEMMA3,
    )
    return _model(config), processor


def _glm4v() -> tuple[Any, Any]:
    tokens = tokenizer(
        (
            *("<|endoftext|>", "[gMASK]", "<sop>", "<|system|>", "<|user|>", "<|assistant|>"),
            *("<|begin_of_image|>", "<|end_of_image|>", "<|begin_of_video|>"),
            *("<|end_of_video|>", "<|image|>", "<|video|>"),
        ),
        pad="<|endoftext|>",
        eos="<|endoftext|>",
        named={"image_token": "<|image|>", "video_token": "<|video|>"},
    )
    text = _text(tokens, rope_parameters=_rope(1e4, [2, 1, 1], partial_rotary_factor=0.5))
    # Generation stops where the next turn would begin, for no token ends an answer.
    text["eos_token_id"] = tokens.convert_tokens_to_ids(["<|endoftext|>", "<|user|>"])
    config = hf.Glm4vConfig(
        vision_config={
            **_NATIVE_VISION,
            "hidden_size": VISION_WIDTH,
            "intermediate_size": 2 * VISION_WIDTH,
            "out_hidden_size": WIDTH,
            "image_size": 32,
        },
        text_config=text,
        image_token_id=tokens.image_token_id,
        video_token_id=tokens.video_token_id,
        image_start_token_id=tokens.convert_tokens_to_ids("<|begin_of_image|>"),
        image_end_token_id=tokens.convert_tokens_to_ids("<|end_of_image|>"),
        video_start_token_id=tokens.convert_tokens_to_ids("<|begin_of_video|>"),
        video_end_token_id=tokens.convert_tokens_to_ids("<|end_of_video|>"),
    )
    # Its limits count the two equal frames that an image becomes.
    size = {"shortest_edge": 2 * 4 * 8 * 8, "longest_edge": 2 * 100 * 8 * 8}
    processor = hf.Glm4vProcessor(
        hf.Glm4vImageProcessor(**_NATIVE, size=size),
        tokens,
        hf.Glm4vVideoProcessor(**_NATIVE, size=size),
        chat_template=GLM4V,
    )
    return _model(config), processor


_BUILDERS: dict[str, Callable[[], tuple[Any, Any]]] = {
    "llava": _llava,
    "llava_next": _llava_next,
    "llava_onevision": _llava_onevision,
    "mllama": _mllama,
    "molmo2": _molmo2,
    "qwen2_vl": _qwen2_vl,
    "qwen2_5_vl": _qwen2_5_vl,
    "qwen3_vl": _qwen3_vl,
    "idefics3": _idefics3,
    "smolvlm": _smolvlm,
    "internvl": _internvl,
    "gemma3": _gemma3,
    "glm4v": _glm4v,
}
FAMILIES: tuple[str, ...] = tuple(_BUILDERS)


def _with(template: str, made: tuple[Any, Any]) -> tuple[Any, Any]:
    made[1].chat_template = template
    return made


# Other templates and vocabularies that are published for these families.
_SHAPES: dict[str, Callable[[], tuple[Any, Any]]] = {
    "llava first": lambda: _llava(blanks="first"),
    "llava always": lambda: _llava(blanks="always"),
    "llava blank": lambda: _llava(LLAVA_BLANK_BEFORE_ANSWER),
    "llava blank first": lambda: _llava(LLAVA_BLANK_BEFORE_ANSWER, "first"),
    "llava_next mistral": lambda: _llava_next(blanks="always", marks=()),
    "llava_next mistral controls": lambda: _llava_next(blanks="first"),
    "llava_next mistral old": lambda: _llava_next(LLAVA_NEXT_MISTRAL_OLD, "always", ()),
    "llava_next vicuna": lambda: _llava_next(LLAVA_NEXT_VICUNA, "first", ()),
    "llava_next llama3": _llava_next_llama3,
    "qwen3_vl thinks": lambda: _with(THINKING, _qwen3_vl()),
    "qwen3_vl thoughts asked": lambda: _with(THINKING_ASKED, _qwen3_vl()),
}
SHAPES: tuple[str, ...] = tuple(_SHAPES)
