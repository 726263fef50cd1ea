"""What the stream decides without Ray; tests/ray/test_stream.py runs it under a real one."""

import subprocess
import sys

import pytest

from mixlens.errors import SpecError
from mixlens.mixture.batches import MicroBatch, accumulation, micro_positions
from mixlens.mixture.render import stream_units
from mixlens.mixture.stream import RayStream


class Shard:
    """Gives fixed positions, whatever was asked for."""

    def __init__(self, *positions: list[int]) -> None:
        self.positions = positions

    def iter_torch_batches(self, **options):
        return (MicroBatch(positions, [], [], {}) for positions in self.positions)


def steps(run, shard):
    """The only step of rank 1 of 2; its rows are [2, 3] and [6, 7]."""
    return list(RayStream(shard, run, 1, 2, lambda examples: {}, cursor=None).steps(0, 1))


def test_the_rows_of_the_rank_are_accepted(mixture_run):
    (step,) = steps(mixture_run(), Shard([2, 3], [6, 7]))
    assert [micro.positions for micro in step] == [[2, 3], [6, 7]]


@pytest.mark.parametrize(
    "received",
    [
        [[0, 1], [4, 5]],  # another rank's
        [[6, 7], [2, 3]],
        [[3, 2], [6, 7]],
        [[2, 3, 4], [6, 7]],
        [[2, 3]],
        [],
    ],
)
def test_any_other_row_stops_the_training(mixture_run, received):
    with pytest.raises(RuntimeError, match=r"rank 1 of 2 was due positions \[\d, \d\] but rec"):
        steps(mixture_run(), Shard(*received))


def test_rows_after_the_last_step_stop_the_training(mixture_run):
    with pytest.raises(RuntimeError, match="rank 1 of 2 was due no more positions but received"):
        steps(mixture_run(), Shard([2, 3], [6, 7], [10, 11]))


def test_no_steps_need_no_data(mixture_run):
    stream = RayStream(Shard(), mixture_run(), 0, 1, lambda examples: {}, cursor=None)
    assert list(stream.steps(4, 4)) == []


@pytest.mark.parametrize("world_size", [1, 2, 4])
@pytest.mark.parametrize(("first", "last"), [(0, 1), (0, 100), (37, 83)])
def test_units_dealt_in_turn_give_each_rank_its_rows_in_order(mixture_run, world_size, first, last):
    run = mixture_run()
    units = stream_units(run, first, last, world_size).to_pylist()
    micros = accumulation(run, world_size)
    for rank in range(world_size):
        dealt = units[rank::world_size]
        assert {unit["rank"] for unit in dealt} == {rank}
        rendered = [micro for unit in dealt for micro in range(unit["start"], unit["stop"])]
        assert rendered == list(range(first * micros, last * micros))
        # Ray's equal split only drops nothing if all ranks get as many rows.
        assert len(dealt) == len(units) // world_size
    rows = [
        position
        for unit in units
        for micro in range(unit["start"], unit["stop"])
        for position in micro_positions(run, unit["rank"], world_size, micro)
    ]
    assert sorted(rows) == list(range(first * 8, last * 8))


def test_workers_that_cannot_share_a_batch_are_refused(mixture_run):
    with pytest.raises(SpecError, match="no multiple of micro_batch x workers = 2 x 3"):
        RayStream(Shard(), mixture_run(), 0, 3, lambda examples: {}, cursor=None)


def test_rendering_processes_start_without_torch():
    """Importing it took most of the time of a short stream."""
    program = "import sys, mixlens.mixture.render; print('torch' in sys.modules)"
    there = subprocess.run(
        [sys.executable, "-c", program], capture_output=True, text=True, check=True
    )
    assert there.stdout.strip() == "False"
