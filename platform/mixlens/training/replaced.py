"""Photographs that a run had to replace: written down as it happens, until they are too many."""

import json
from collections.abc import Sequence
from dataclasses import asdict, fields
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import torch.distributed as dist

from mixlens.errors import DataError, damaged_file, explain
from mixlens.mixture.batches import MicroBatch
from mixlens.mixture.decoding import REPLACED, Replacement
from mixlens.mixture.order import order_of
from mixlens.spec import RunSpec
from mixlens.training.context import WorkerContext

ROWS = "replaced"
FEW = 8  # images that a run may always replace
_NAMED = 5
_SCHEMA = pa.schema(
    [
        (field.name, pa.int64() if field.type is int else pa.string())
        for field in fields(Replacement)
    ]
)


class Replaced:
    """The replaced images of a run: rows of every rank, and their number over all ranks.

    Each rank appends to `replaced/rank-<n>.jsonl` before the step that uses the replacements. A
    resumed run repeats the steps after its checkpoint, so their rows are dropped first.

    Attributes:
        total: replaced positions so far, over all ranks, as of the last `check`; None for a run
            that takes nothing from data sets.
    """

    def __init__(self, run: RunSpec, context: WorkerContext, first_step: int) -> None:
        self._run, self._context = run, context
        self._order = order_of(run)
        self._data_of = {
            name: data_set
            for name in self._order.components
            if (data_set := run.components[name].data_set)
        }
        self._folder = context.directory / ROWS
        # Of this rank; the first one also counts what all of them had before the checkpoint.
        self._counts = dict.fromkeys(sorted(set(self._data_of.values())), 0)
        self.total = 0 if self._counts else None
        if self._counts:
            if context.rank == 0:
                self._keep_until(first_step * run.training.global_batch)
            dist.barrier()

    def note(self, micro_batches: Sequence[MicroBatch]) -> list[int]:
        """Write down what a step of this rank replaced.

        Returns:
            replaced positions so far of each data set, to be summed over the ranks.
        """
        replacements = [replaced for rows in micro_batches for replaced in rows.replaced]
        if replacements:
            with (self._folder / f"rank-{self._context.rank}.jsonl").open("a") as file:
                for replaced in replacements:
                    file.write(json.dumps(asdict(replaced)) + "\n")
                    self._counts[replaced.data] += 1
        return list(self._counts.values())

    def check(self, counts: Sequence[int], steps: int) -> None:
        """Stop a run whose photographs turn out to be damaged; all ranks call it.

        Args:
            counts: replaced positions so far of each data set, over all ranks.
            steps: optimiser steps so far.

        Raises:
            DataError: more than `max_left_out` of the images of a data set were replaced.
        """
        if self.total is None:
            return
        self.total = sum(counts)
        if self.total < FEW:
            return
        drawn = self._order.counts(steps * self._run.training.global_batch)
        for name, count in zip(self._counts, counts, strict=True):
            of = sum(n for component, n in drawn.items() if self._data_of.get(component) == name)
            if count >= FEW and count > self._run.data[name].max_left_out * of:
                raise DataError(self._agreed(name, count, of))

    def write_table(self) -> None:
        """Merge the rows of all ranks into `replaced.parquet`, in order of position."""
        if self.total is not None:
            table = pa.Table.from_pylist(self._rows(), _SCHEMA)
            pq.write_table(table, self._context.directory / REPLACED)

    def _agreed(self, name: str, count: int, of: int) -> str:
        """The message, the same on every rank, once the table that it names is there."""
        message = [""]
        if self._context.rank == 0:
            self.write_table()
            rows = [row for row in self._rows() if row["data"] == name]
            first = ", ".join(f"{row['example_id']} ({row['detail']})" for row in rows[:_NAMED])
            root, limit = self._run.data[name].root, self._run.data[name].max_left_out
            message[0] = explain(
                f"data.{name}.max_left_out", limit,
                f"of {of} images that were drawn, {count} ({count / of:.1%}) could not be used "
                f"and were replaced; the first: {first}; all are in "
                f"{self._context.directory / REPLACED}",
                f"Restore the files in {root}, or raise this limit; the same command then goes on.",
            )  # fmt: skip
        dist.broadcast_object_list(message, src=0)
        return message[0]

    def _keep_until(self, position: int) -> None:
        self._folder.mkdir(exist_ok=True)
        rows = [row for row in self._rows() if row["position"] < position]
        for row in rows:
            self._counts[row["data"]] += 1
        # All in the first rank's file: there may have been more workers than now.
        part = self._folder / "rank-0.part"
        part.write_text("".join(json.dumps(row) + "\n" for row in rows))
        part.rename(self._folder / "rank-0.jsonl")
        for file in self._folder.glob("rank-*.jsonl"):
            if file.name != "rank-0.jsonl":
                file.unlink()

    def _rows(self) -> list[dict[str, Any]]:
        """The rows of all ranks, one a position; a last line that a crash cut short is left out."""
        by_position = {}
        for file in sorted(self._folder.glob("*.jsonl")):
            for line in file.read_text().splitlines(keepends=True):
                if line.endswith("\n"):
                    try:
                        row = json.loads(line)
                        by_position[row["position"]] = row
                    except (ValueError, KeyError, TypeError) as error:
                        raise damaged_file(file, error) from None
        return [by_position[position] for position in sorted(by_position)]
