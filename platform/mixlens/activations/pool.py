"""Measure checkpoints on a pool of Ray actors: answers, metrics, tables.

Images are made where they are needed: what travels is the spec, the indices of the held-out
examples, and small arrays. A unit of work is one batch of consecutive examples, and its result is
the same on any actor, so a killed actor costs the batches that it had under way.
"""

import json
import os
import time
from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import ray
import torch
from pyarrow import compute
from ray.exceptions import ActorUnavailableError, RayActorError, RayTaskError

from mixlens.activations.measure import batches, check_enough, join_values, merge_sums, tables
from mixlens.activations.reduce import PositionSums, Values, image_values, position_sums
from mixlens.activations.streams import Place
from mixlens.activations.subspaces import read_subspaces, write_subspaces
from mixlens.errors import DataError, MixlensError, ResourceError, explain
from mixlens.evaluation import answer
from mixlens.mixture.order import held_out_indices
from mixlens.models import Vllm, keep_freed_memory, load_vllm
from mixlens.sources import Example, open_source
from mixlens.spec import ResourceSpec, RunSpec

RECORD = "measured.json"
_RETRIES = 3  # of one batch, each on a fresh actor
_QUESTIONS = 4  # asked in one forward pass for each image in one


@dataclass(frozen=True)
class _Job:
    """What to measure: everything an actor must know beside the batch."""

    run: RunSpec
    model: str
    directory: Path
    base: Path | None


class MeasurementPool:
    """Actors that measure one checkpoint after another; the handle may go to other processes.

    They start when the pool is made, so that their imports overlap with other work, and hold
    `resources.cpus_per_actor` and `gpus_per_actor` each until `close`.
    """

    def __init__(self, resources: ResourceSpec) -> None:
        """Start `resources.actors` actors on the connected Ray cluster.

        Whether the cluster has room for them, now or when it has grown, is for the caller to know.
        """
        actor = ray.remote(_Measurer).options(
            num_cpus=resources.cpus_per_actor,
            num_gpus=resources.gpus_per_actor,
            max_restarts=-1,
            max_task_retries=_RETRIES,
        )
        self._actors = [actor.remote(resources) for _ in range(resources.actors)]

    def measure(self, run: RunSpec, model: str, directory: Path, base: Path | None = None) -> Path:
        """Measure a model on the held-out examples of `run.evaluation`.

        Writes examples, image_metrics, pooled_metrics and attributes (`.parquet`) into `directory`
        and `measured.json` last; returns at once when that is there. Without `base` the top
        subspaces are written too (`subspaces/`). `directory` must be shared by all nodes.

        Args:
            run: whose components and evaluation say which images and questions.
            model: folder, hub id or builtin name of the checkpoint.
            directory: where the results go.
            base: the directory of the measured model to compare subspaces with.

        Returns:
            `directory`.

        Raises:
            MixlensError: whatever a person can correct, as it was raised in an actor.
            ResourceError: the actors were lost again and again.
        """
        if (directory / RECORD).is_file():
            return directory
        evaluation = run.evaluation
        check_enough(evaluation.examples)
        if base is not None and not (base / RECORD).is_file():
            raise DataError(
                explain("base measurement", str(base), f"it holds no {RECORD}",
                        "Measure the base model first.")
            )  # fmt: skip
        directory.mkdir(parents=True, exist_ok=True)
        started = time.monotonic()
        job = ray.put(_Job(run, model, directory.absolute(), base and base.absolute()))
        units = list(batches(evaluation.examples, evaluation.batch_size))
        looked = self._on_all("look", units, job)
        sums: dict[Place, PositionSums] = {}
        for _, _, part in looked:
            sums = merge_sums(sums, part)
        answered = time.monotonic()
        values = join_values(self._on_all("reduce", units, job, ray.put(sums)))
        _write(
            directory,
            answers=pa.concat_tables([part for part, _, _ in looked]),
            attributes=[row for _, rows, _ in looked for row in rows],
            values=values,
            record={
                "model": model,
                "images": evaluation.examples,
                "seconds": {
                    "answers_and_first_pass": round(answered - started, 2),
                    "second_pass": round(time.monotonic() - answered, 2),
                },
            },
        )
        return directory

    def close(self) -> None:
        """End the actors and free what they hold."""
        for actor in self._actors:
            ray.kill(actor)

    def _on_all(self, method: str, units: list[tuple[int, int]], *args: Any) -> list[Any]:
        """Results of one method for every unit, in order; units are dealt to the actors in turn.

        All are queued at once: an actor then finishes one caller's units before another caller's,
        and does not switch between two checkpoints at every batch.
        """
        calls = [
            getattr(self._actors[i % len(self._actors)], method).remote(*unit, *args)
            for i, unit in enumerate(units)
        ]
        try:
            return ray.get(calls)
        except RayTaskError as error:
            if isinstance(error.cause, MixlensError):
                raise error.cause from None
            raise
        except (RayActorError, ActorUnavailableError) as error:
            raise ResourceError(
                explain("measurement actors", f"{_RETRIES + 1} attempts", "each was lost",
                        f"Look for lack of memory in Ray's logs, or lower evaluation.batch_size. "
                        f"Ray says: {str(error).strip().splitlines()[0]}")
            ) from error  # fmt: skip


