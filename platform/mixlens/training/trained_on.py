"""What every step of a run was really trained on, written down as it happens, and compared.

`trained_on.txt` has a line a step, the digest of its rows (`mixlens.mixture.digests`) in 16 hex
digits. It comes from the rows that the model saw, `mixture.parquet` and the order from the run's
description: where they agree, the run was trained on what it says.
"""

from collections.abc import Sequence
from pathlib import Path

import pyarrow.parquet as pq

from mixlens.errors import CheckpointError, DataError, explain
from mixlens.mixture.batches import MicroBatch
from mixlens.mixture.decoding import REPLACED
from mixlens.mixture.digests import digest, digests_of, halves, joined
from mixlens.spec import RunSpec
from mixlens.training.context import WorkerContext

TRAINED_ON = "trained_on.txt"
_LINE = 17  # bytes


class TrainedOn:
    """The record of a run's steps, written by rank 0.

    A resumed run repeats the steps after its checkpoint, so their lines are dropped first.
    """

    def __init__(self, context: WorkerContext, first_step: int) -> None:
        """Go on after `first_step` steps.

        Raises:
            CheckpointError: what the steps before were trained on was not written down.
        """
        self._path = context.directory / TRAINED_ON
        self._writes = context.rank == 0
        self._lines: list[str] = []
        self._total = 0
        if not self._writes:
            return
        known = read_digests(context.directory)[:first_step]
        if len(known) < first_step:
            raise CheckpointError(
                explain(
                    str(self._path), f"{len(known)} steps", f"the checkpoint is of step "
                    f"{first_step}, so what was trained on before cannot be told",
                    f"Restore that file, or remove {context.directory} to train the run anew.",
                )
            )  # fmt: skip
        self._total = sum(known)
        self._path.touch()
        with self._path.open("r+") as file:
            file.truncate(first_step * _LINE)

    @staticmethod
    def share(micro_batches: Sequence[MicroBatch]) -> tuple[int, int]:
        """What this rank has of a step's digest, to be added up over the ranks."""
        return halves(sum(digest(rows.positions, rows.example_ids) for rows in micro_batches))

    def note(self, low: int, high: int) -> None:
        """Note a step by the sums of what all ranks have of its digest."""
        step = joined(low, high)
        self._total += step
        self._lines.append(f"{step:016x}\n")

    def write(self) -> str:
        """Write down the steps since the last call; the digest of all steps so far, on rank 0.

        Due before a checkpoint is published, so that no step before it is without a line.
        """
        if self._writes:
            with self._path.open("a") as file:
                file.writelines(self._lines)
        self._lines.clear()
        return f"{self._total % (1 << 64):016x}"


def read_digests(directory: Path) -> list[int]:
    """The digests in `trained_on.txt` of a run, one a step; a line that was cut short is left out.

    Raises:
        CheckpointError: the file is damaged.
    """
    path = directory / TRAINED_ON
    if not path.is_file():
        return []
    lines = path.read_text().splitlines(keepends=True)
    try:
        return [int(line, 16) for line in lines if len(line) == _LINE]
    except ValueError as error:
        raise CheckpointError(
            explain(str(path), str(error), "a line that is no digest of a step",
                    "Restore the file, or remove its folder to train the run anew.")
        ) from None  # fmt: skip


def check_trained_on(run: RunSpec, directory: Path) -> list[int]:
    """Compare the steps that were recorded with the run's order.

    Returns:
        the digests of all steps so far.

    Raises:
        CheckpointError: the record is damaged.
        DataError: names the first step that was trained on other examples.
    """
    found = read_digests(directory)[: run.training.steps]
    replaced = {}
    if (directory / REPLACED).is_file():
        rows = pq.read_table(directory / REPLACED, columns=["position", "instead"]).to_pylist()
        replaced = {row["position"]: row["instead"] for row in rows}
    for step, (is_, due) in enumerate(
        zip(found, digests_of(run, len(found), replaced), strict=True), start=1
    ):
        if is_ != due:
            raise DataError(
                explain(
                    str(directory / TRAINED_ON), f"{is_:016x}",
                    f"step {step} is the first that was trained on other examples than the order "
                    f"of the run says ({due:016x})",
                    f"The model in {directory} is not what its mixture says: remove the folder and "
                    "train the run anew. It should not happen: please report it.",
                )
            )  # fmt: skip
    return found
