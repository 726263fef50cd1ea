"""What a run writes down about itself: one record a logged step, and one at its end."""

import json
import os
import resource
import time
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import torch
import torch.distributed as dist
from torch import Tensor

from mixlens.errors import CheckpointError, damaged_file, explain
from mixlens.mixture.order import order_of
from mixlens.models.turns import count_tokens
from mixlens.spec import RunSpec
from mixlens.training.context import WorkerContext
from mixlens.training.cost.devices import mfu
from mixlens.training.trained_on import check_trained_on

JOURNAL = "training.jsonl"
MIXTURE = "mixture.parquet"
FINISHED = "trained.json"
MODEL = "model"
TRAINED_ON_COLUMN = "trained_on"
_TAIL = 1 << 16  # bytes; a record has some hundred


class Journal:
    """`training.jsonl` of the run, written by rank 0; one JSON object a logged step.

    A resumed run repeats the steps after its checkpoint, so their records are dropped first.
    """

    def __init__(self, context: WorkerContext, keep_until: int) -> None:
        self.path = context.directory / JOURNAL
        self.writes = context.rank == 0
        if self.writes:
            records = [record for record in read_journal(self.path) if record["step"] <= keep_until]
            part = self.path.with_suffix(".part")
            part.write_text("".join(json.dumps(record) + "\n" for record in records))
            part.rename(self.path)

    def write(self, record: dict[str, Any]) -> None:
        if self.writes:
            with self.path.open("a") as file:
                file.write(json.dumps(record) + "\n")


def read_journal(path: Path) -> list[dict[str, Any]]:
    """The records of a `training.jsonl`; a last line that a crash cut short is left out."""
    if not path.is_file():
        return []
    lines = path.read_text(errors="replace").splitlines(keepends=True)
    try:
        return [json.loads(line) for line in lines if line.endswith("\n")]
    except ValueError as error:
        remedy = "Delete the run's folder; the same command trains it again."
        raise damaged_file(path, error, remedy) from None


def last_record(path: Path) -> dict[str, Any] | None:
    """The last whole record of a `training.jsonl`, read from its end; None where there is none."""
    try:
        with path.open("rb") as file:
            file.seek(max(0, file.seek(0, os.SEEK_END) - _TAIL))
            tail = file.read()
    except FileNotFoundError:
        return None
    whole, newline, _ = tail.rpartition(b"\n")
    return json.loads(whole.rpartition(b"\n")[2]) if newline else None


class Interval:
    """Speed and memory since the last logged step, over all workers.

    Args:
        device: of this worker.
        peak: FLOP/s that it can reach; None: unknown.
    """

    def __init__(self, device: torch.device, peak: float | None = None) -> None:
        self.device, self.peak = device, peak
        self.restart()

    def restart(self) -> None:
        self.started, self.wait, self.steps = time.perf_counter(), 0.0, 0
        self.tokens, self.flops = 0, 0.0

    def waited(self, seconds: float) -> None:
        """Count a step, and how long it had to wait for its data."""
        self.wait += seconds
        self.steps += 1

    def saw(self, attention_mask: Tensor, flops: float = 0.0) -> None:
        """Count a micro-batch: positions that are no padding (visual tokens too), model FLOPs."""
        self.tokens += count_tokens(attention_mask)
        self.flops += flops

    def close(self, images: int) -> dict[str, float]:
        """The metrics of the interval, the same on every rank; starts the next interval.

        On GPUs also the model FLOPs that each of them does a second, and `mfu`, their share of its
        peak, where that is known.

        Args:
            images: of one step, over all workers.
        """
        seconds = time.perf_counter() - self.started
        sums = torch.tensor([self.tokens, self.flops], dtype=torch.float64, device=self.device)
        dist.all_reduce(sums)
        tokens, flops = sums.tolist()
        # The slowest worker holds up the others, the fullest one runs out of memory.
        worst = torch.tensor(
            [self.wait / seconds, seconds, peak_memory_gb(self.device)], device=self.device
        )
        dist.all_reduce(worst, dist.ReduceOp.MAX)
        wait_share, seconds, memory = worst.tolist()
        metrics = {
            "images_per_s": images * self.steps / seconds,
            "tokens_per_s": tokens / seconds,
            "data_wait_share": wait_share,
            "step_s": seconds / self.steps,
            "peak_memory_gb": memory,
        }
        if flops:
            each = flops / dist.get_world_size()
            metrics["model_tflops_per_s"] = each / seconds / 1e12
            share = mfu(each, seconds, self.peak)
            metrics |= {} if share is None else {"mfu": share}
        self.restart()
        return metrics


def peak_memory_gb(device: torch.device) -> float:
    """Most memory this process has held so far, GiB: of the GPU if it has one, else resident."""
    if device.type == "cuda":
        return torch.cuda.max_memory_allocated(device) / 2**30
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20  # Linux counts KiB


def finished_model(run: RunSpec, directory: Path) -> Path | None:
    """The model folder of `run` if it has been trained in `directory`.

    Raises:
        CheckpointError: another run has been trained there.
    """
    path = directory / FINISHED
    if not path.is_file():
        return None
    try:
        owner = json.loads(path.read_text())["run"]
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise CheckpointError(
            explain(str(path), path.name, f"it cannot be read ({error})",
                    "Remove the folder of this run; the same command then trains it again.")
        ) from None  # fmt: skip
    if owner != run.digest():
        raise CheckpointError(
            explain(str(path), owner, f"another run than {run.digest()} was trained here",
                    "Give this run a directory of its own.")
        )  # fmt: skip
    return directory / MODEL


def finish(run: RunSpec, directory: Path) -> None:
    """Write what a finished run was: its mixture, and last `trained.json`, which says it is there.

    `mixture.parquet` has a row a step: step, of each component the examples so far, as the run's
    order says, and `trained_on`, the digest of what was really trained on, which agrees.

    Raises:
        DataError: a step was trained on other examples than the order says.
    """
    digests = check_trained_on(run, directory)
    assert len(digests) == run.training.steps, "every step is noted before the run ends"
    order, batch = order_of(run), run.training.global_batch
    counts = [order.counts(step * batch) for step in range(1, run.training.steps + 1)]
    mixture = {name: [count[name] for count in counts] for name in order.components}
    steps = {"step": list(range(1, len(counts) + 1))}
    seen = {TRAINED_ON_COLUMN: [f"{digest:016x}" for digest in digests]}
    pq.write_table(pa.table(steps | mixture | seen), directory / MIXTURE)
    record = {
        "run": run.digest(),
        "model": run.model,
        "steps": run.training.steps,
        "examples": counts[-1],
        "last": read_journal(directory / JOURNAL)[-1],
    }
    part = directory / (FINISHED + ".part")
    part.write_text(json.dumps(record, indent=1))
    part.rename(directory / FINISHED)
