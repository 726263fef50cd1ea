"""The folder of a saved model, so that it is read elsewhere as it was trained here.

Two things go wrong when transformers 5 saves by itself. It writes settings under names that
transformers 4 passes over or stumbles on: the rotary base is then 10,000 whatever it was, and
processors do not load. And not all that a tokenizer was made from is written, so that it may cut
text otherwise when it is loaded again. So the files of the processor are those that it was loaded
from, each setting stands under its old name too, and the folder is opened and compared.
"""

import json
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import torch
from safetensors.torch import load_file, save_file

from mixlens.errors import CheckpointError, explain, first_line
from mixlens.models.adapter import Adapter
from mixlens.models.folder import ADAPTER_WEIGHTS, CONFIG
from mixlens.models.processor import load_processor
from mixlens.models.vlm import VLM, model_folder

_PROCESSOR, _IMAGES = "processor_config.json", "preprocessor_config.json"
_VIDEOS, _TOKENIZER = "video_preprocessor_config.json", "tokenizer_config.json"
_CHAT = ("chat_template.jinja", "chat_template.json", "additional_chat_templates")
_TOKENS = ("special_tokens_map.json", "added_tokens.json", "tokenizer.json", "tokenizer.model",
           "vocab.json", "merges.txt")  # fmt: skip
_FILES = (_PROCESSOR, _IMAGES, _VIDEOS, _TOKENIZER, *_CHAT, *_TOKENS)

# Of a tokenizer in every family; tokens with other names belong to one family.
_COMMON = ("bos_token", "eos_token", "unk_token", "sep_token", "pad_token", "cls_token",
           "mask_token")  # fmt: skip
_HAD_A_LEVEL_MORE = ("clip_vision_model", "siglip_vision_model")
# Blanks and line breaks at every kind of place, because there tokenizers differ.
_TEXT = "What is it?  Two\n\nthree:\n 4.5 é漢🙂\t<b> don't"


def save_config(model: Any, folder: Path) -> None:
    """Add to the `config.json` that transformers wrote the names by which version 4 reads it."""
    path = folder / CONFIG
    config = _read(path)
    config.pop("auto_map", None)  # it points to code, which the folder does not hold
    text = config.get("text_config", config)
    text |= _old_rope(text.get("rope_parameters") or {})
    # Version 5 asks the whole model whether its head is its embedding, version 4 the decoder.
    text["tie_word_embeddings"] = bool(getattr(model.config, "tie_word_embeddings", False))
    _write(path, config)


def save_adapter_names(vlm: VLM, folder: Path) -> None:
    """Name the layers of CLIP and SigLIP in a file of adapters as all releases of peft find them.

    transformers 5.6 took the level `vision_model` out of their modules. Older releases leave
    adapters without it unloaded, with a warning; newer ones know both names.
    """
    if vlm.adapter.config.vision_config.model_type not in _HAD_A_LEVEL_MORE:
        return
    path = folder / ADAPTER_WEIGHTS
    named = {
        name.replace(".vision_tower.encoder.", ".vision_tower.vision_model.encoder."): tensor
        for name, tensor in load_file(path).items()
    }
    save_file(named, path, metadata={"format": "pt"})


def save_processor(vlm: VLM, folder: Path) -> None:
    """Write the files of the processor into a model folder.

    They are those that it was loaded from, or where these do not give it again (they were changed
    or are gone), what transformers writes.

    Raises:
        CheckpointError: neither gives the same tokens and the same pixels again.
    """
    own = _files_of(vlm.processor)
    names = _names(vlm.processor)
    for copies in (True, False) if own else (False,):
        for name in names:
            _remove(folder / name)
        if copies:
            for file in own:
                _copy(file, folder / file.name)
        else:
            vlm.processor.save_pretrained(folder)
        _add_old_names(folder)
        difference = differs(vlm, folder)
        if difference is None:
            return
    raise CheckpointError(
        explain("processor", vlm.processor.tokenizer.name_or_path,
                f"saved and opened again, it reads otherwise than in training: {difference}",
                "Use a checkpoint whose tokenizer and processor files were written by a newer "
                "transformers. The weights and the last checkpoint of the run are kept.")
    )  # fmt: skip


def differs(vlm: VLM, folder: Path) -> str | None:
    """What the processor in `folder` reads otherwise than that of `vlm`; None: nothing."""
    from mixlens.models.families import adapters

    config = vlm.adapter.config
    try:
        again = load_processor(str(folder), config)
    except CheckpointError as error:
        return first_line(error)
    if again.chat_template != vlm.processor.chat_template:
        return "its chat template is another"
    return _other_tokens(vlm.processor.tokenizer, again.tokenizer) or _other_inputs(
        vlm.adapter, adapters()[config.model_type](again, config)
    )


def _other_tokens(here: Any, there: Any) -> str | None:
    """The first text that two tokenizers cut or spell otherwise."""
    special = [str(token) for token in here.added_tokens_decoder.values()]
    texts = [_TEXT, f" {_TEXT}", *(f"a {token} b\n{token}\n\n c{token}d" for token in special)]
    for adds in (True, False):
        cut, other = (
            tokenizer(texts, add_special_tokens=adds)["input_ids"] for tokenizer in (here, there)
        )
        for text, left, right in zip(texts, cut, other, strict=True):
            if left != right:
                return f"the text {text!r} becomes the tokens {right} and not {left}"
    for left, right in zip(here.batch_decode(cut), there.batch_decode(cut), strict=True):
        if left != right:
            return f"tokens are spelt {right!r} and not {left!r}"
    for name in (*_COMMON, "model_max_length"):
        if getattr(here, name) != getattr(there, name):
            return f"{name} is {getattr(there, name)!r} and not {getattr(here, name)!r}"
    return None


