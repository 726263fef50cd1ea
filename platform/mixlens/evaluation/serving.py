"""What vLLM is given and how it is set up, so that it answers as our own loop does.

Nothing here needs vLLM or Ray; `mixlens.evaluation.engine` runs them. The prompt goes over as
tokens: vLLM would put a first token of its own before text, and most chat templates write one. It
holds the image's token as the chat template does, and vLLM puts the visual tokens there.
"""

import importlib.util
import io
import os
import subprocess
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from jaxtyping import UInt8
from PIL import Image as PillowImage

from mixlens.design import SweepSpec
from mixlens.errors import CheckpointError, ResourceError, explain
from mixlens.evaluation.answers import asks_of
from mixlens.evaluation.generate import end_tokens
from mixlens.models import VLM, model_config, resolve_model
from mixlens.models.adapter import Image
from mixlens.models.folder import (
    ADAPTER_CONFIG,
    read_adapter_config,
    tensor_shapes,
    weight_files,
)
from mixlens.sources import Example
from mixlens.sources.pixels import as_pixels
from mixlens.spec import MeasureSpec, ResourceSpec

QUESTIONS = pa.schema(
    [
        ("unit", pa.int64()),
        ("image", pa.binary()),
        ("numbers", pa.list_(pa.int64())),
        ("prompts", pa.list_(pa.list_(pa.int64()))),
        ("limits", pa.list_(pa.int64())),
    ]
)
"""A row an example: which unit it is of, its image as PNG, and of each question about it its number
in the unit, the tokens of its prompt, and the most tokens of its answer."""

PYTHON = "MIXLENS_VLLM_PYTHON"
"""Environment variable: the Python, on every node with GPUs, of an environment of its own that
holds vLLM and the same Ray, for releases of vLLM that cannot share ours."""

MEMORY_SHARE = 0.9  # of its share of a GPU vLLM may fill: weights, and as many keys as fit
BATCH = 64  # requests that go to an engine together; it takes several such batches at once
RANKS = (1, 8, 16, 32, 64, 128, 256, 320, 512)  # of adapters, for which vLLM has kernels
# Families that vLLM no longer answers with: it dropped decoders that read images by cross-attention
# after 0.10.2.
UNSERVED = ("mllama",)
# Where the layers of the decoder stand in the models of all families.
_DECODER = ("model.language_model.", "model.text_model.")
_MERGE = "Merge them into the base by `mixlens merge` and give the folder it writes"


@dataclass(frozen=True)
class Served:
    """What an engine needs to know of a model.

    Attributes:
        model: folder or hub id of the whole model.
        lora: the folder of adapters to put on it; None: none.
        ends: the tokens of which each ends an answer.
        longest: tokens of the longest sequence, from the first of a prompt to the last of an
            answer.
    """

    model: str
    lora: str | None
    ends: tuple[int, ...]
    longest: int


def question_rows(
    vlm: VLM, examples: Sequence[Example], unit: int, max_new_tokens: int
) -> tuple[pa.Table, Served]:
    """Everything there is to ask about the examples of a unit, and of whom."""
    asks = asks_of(vlm, examples, max_new_tokens)
    # Only what an image adds to its prompt is of interest, which no question changes.
    shown = vlm.adapter.image_batch([example.image for example in examples])
    seen = shown["attention_mask"].sum(-1).tolist()
    behind = vlm.adapter.question_tokens([ask.turn.question for ask in asks])
    begin = vlm.adapter.begin_tokens()
    rows: list[dict[str, Any]] = [
        {"unit": unit, "image": as_png(picture(vlm, example.image)), "numbers": [], "prompts": [],
         "limits": []}
        for example in examples
    ]  # fmt: skip
    longest = 0
    for number, (ask, tokens) in enumerate(zip(asks, behind, strict=True)):
        row = rows[ask.place]
        row["numbers"].append(number)
        row["prompts"].append(begin + tokens)
        row["limits"].append(ask.limit)
        longest = max(longest, seen[ask.place] + len(tokens) + ask.limit)
    lora = served_lora(vlm.path)
    base = vlm.path if lora is None else vlm.model.peft_config["default"].base_model_name_or_path
    served = Served(resolve_model(base), lora, tuple(end_tokens(vlm)), longest)
    return pa.Table.from_pylist(rows, QUESTIONS), served


