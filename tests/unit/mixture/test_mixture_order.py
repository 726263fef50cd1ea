import itertools
import subprocess
import sys
from collections import Counter
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.stats import chisquare

from mixlens.errors import SpecError
from mixlens.mixture.manifest import write_manifest
from mixlens.mixture.order import (
    DRAWS_A_SEED,
    HELD_OUT_START,
    MixtureOrder,
    held_out_indices,
    order_of,
)
from mixlens.mixture.shuffle import shuffled


@settings(max_examples=100, deadline=None)
@given(st.integers(1, 3000), st.integers(0, 2**29 - 1), st.integers(0, 10**6))
def test_a_shuffle_holds_each_example_once(size, seed, epoch):
    order = shuffled(np.arange(size), size, seed, "component", epoch)
    np.testing.assert_array_equal(np.sort(order), np.arange(size))


def test_a_shuffle_needs_no_memory_of_the_component():
    size = 10**12
    places = np.array([0, 1, size - 1])
    order = shuffled(places, size, 0, "component", 0)
    assert len(set(order)) == 3
    assert ((order >= 0) & (order < size)).all()


def test_no_two_epochs_seeds_or_components_have_the_same_order():
    orders = {
        tuple(shuffled(np.arange(20), 20, seed, name, epoch))
        for seed in (0, 1)
        for name in ("a", "b")
        for epoch in range(500)
    }
    assert len(orders) == 2000


def test_every_order_of_a_small_component_is_equally_likely():
    drawn = Counter(tuple(shuffled(np.arange(4), 4, 7, "a", epoch)) for epoch in range(4800))
    counts = [drawn[order] for order in itertools.permutations(range(4))]
    assert chisquare(counts).pvalue > 1e-3


def test_neighbours_in_a_large_epoch_are_unrelated():
    order = shuffled(np.arange(50_000), 50_000, 3, "a", 1)
    assert abs(np.corrcoef(order[:-1], order[1:])[0, 1]) < 0.02
    assert abs(np.corrcoef(order, np.arange(50_000))[0, 1]) < 0.02


def test_a_finite_component_is_gone_through_epoch_by_epoch():
    order = MixtureOrder({"a": 0.25, "b": 0.75}, {"a": 40, "b": None}, seed=5)
    component, index = order.entries(0, 4 * 40 * 6)
    own = index[component == order.components.index("a")].reshape(6, 40)
    np.testing.assert_array_equal(np.sort(own, axis=1), np.tile(np.arange(40), (6, 1)))
    assert len({tuple(epoch) for epoch in own}) == 6


def test_an_infinite_component_never_repeats_and_seeds_share_nothing():
    sizes = {"a": None, "b": None}
    first = MixtureOrder({"a": 0.5, "b": 0.5}, sizes, seed=3)
    component, index = first.entries(0, 10_000)
    assert len(set(zip(component, index, strict=True))) == 10_000
    assert index.min() == 3 * DRAWS_A_SEED
    assert index.max() < 4 * DRAWS_A_SEED
    _, other = MixtureOrder({"a": 0.5, "b": 0.5}, sizes, seed=4).entries(0, 10_000)
    assert not set(index) & set(other)


def test_ratios_of_one_seed_draw_the_same_examples_of_a_component():
    def drawn(weight: float) -> list[int]:
        order = MixtureOrder({"a": weight, "b": 1 - weight}, {"a": 30, "b": None}, seed=1)
        component, index = order.entries(0, 1000)
        return list(index[component == 0])

    few, many = drawn(0.25), drawn(0.75)
    assert (len(few), len(many)) == (250, 750)
    assert many[:250] == few


def test_training_never_reaches_the_held_out_examples():
    biggest = 2**29 - 1
    order = MixtureOrder({"a": 1.0}, {"a": None}, seed=biggest)
    assert order.at(DRAWS_A_SEED - 1)[1] < HELD_OUT_START
    with pytest.raises(SpecError, match=r"components\.a.*4294967296"):
        order.at(DRAWS_A_SEED)
    with pytest.raises(AssertionError, match="held-out"):
        MixtureOrder({"a": 1.0}, {"a": None}, seed=2**30).at(0)
    held_out = held_out_indices(3)
    assert list(held_out) == [2**62, 2**62 + 1, 2**62 + 2]
    assert max(held_out) < 2**63