def _other_inputs(here: Adapter, there: Adapter) -> str | None:
    """The first input of the model that two processors make otherwise of pictures."""
    for height, width in ((37, 90), (480, 640)):
        rows, columns = np.mgrid[:height, :width]
        picture = np.stack([rows * 3 % 256, columns * 5 % 256, rows * columns % 256], -1)
        asked = [picture.astype(np.uint8)], [_TEXT]
        ours, theirs = here.question_batch(*asked), there.question_batch(*asked)
        for name in ours.keys() | theirs.keys():
            left, right = ours.get(name), theirs.get(name)
            if left is None or right is None or left.shape != right.shape:
                shapes = [None if value is None else tuple(value.shape) for value in (right, left)]
                return (
                    f"of a picture of {width} x {height} pixels {name} has the shape {shapes[0]} "
                    f"and not {shapes[1]}"
                )
            if not torch.equal(left, right):
                off = (left.double() - right.double()).abs().max()
                return f"of a picture of {width} x {height} pixels {name} is off by {off:.3g}"
    return None


def _names(processor: Any) -> list[str]:
    """Every file or folder that a processor may be read from."""
    return sorted({*_FILES, *processor.tokenizer.vocab_files_names.values()})


def _files_of(processor: Any) -> list[Path]:
    """What a processor was loaded from; nothing where that is not on this machine."""
    try:
        folder = model_folder(processor.tokenizer.name_or_path)
    except CheckpointError:
        return []
    files = [folder / name for name in _names(processor)] if folder else []
    return [file for file in files if file.exists()]


def _add_old_names(folder: Path) -> None:
    """Under which names transformers 4 looks for what transformers 5 has written."""
    files = {name: folder / name for name in (_TOKENIZER, _PROCESSOR, _IMAGES, _VIDEOS)}
    read = {
        name: json.loads(path.read_text(encoding="utf-8"))
        for name, path in files.items()
        if path.is_file()
    }
    whole = read.get(_PROCESSOR, {})
    for name, part in ((_IMAGES, "image_processor"), (_VIDEOS, "video_processor")):
        if part in whole:
            read[name] = {**whole[part], "processor_class": whole.get("processor_class")}
    if _IMAGES in read:
        read[_IMAGES] |= _old_pixels(read[_IMAGES])
    if _TOKENIZER in read:
        read[_TOKENIZER] |= _old_tokens(read[_TOKENIZER])
    for name, content in read.items():
        for holder in (content, *(part for part in content.values() if isinstance(part, dict))):
            holder.pop("auto_map", None)  # it points to code, which the folder does not hold
        _write(files[name], content)


def _old_rope(rope: dict[str, Any]) -> dict[str, Any]:
    """Rotary positions as version 4 names them, from the `rope_parameters` of version 5."""
    if not rope:
        return {}
    old = {}
    if "full_attention" in rope:  # a set of its own for each kind of block, as in Gemma 3
        old["rope_local_base_freq"] = rope["sliding_attention"]["rope_theta"]
        rope = rope["full_attention"]
    apart = ("rope_theta", "partial_rotary_factor")
    old |= {name: rope[name] for name in apart if name in rope}
    return old | {"rope_scaling": {k: v for k, v in rope.items() if k not in apart}}


def _old_tokens(config: dict[str, Any]) -> dict[str, Any]:
    """Class and special tokens of a tokenizer as version 4 names them."""
    old: dict[str, Any] = {}
    if config.get("tokenizer_class") == "TokenizersBackend":
        old["tokenizer_class"] = "PreTrainedTokenizerFast"
    if isinstance(config.get("extra_special_tokens"), list):
        old["additional_special_tokens"] = config["extra_special_tokens"]
        old["extra_special_tokens"] = {
            name: token
            for name, token in config.items()
            if name.endswith("_token") and name not in _COMMON and isinstance(token, str)
        }
    return old


def _old_pixels(config: dict[str, Any]) -> dict[str, Any]:
    """The bounds of a picture's pixels as version 4 of Qwen2-VL's processor reads them."""
    size = config.get("size") or {}
    if not str(config.get("image_processor_type")).startswith("Qwen2VL"):
        return {}
    names = {"min_pixels": "shortest_edge", "max_pixels": "longest_edge"}
    return {old: size[new] for old, new in names.items() if new in size}


def _remove(path: Path) -> None:
    if path.is_dir():
        shutil.rmtree(path)
    else:
        path.unlink(missing_ok=True)


def _copy(source: Path, target: Path) -> None:
    """Contents alone: what was read-only there is still written to here."""
    if source.is_dir():
        shutil.copytree(source, target, copy_function=shutil.copyfile)
    else:
        shutil.copyfile(source, target)


def _read(path: Path) -> dict[str, Any]:
    content: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
    return content


def _write(path: Path, content: dict[str, Any]) -> None:
    """Leave a file as it is, byte for byte, that holds this already."""
    if not path.is_file() or _read(path) != content:
        text = json.dumps(content, indent=2, ensure_ascii=False) + "\n"
        path.write_text(text, encoding="utf-8")
