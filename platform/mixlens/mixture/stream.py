"""The mixture order as a Ray Data stream: examples are rendered on the cluster, in exact order.

A row of the dataset is a *unit*: consecutive micro-batches of one rank, rendered by one task into
one block. With `preserve_order`, the split that Ray Train makes deals unit k to rank k % workers,
and the rows of a unit are chosen for that rank. Ray does not promise this dealing, so every worker
checks the position of every row it receives.

Where a stream starts is kept by a small actor, the cursor, that the dataset asks each time it is
executed. Rank 0 moves it before the ranks meet at the barrier that begins an execution. So a
restart, another number of workers and a new segment are one and the same: the step in the
workers' own checkpoint decides.
"""

import threading
import time
from collections.abc import Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from itertools import chain
from typing import Any

import pyarrow as pa
import ray
import ray.data
from ray.data import (
    DataContext,
    DataIterator,
    Dataset,
    Datasource,
    ExecutionOptions,
    ReadTask,
    TaskPoolStrategy,
)
from ray.data._internal.execution.execution_callback import ExecutionCallback
from ray.data.block import BlockMetadata
from ray.data.collate_fn import ArrowBatchCollateFn
from ray.train import DataConfig
from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

from mixlens.mixture.batches import (
    Collate,
    MicroBatch,
    accumulation,
    micro_batch,
    micro_positions,
)
from mixlens.mixture.decoding import Decoder
from mixlens.mixture.refused import Refuses, takes_all
from mixlens.mixture.render import render_units, stream_units
from mixlens.sources.example import from_row
from mixlens.spec import RunSpec

# Rendering tasks a training worker that run at once; each is a process with imports of its own.
_RENDERERS_A_WORKER = 2

_PAUSE_S = 0.02


@ray.remote(num_cpus=0)
class Cursor:
    """What the next execution of the dataset holds: steps first ... last - 1 for some workers."""

    def __init__(self) -> None:
        self._segment = (0, 0, 1)

    def set(self, first: int, last: int, world_size: int) -> None:
        self._segment = (first, last, world_size)

    def get(self) -> tuple[int, int, int]:
        return self._segment


def make_cursor() -> Any:
    """Start the cursor of one training run on this node; keep the handle as long as the run."""
    here = NodeAffinitySchedulingStrategy(ray.get_runtime_context().get_node_id(), soft=False)
    # Ray adds `options` to the class at run time, unseen by type checkers.
    return Cursor.options(scheduling_strategy=here).remote()  # type: ignore[attr-defined]


def stream_options() -> ExecutionOptions:
    """How the dataset must be executed: without it, units reach the ranks in any order."""
    return ExecutionOptions(preserve_order=True)


def stream_data_config() -> DataConfig:
    """How Ray Train must split the dataset."""
    # Train replaces the options of the dataset's own context by these.
    return DataConfig(execution_options=stream_options(), enable_shard_locality=False)


def training_dataset(run: RunSpec, cursor: Any) -> Dataset:
    """The dataset to give a TorchTrainer as `datasets={"train": ...}`."""
    units = ray.data.read_datasource(_Units(cursor, run), override_num_blocks=1, num_cpus=0)
    # Strictly one row a block, so that every unit is a task of its own.
    units = units.repartition(target_num_rows_per_block=1, strict=True)
    # These tasks only pass on a number, yet would wait for a whole free CPU, forever where the
    # workers leave none; `repartition` has no argument for it.
    units._logical_plan.dag.ray_remote_args["num_cpus"] = 0
    dataset = units.map_batches(
        render_units,
        fn_kwargs={"content": run.model_dump_json()},
        batch_size=None,
        batch_format="pyarrow",
        num_cpus=run.resources.cpus_per_render,
        compute=TaskPoolStrategy(_RENDERERS_A_WORKER * run.resources.workers),
    )
    dataset.context.target_max_block_size = None  # never split a unit
    dataset.context.enable_progress_bars = False
    dataset.context.custom_execution_callback_classes.append(_Breather)
    return dataset


class _Breather(ExecutionCallback):
    """Lets Ray Data's scheduling loop rest: with enough rendered ahead it would spin.

    Where all that may be rendered is, its loop neither works nor waits, and takes half a CPU core
    from the training beside it. A pause a step costs latency that rendering ahead hides.
    """

    def on_execution_step(self, executor: Any) -> None:
        time.sleep(_PAUSE_S)