def requests_of(row: Mapping[str, Any]) -> list[dict[str, Any]]:
    """The questions of a row of `QUESTIONS`, each by itself.

    Ray's stages see these columns too, so that none may have a name that means something to them.
    """
    shared = {"unit": row["unit"], "image": row["image"]}
    return [
        {**shared, "number": number, "asked": prompt, "limit": limit}
        for number, prompt, limit in zip(row["numbers"], row["prompts"], row["limits"], strict=True)
    ]


def requests_in(row: Mapping[str, Any]) -> list[dict[str, Any]]:
    """All questions in the Parquet file that a row names."""
    rows = pq.read_table(row["file"], schema=QUESTIONS).to_pylist()
    return [request for each in rows for request in requests_of(each)]


def engine_row(row: Mapping[str, Any], served: Served) -> dict[str, Any]:
    """A question in the columns of Ray's vLLM stage: greedy, ended by what ends it in our loop."""
    request = {
        "tokenized_prompt": [int(token) for token in row["asked"]],
        "multimodal_data": {"image": PillowImage.open(io.BytesIO(row["image"])).convert("RGB")},
        "sampling_params": {
            "temperature": 0.0,
            "max_tokens": int(row["limit"]),
            "stop_token_ids": list(served.ends),
            "ignore_eos": True,  # these and no others, whatever the tokenizer's own is
            "detokenize": False,  # text is made of tokens by the same code for every engine
        },
    }
    # A model of another name than the engine's is to Ray's stage a folder of adapters.
    return request if served.lora is None else {**request, "model": served.lora}


def said_row(row: Mapping[str, Any]) -> dict[str, Any]:
    """What is kept of a row that came out of Ray's vLLM stage.

    It tells no reason for an answer's end, so that this is told from its last token.
    """
    return {
        "unit": row["unit"],
        "number": row["number"],
        "tokens": [int(token) for token in row["generated_tokens"]],
        "seconds": float(row["time_taken_llm"]),
    }


def engine_config(served: Served, resources: ResourceSpec) -> dict[str, Any]:
    """The arguments of Ray's `vLLMEngineProcessorConfig`.

    One engine takes the CPUs and GPUs of a measurement actor, beside the actors: a whole number of
    GPUs for itself, over which the model is split, or a part of one, of which it fills no more than
    that part. There are as many engines as actors where the cluster has room for them, else fewer.
    """
    gpus = resources.gpus_per_actor
    split = max(1, int(gpus))
    engine: dict[str, Any] = {
        "dtype": "bfloat16",  # as the actors load it on GPUs
        "max_model_len": served.longest,
        "gpu_memory_utilization": round(MEMORY_SHARE * min(1.0, gpus), 4),
        "tensor_parallel_size": split,
        # Without Ray inside: its placement groups would keep their GPUs for as long as we live.
        "distributed_executor_backend": "mp" if split > 1 else "uni",
        "limit_mm_per_prompt": {"image": 1, "video": 0},
        "enable_prefix_caching": True,  # all questions about an image begin with it
        "trust_remote_code": False,
        "seed": 0,
    }
    if served.lora is not None:
        engine |= {"enable_lora": True, "max_loras": 1, "max_lora_rank": _rank(served.lora)}
    python = os.environ.get(PYTHON)
    return {
        "model_source": served.model,
        "runtime_env": {"py_executable": python} if python else None,
        "engine_kwargs": engine,
        "batch_size": BATCH,
        "concurrency": (1, resources.actors),
        "placement_group_config": {
            "bundles": [{"CPU": resources.cpus_per_actor, "GPU": gpus}]
        },
        # Ours are prompts already, and tokens are turned into text by us.
        "prepare_multimodal_stage": False,
        "chat_template_stage": False,
        "tokenize_stage": False,
        "detokenize_stage": False,
        "log_engine_metrics": False,
        "should_continue_on_error": False,
    }  # fmt: skip