class _Measurer:
    """The actor: one model at a time, any batch of it."""

    def __init__(self, resources: ResourceSpec) -> None:
        os.environ.setdefault("HF_HUB_DISABLE_PROGRESS_BARS", "1")
        keep_freed_memory()
        from transformers.utils import logging

        logging.disable_progress_bar()
        torch.set_num_threads(max(1, int(resources.cpus_per_actor)))
        self._on_gpu = resources.gpus_per_actor > 0
        self._loaded: tuple[str, Vllm] | None = None

    def look(
        self, first: int, last: int, job: _Job
    ) -> tuple[pa.Table, list[dict[str, Any]], dict[Place, PositionSums]]:
        """Answers, attributes and position sums of held-out examples first ... last - 1."""
        vllm, evaluation = self._vllm(job.model), job.run.evaluation
        examples = self._examples(job.run, range(first, last))
        answers = answer(
            vllm, examples, _QUESTIONS * evaluation.batch_size, evaluation.max_new_tokens
        )
        attributes = [{"example_id": e.example_id, **e.attributes} for e in examples]
        return answers, attributes, position_sums(vllm, [e.image for e in examples])

    def reduce(self, first: int, last: int, job: _Job, sums: dict[Place, PositionSums]) -> Values:
        """Values of held-out examples first ... last - 1, given the position sums of all."""
        vllm = self._vllm(job.model)
        following = last % job.run.evaluation.examples
        examples = self._examples(job.run, [*range(first, last), following])
        ids = [example.example_id for example in examples[:-1]]
        base = None if job.base is None else read_subspaces(job.base, ids)
        values, subspaces = image_values(
            vllm, [example.image for example in examples], sums, len(ids), base
        )
        if job.base is None:
            write_subspaces(job.directory, ids, subspaces)
        return values

    def _vllm(self, model: str) -> Vllm:
        if self._loaded is None or self._loaded[0] != model:
            if self._on_gpu and not torch.cuda.is_available():
                raise ResourceError(
                    explain("resources.gpus_per_actor", "a GPU", "torch sees none on this node",
                            "Check the driver and the torch build, or set it to 0.")
                )  # fmt: skip
            self._loaded = None  # two models need not fit
            dtype, device = (torch.bfloat16, "cuda") if self._on_gpu else (torch.float32, "cpu")
            self._loaded = model, load_vllm(model, dtype, device)
        return self._loaded[1]

    def _examples(self, run: RunSpec, places: Iterable[int]) -> list[Example]:
        name = run.evaluation.component
        # Held-out scenes lie far beyond the end of a finite component.
        spec = run.components[name].model_copy(update={"size": None})
        source = open_source(name, spec)
        indices = held_out_indices(run.evaluation.examples)
        return [source[indices[place]] for place in places]


def _write(
    directory: Path,
    answers: pa.Table,
    attributes: list[dict],
    values: Values,
    record: dict[str, Any],
) -> None:
    image_metrics, pooled_metrics = tables([row["example_id"] for row in attributes], values)
    for name, table in (
        ("examples", answers),
        ("image_metrics", image_metrics),
        ("pooled_metrics", pooled_metrics),
        ("attributes", pa.Table.from_pylist(attributes)),
    ):
        pq.write_table(table, directory / f"{name}.parquet", compression="zstd")
    record["answers"] = answers.num_rows
    record["not_estimable"] = _not_estimable(image_metrics)
    unfinished = directory / f"{RECORD}.unfinished"
    unfinished.write_text(json.dumps(record, indent=2))
    unfinished.replace(directory / RECORD)


def _not_estimable(image_metrics: pa.Table) -> dict[str, int]:
    """Images without a value, for each "stream/layer/metric" that has any."""
    missing = image_metrics.filter(compute.is_nan(image_metrics["value"])).to_pylist()
    return dict(Counter(f"{r['stream']}/{r['layer']}/{r['metric']}" for r in missing))