class RayStream:
    """Micro-batches of one rank, collated in a background thread.

    Attributes:
        waited: seconds that the consumer has waited for data so far.
    """

    def __init__(
        self,
        shard: DataIterator,
        run: RunSpec,
        rank: int,
        world_size: int,
        collate: Collate,
        cursor: Any,
        refuses: Refuses = takes_all,
    ) -> None:
        """Take the shard that Ray Train gave this rank of `training_dataset(run, cursor)`.

        `refuses` is the model's (`Adapter.refuses`).

        Raises:
            SpecError: `world_size` workers cannot share a global batch evenly.
        """
        self.waited = 0.0
        self._accumulation = accumulation(run, world_size)
        self._shard, self._cursor = shard, cursor
        self._run, self._rank, self._world_size = run, rank, world_size
        self._collate = _CollateRows(Decoder(run, refuses), collate)

    def steps(self, first: int, last: int) -> Iterator[list[MicroBatch]]:
        """The accumulated micro-batches of steps first ... last - 1, a list a step.

        Rendering begins at the call and takes seconds to deliver, so call it before the model is
        made ready, and for many steps at once. All ranks must ask for the same steps, and read
        them to the end or not at all before they ask again.
        """
        if first >= last:
            return iter(())
        if self._rank == 0:
            ray.get(self._cursor.set.remote(first, last, self._world_size))
        batches = iter(
            self._shard.iter_torch_batches(
                batch_size=self._run.training.micro_batch,
                prefetch_batches=2 * self._accumulation,
                collate_fn=self._collate,
                device="cpu",
            )
        )
        # Ray starts an execution when its first batch is asked for.
        starter = ThreadPoolExecutor(1, thread_name_prefix="stream")
        head = starter.submit(next, batches, None)
        starter.shutdown(wait=False)
        return self._steps(first, last, chain(_result(head), batches))

    def _steps(
        self, first: int, last: int, batches: Iterator[MicroBatch | None]
    ) -> Iterator[list[MicroBatch]]:
        for step in range(first, last):
            micros = range(step * self._accumulation, (step + 1) * self._accumulation)
            yield [self._next(batches, micro) for micro in micros]
        # Reading the end lets Ray release the execution.
        if (surplus := next(batches, None)) is not None:
            raise self._misdealt("no more positions", surplus)

    def _next(self, batches: Iterator[MicroBatch | None], micro: int) -> MicroBatch:
        started = time.perf_counter()
        batch = next(batches, None)
        self.waited += time.perf_counter() - started
        due = list(micro_positions(self._run, self._rank, self._world_size, micro))
        if batch is None or batch.positions != due:
            raise self._misdealt(f"positions {due}", batch)
        return batch

    def _misdealt(self, due: str, batch: MicroBatch | None) -> RuntimeError:
        return RuntimeError(
            f"rank {self._rank} of {self._world_size} was due {due} but received "
            f"{batch and batch.positions}: Ray dealt the stream in an order that Mixlens was not "
            "tested with"
        )


def _result(head: Future[MicroBatch | None]) -> Iterator[MicroBatch | None]:
    yield head.result()


class _Units(Datasource):
    """One row a unit: what to render for which rank."""

    def __init__(self, cursor: Any, run: RunSpec) -> None:
        self._cursor, self._run = cursor, run

    def estimate_inmemory_data_size(self) -> int | None:
        return None

    def get_read_tasks(
        self,
        parallelism: int,
        per_task_row_limit: int | None = None,
        data_context: DataContext | None = None,
    ) -> list[ReadTask]:
        first, last, world_size = ray.get(self._cursor.get.remote())
        units = stream_units(self._run, first, last, world_size)
        return [ReadTask(lambda: [units], BlockMetadata(None, None, None, None))]


class _CollateRows(ArrowBatchCollateFn):
    """One batch at a time: Ray Data calls from several threads, chat templates are for one.

    Photographs are decoded in all of them.
    """

    def __init__(self, decode: Decoder, collate: Collate) -> None:
        self._decode, self._collate = decode, collate
        self._lock = threading.Lock()

    def __call__(self, batch: pa.Table) -> Any:
        positions = batch["position"].to_pylist()
        rows = [from_row(row) for row in batch.to_pylist()]
        examples, replaced = self._decode(positions, rows)
        with self._lock:
            return micro_batch(positions, examples, self._collate, replaced)