def served_lora(path: str) -> str | None:
    """The folder of adapters at `path`, if it is one and vLLM can take it as it is.

    vLLM puts adapters on the layers of the decoder; it would pass over all others in silence.

    Raises:
        CheckpointError: names what it cannot take, and how to do without.
    """
    folder = Path(resolve_model(path))
    if not (folder / ADAPTER_CONFIG).is_file():
        return None
    config = read_adapter_config(folder)
    names = ("rank_pattern", "alpha_pattern", "modules_to_save", "use_dora")
    if odd := [name for name in names if config.get(name)]:
        raise _no_lora(path, f"its adapters have {', '.join(odd)}, which vLLM does not heed")
    _rank(str(folder))
    tensors = tensor_shapes(weight_files(folder))
    modules = [name.removeprefix("base_model.model.") for name in tensors]
    if outside := sorted(name for name in modules if not name.startswith(_DECODER)):
        layer = outside[0].partition(".lora_")[0]
        raise _no_lora(
            path,
            "vLLM takes adapters of the language model only, by today's names, "
            f"and there are some on {layer}",
        )
    return str(folder)


def check_engine(spec: SweepSpec | MeasureSpec) -> None:
    """Refuse to ask vLLM where it cannot answer, before anything is started.

    Raises:
        ResourceError: it is not installed.
        CheckpointError: a family or adapters that it cannot take.
    """
    if spec.evaluation.engine != "vllm":
        return
    field = "evaluation.engine"
    if not _has_vllm():
        raise ResourceError(
            explain(field, "vllm", "there is no package vllm here; Mixlens does not bring it",
                    "Install it in the image of the nodes with GPUs and of the one that jobs start "
                    f"on, beside Mixlens or in an environment whose Python {PYTHON} names there, "
                    "or set it to transformers.")
        )  # fmt: skip
    family = model_config(spec.model).model_type
    if family in UNSERVED:
        raise CheckpointError(
            explain(field, "vllm", f"it no longer answers with models of the family {family}",
                    "Set it to transformers.")
        )  # fmt: skip
    served_lora(spec.model)


def _has_vllm() -> bool:
    """Whether the Python that engines run in has vLLM."""
    if python := os.environ.get(PYTHON):
        look = "import importlib.util, sys; sys.exit(importlib.util.find_spec('vllm') is None)"
        try:
            return subprocess.run([python, "-c", look], check=False).returncode == 0
        except OSError:
            return False
    return importlib.util.find_spec("vllm") is not None


def picture(vlm: VLM, image: Image) -> UInt8[np.ndarray, "height width 3"]:
    """An image as the model's own processor has to be given it, to see what our adapter shows."""
    pixels = as_pixels(image)
    return vlm.adapter.shown(pixels)


def as_png(pixels: UInt8[np.ndarray, "height width 3"]) -> bytes:
    """The picture as a file, without loss and in little time."""
    file = io.BytesIO()
    PillowImage.fromarray(pixels).save(file, "PNG", compress_level=1)
    return file.getvalue()


def _rank(folder: str) -> int:
    """The smallest rank that vLLM has kernels for and that of the adapters fits into."""
    rank = read_adapter_config(Path(folder)).get("r")
    if not isinstance(rank, int):
        raise CheckpointError(
            explain(f"model {Path(folder) / ADAPTER_CONFIG}, r", rank, "it is no rank of adapters",
                    "Copy the file anew from where the adapters came from.")
        )  # fmt: skip
    enough = [there for there in RANKS if there >= rank]
    if not enough:
        raise _no_lora(folder, f"its adapters have rank {rank}, and vLLM takes {RANKS[-1]} at most")
    return enough[0]


def _no_lora(path: str, problem: str) -> CheckpointError:
    return CheckpointError(
        explain("model", path, f"evaluation.engine is vllm: {problem}",
                f"{_MERGE}, or set evaluation.engine to transformers.")
    )  # fmt: skip
