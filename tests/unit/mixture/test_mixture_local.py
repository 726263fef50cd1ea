import threading

import numpy as np
import pytest
import torch

from mixlens.errors import SpecError
from mixlens.mixture.batches import Reader, accumulation, micro_positions
from mixlens.mixture.local import LocalStream
from mixlens.mixture.order import order_of


def collate(examples):
    return {"images": torch.from_numpy(np.stack([example.image for example in examples]))}


def read(run, world_size, first, last):
    """Positions and ids of each global batch, over all ranks."""
    ranks = [
        list(LocalStream(run, rank, world_size, collate).steps(first, last))
        for rank in range(world_size)
    ]
    return [
        sorted(
            pair
            for rank in ranks
            for micro in rank[step]
            for pair in zip(micro.positions, micro.example_ids, strict=True)
        )
        for step in range(last - first)
    ]


def test_a_global_batch_is_the_same_for_any_number_of_workers(mixture_run):
    run = mixture_run()
    order = order_of(run)
    expected = [
        [(p, "{}/{}".format(*order.at(p))) for p in range(step * 8, step * 8 + 8)]
        for step in range(6)
    ]
    for world_size in (1, 2, 4):
        assert read(run, world_size, 0, 6) == expected
        assert read(run, world_size, 4, 6) == expected[4:]


def test_a_rank_gets_the_rows_of_the_formula(mixture_run):
    run = mixture_run()
    steps = list(LocalStream(run, 1, 2, collate).steps(3, 5))
    # [s G + (j W + r) b, + b) with G = 8, W = 2, b = 2, r = 1
    assert [[micro.positions for micro in step] for step in steps] == [
        [[26, 27], [30, 31]],
        [[34, 35], [38, 39]],
    ]


def test_a_micro_batch_is_what_the_order_says(mixture_run):
    run = mixture_run()
    (first, *_), *_ = LocalStream(run, 0, 1, collate).steps(0, 1)
    examples = Reader(run)([0, 1])
    assert first.example_ids == [example.example_id for example in examples]
    assert first.components == [order_of(run).at(p)[0] for p in (0, 1)]
    torch.testing.assert_close(first.tensors["images"], collate(examples)["images"])


@pytest.mark.parametrize("world_size", [1, 2, 4, 8])
def test_ranks_share_the_positions_without_rest(mixture_run, world_size):
    run = mixture_run(global_batch=16)
    micros = 3 * accumulation(run, world_size)
    seen = [
        position
        for rank in range(world_size)
        for micro in range(micros)
        for position in micro_positions(run, rank, world_size, micro)
    ]
    assert sorted(seen) == list(range(48))


def test_workers_that_cannot_share_a_batch_are_refused(mixture_run):
    with pytest.raises(SpecError, match=r"global_batch: got 8: .*2 x 3.*divides.*= 4"):
        LocalStream(mixture_run(), 0, 3, collate)


def test_a_failing_example_fails_the_step_that_needs_it(mixture_run):
    def failing(examples):
        raise ValueError("cannot be collated")

    with pytest.raises(ValueError, match="cannot be collated"):
        next(LocalStream(mixture_run(), 0, 1, failing).steps(0, 1))


def test_stopping_early_leaves_no_thread(mixture_run):
    before = threading.active_count()
    steps = LocalStream(mixture_run(), 0, 1, collate).steps(0, 1000)
    next(steps)
    steps.close()
    assert threading.active_count() == before


def test_waiting_is_counted(mixture_run):
    stream = LocalStream(mixture_run(), 0, 1, collate)
    list(stream.steps(0, 2))
    assert stream.waited > 0