def test_one_position_a_slice_and_any_selection_agree():
    order = MixtureOrder({"a": 0.3, "b": 0.3, "c": 0.4}, {"a": 11, "b": None, "c": 500}, seed=2)
    component, index = order.entries(1000, 1200)
    one_by_one = [order.at(position) for position in range(1000, 1200)]
    assert one_by_one == [(order.components[c], i) for c, i in zip(component, index, strict=True)]
    places = np.array([1150, 1003, 1003, 1199])
    np.testing.assert_array_equal(order.take(places)[1], index[places - 1000])
    assert order.counts(1000) == {"a": 300, "b": 300, "c": 400}
    assert order.counts(0) == {"a": 0, "b": 0, "c": 0}
    empty = order.entries(5, 5)
    assert len(empty[0]) == len(empty[1]) == 0


def test_the_order_is_the_same_in_every_process_and_release():
    order = MixtureOrder({"easy": 0.6, "hard": 0.4}, {"easy": 9, "hard": None}, seed=1)
    program = (
        "from mixlens.mixture.order import MixtureOrder\n"
        "order = MixtureOrder({'hard': 0.4, 'easy': 0.6}, {'hard': None, 'easy': 9}, seed=1)\n"
        "print([order.at(p) for p in range(8)])\n"
    )
    there = subprocess.run(
        [sys.executable, "-c", program], capture_output=True, text=True, check=True
    )
    assert there.stdout.strip() == str([order.at(position) for position in range(8)])
    # Golden: a change here changes what every recorded run was trained on.
    assert [order.at(position) for position in range(8)] == [
        ("easy", 6),
        ("hard", 4294967296),
        ("easy", 8),
        ("hard", 4294967297),
        ("easy", 1),
        ("easy", 0),
        ("hard", 4294967298),
        ("easy", 5),
    ]


def test_unknown_components_are_refused():
    with pytest.raises(SpecError, match=r"'hrad'.*\['easy', 'hard'\]"):
        MixtureOrder({"hrad": 1.0}, {"easy": None, "hard": None}, seed=0)


def test_the_manifest_is_the_order(tmp_path, mixture_run):
    run = mixture_run(steps=5, global_batch=12)
    write_manifest(run, tmp_path / "manifest.parquet", steps=5)
    table = pq.read_table(tmp_path / "manifest.parquet").to_pydict()
    assert table["position"] == list(range(60))
    assert table["step"] == [position // 12 for position in range(60)]
    realised = list(zip(table["component"], table["index"], strict=True))
    assert realised == [order_of(run).at(position) for position in range(60)]
    assert Counter(table["component"]) == order_of(run).counts(60)


def write_order(*arguments: object) -> subprocess.CompletedProcess:
    command = Path(__file__).resolve().parents[3] / "jobs" / "order.py"
    return subprocess.run(
        [sys.executable, command, *map(str, arguments)], capture_output=True, text=True
    )


def test_the_command_writes_the_order_of_a_run(tmp_path, mixture_run):
    run = mixture_run(steps=4)
    (tmp_path / "run.json").write_text(run.model_dump_json())
    done = write_order(tmp_path / "run.json", tmp_path / "order.parquet")
    assert (done.returncode, done.stderr) == (0, "")
    written, compared = done.stdout.splitlines()
    assert written == str(tmp_path / "order.parquet")
    assert compared.startswith("none of the 4 steps was trained yet")
    table = pq.read_table(tmp_path / "order.parquet").to_pydict()
    assert table["step"] == [position // 8 for position in range(4 * 8)]
    realised = list(zip(table["component"], table["index"], strict=True))
    assert realised == [order_of(run).at(position) for position in range(4 * 8)]


def test_the_command_refuses_what_is_no_run(tmp_path):
    (tmp_path / "run.json").write_text('{"name": "x"}')
    done = write_order(tmp_path / "run.json", tmp_path / "order.parquet")
    assert done.returncode == 2
    assert f"{tmp_path / 'run.json'}: this is no trial.json of a trial" in done.stderr
    assert "Traceback" not in done.stderr
    assert not (tmp_path / "order.parquet").exists()
