"""Answer questions by vLLM, through Ray Data's batch inference of language models.

Not run, for want of a GPU: an engine on one, in bf16, on a part of one or on several; families
other than LLaVA; any speed. What was run is in docs/decisions.md.
"""

import re
import time
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path

import ray
from ray.data.llm import build_processor, vLLMEngineProcessorConfig
from ray.exceptions import RayError

from mixlens.errors import ResourceError, explain
from mixlens.evaluation.serving import Served, engine_config, engine_row, requests_in, said_row
from mixlens.evaluation.throughput import Effort
from mixlens.spec import ResourceSpec

_NAMED = re.compile(r"(?!ray\.)[\w.]+(Error|Exception)\b")

Said = dict[tuple[int, int], list[int]]
"""Unit, and number in it -> the tokens of the answer, that which ends it among them."""


def ask_vllm(
    files: Sequence[Path],
    served: Served,
    resources: ResourceSpec,
    done: Callable[[int], None] = lambda _: None,
) -> tuple[Said, Effort]:
    """The answers to all questions in `files`, which hold `QUESTIONS` and all nodes can read.

    The engines are there for this call only; so long they hold GPUs of their own.

    Args:
        files: Parquet.
        served: the model.
        resources: what an engine takes, and how many there may be.
        done: told the number of answers whenever it grows.

    Returns:
        The answers, and what it took: from the first request that an engine had until the last
        answer came.

    Raises:
        ResourceError: the engine cannot be started, or cannot answer.
    """
    config = vLLMEngineProcessorConfig(**engine_config(served, resources))
    little = {"num_cpus": resources.cpus_per_render}
    answering = build_processor(
        config,
        preprocess=partial(engine_row, served=served),
        postprocess=said_row,
        preprocess_map_kwargs=little,
        postprocess_map_kwargs=little,
    )
    # Not `read_parquet`, whose listing of files waits for a whole free CPU, for ever where none is.
    named = ray.data.from_items(
        [{"file": str(file)} for file in files], override_num_blocks=len(files)
    )
    dataset = answering(named.flat_map(requests_in, **little))
    dataset.context.enable_progress_bars = False
    said: Said = {}
    tokens, begun, ended = 0, float("inf"), 0.0
    try:
        for batch in dataset.iter_batches(batch_size=None, batch_format="pyarrow"):
            rows = batch.to_pylist()
            ended = time.perf_counter()
            begun = min(begun, ended - max(row["seconds"] for row in rows))
            tokens += sum(len(row["tokens"]) for row in rows)
            said |= {(row["unit"], row["number"]): row["tokens"] for row in rows}
            done(len(said))
    except RayError as error:
        raise ResourceError(
            explain("evaluation.engine", "vllm", f"it failed: {_reason(error)}",
                    "The whole story is in Ray's logs; or set it to transformers.")
        ) from error  # fmt: skip
    return said, Effort(len(said), tokens, max(0.0, ended - begun))


def _reason(error: Exception) -> str:
    """Of all that Ray tells, the last error that is not Ray's own: the one at the bottom."""
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    named = [place for place, line in enumerate(lines) if _NAMED.match(line)]
    return " ".join(lines[named[-1] :][:2]) if named else lines[-1]
