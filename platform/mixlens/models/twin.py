"""Random twins: the same model with weights that nobody trained, what training is compared with."""

import json
import shutil
from itertools import chain
from pathlib import Path
from typing import Any, Literal

import torch
from torch import nn

from mixlens.errors import CheckpointError, explain
from mixlens.models.folder import read_json
from mixlens.models.identity import fingerprint
from mixlens.models.vlm import load_vlm, model_config

RECORD = "twin.json"

Part = Literal["language", "all"]


def random_twin(model_path: str, folder: str | Path, part: Part, seed: int = 0) -> str:
    """Write a model with the same configuration, tokenizer and processor but random weights.

    The weights are drawn as the model class itself draws them before training, in the checkpoint's
    own number type. The folder is an ordinary one that `load_vlm` loads, and appears under its
    name only when it is complete; a second call with the same arguments returns at once.

    Args:
        model_path: folder, hub id or builtin name; a peft folder counts with its adapters.
        folder: where to.
        part: "all" weights are random, or those of the "language" model only (token embeddings
            and head with it) while vision tower and projector stay as trained.
        seed: of the weights.

    Returns:
        `folder`, absolute.

    Raises:
        CheckpointError: no model that an adapter is for at `model_path`, or `folder` holds
            anything else.
    """
    target = Path(folder).expanduser().absolute()
    ours = {"model": fingerprint(model_path), "part": part, "seed": seed}
    if target.exists() and any(target.iterdir()):
        record = target / RECORD
        if record.is_file() and read_json(record) == ours:
            return str(target)
        raise CheckpointError(
            explain("folder", str(target), f"it holds something other than the twin {ours}",
                    "Delete it or name another.")
        )  # fmt: skip
    model, processor = _twin(model_path, part, seed)
    unfinished = target.with_name(f"{target.name}.unfinished")
    shutil.rmtree(unfinished, ignore_errors=True)
    model.save_pretrained(unfinished)
    processor.save_pretrained(unfinished)
    (unfinished / RECORD).write_text(json.dumps(ours))
    unfinished.rename(target)
    return str(target)


def _twin(model_path: str, part: Part, seed: int) -> tuple[Any, Any]:
    """The random model and its processor."""
    from transformers import AutoModelForImageTextToText, AutoProcessor

    config = model_config(model_path)
    dtype = config.dtype or torch.float32
    source = config.name_or_path
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        random = AutoModelForImageTextToText.from_config(config, dtype=dtype)
    if part == "all":
        return random, AutoProcessor.from_pretrained(source)
    vlm = load_vlm(model_path, dtype)
    trained = vlm.model
    if hasattr(trained, "merge_and_unload"):
        trained = trained.merge_and_unload()
    of_language = {
        id(tensor)
        for part in vlm.adapter.towers(random)["language"]
        if isinstance(part, nn.Module)
        for tensor in chain(part.parameters(), part.buffers())
    }
    weights = dict(chain(trained.named_parameters(), trained.named_buffers()))
    with torch.no_grad():
        for name, tensor in chain(random.named_parameters(), random.named_buffers()):
            if id(tensor) not in of_language:
                tensor.copy_(weights[name])
    return random, vlm.processor
