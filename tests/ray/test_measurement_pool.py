"""The actor pool: the same tables as one plain process, whatever happens to the actors."""

import json
import os
import signal
import threading
import time

import numpy as np
import pyarrow.parquet as pq
import pytest
import ray

from mixlens.activations import measure
from mixlens.activations.pool import MeasurementPool
from mixlens.errors import CheckpointError, DataError
from mixlens.evaluation import answer
from mixlens.mixture.order import held_out_indices
from mixlens.models import load_vlm
from mixlens.models.tiny import build_tiny_vlm
from mixlens.sources import open_source
from mixlens.spec import (
    EvaluationSpec,
    MeasureSpec,
    ResourceSpec,
    SceneComponent,
    SceneSpec,
    held_out_of,
)
from mixlens.sweep.measuring import measure_model
from mixlens.tasks import vocabulary

pytestmark = pytest.mark.ray

IMAGES = 22
SPEC = MeasureSpec(
    name="test",
    model="not used",
    components={
        "scenes": SceneComponent(
            scene=SceneSpec(image_size=64, objects=(2, 4)),
            tasks={"coarse": 2, "scene_graph": 1},
            size=100,
        )
    },
    evaluation=EvaluationSpec(component="scenes", examples=IMAGES, batch_size=2, max_new_tokens=8),
)
HELD_OUT = held_out_of(SPEC)
SMALL = {"cpus_per_actor": 0.5}


@pytest.fixture(scope="module")
def model(tmp_path_factory):
    folder = tmp_path_factory.mktemp("tiny")
    build_tiny_vlm(folder, vocabulary(), seed=4, size="test")
    return str(folder)


@pytest.fixture(scope="module")
def alone(model):
    """Answers and measurement in this process, in one batch."""
    spec = SPEC.components["scenes"].model_copy(update={"size": None})
    source = open_source("scenes", spec)
    examples = [source[index] for index in held_out_indices(IMAGES)]
    vlm = load_vlm(model)
    return answer(vlm, examples, 256, 8), measure(vlm, examples, 64), examples


@pytest.fixture(scope="module")
def one_actor(ray_local):
    pool = MeasurementPool(ResourceSpec(actors=1, **SMALL))
    yield pool
    pool.close()


def assert_same(directory, alone):
    answers, measured, examples = alone
    found = pq.read_table(directory / "examples.parquet")
    assert found.to_pylist() == answers.to_pylist()
    for name in ("image_metrics", "pooled_metrics"):
        here = pq.read_table(directory / f"{name}.parquet").to_pandas()
        there = getattr(measured, name).to_pandas()
        keys = [column for column in there if column not in ("value", "low", "high")]
        for column in there:
            if column in keys:
                assert here[column].tolist() == there[column].tolist()
            else:
                np.testing.assert_allclose(here[column], there[column], rtol=1e-5, atol=1e-6)
    attributes = pq.read_table(directory / "attributes.parquet").to_pylist()
    assert attributes == [{"example_id": e.example_id, **e.attributes} for e in examples]


def test_one_actor_gives_what_one_process_gives_once(one_actor, model, alone, tmp_path):
    directory = tmp_path / "measure"
    assert measure_model(one_actor, HELD_OUT, model, directory) == directory
    assert_same(directory, alone)
    record = json.loads((directory / "measured.json").read_text())
    assert record["images"] == IMAGES
    assert record["not_estimable"]["text/0/redundancy_score"] == IMAGES

    before = {file: file.stat().st_mtime_ns for file in directory.rglob("*")}
    measure_model(one_actor, HELD_OUT, "/no/such/model", directory)  # finished: not even looked at
    assert before == {file: file.stat().st_mtime_ns for file in directory.rglob("*")}

    tuned = measure_model(one_actor, HELD_OUT, model, tmp_path / "tuned", base=directory)
    frame = pq.read_table(tuned / "image_metrics.parquet").to_pandas()
    same = frame.query("metric == 'subspace_alignment_base' and stream == 'visual'")
    assert len(same) == 3 * IMAGES
    np.testing.assert_allclose(same["value"], 1, atol=5e-4)
    assert not (tuned / "subspaces").exists()


def test_two_actors_and_the_death_of_one_change_nothing(ray_local, model, alone, tmp_path):
    pool = MeasurementPool(ResourceSpec(actors=2, **SMALL))
    try:
        victim = pool._actors[0]
        before = ray.get(victim.__ray_call__.remote(lambda actor: os.getpid()))
        errors = []

        def run():
            try:
                measure_model(pool, HELD_OUT, model, tmp_path)
            except Exception as error:
                errors.append(error)

        thread = threading.Thread(target=run)
        thread.start()
        deadline = time.monotonic() + 120
        while not list(tmp_path.glob("subspaces/*.safetensors")):  # the second pass has begun
            assert time.monotonic() < deadline
            time.sleep(0.005)
        os.kill(before, signal.SIGKILL)
        assert not (tmp_path / "measured.json").exists()
        thread.join(120)
        assert not errors
        assert ray.get(victim.__ray_call__.remote(lambda actor: os.getpid())) != before
        assert_same(tmp_path, alone)
    finally:
        pool.close()


def test_what_a_person_can_correct_comes_back_as_one_message(one_actor, model, tmp_path):
    with pytest.raises(CheckpointError, match="no such folder") as raised:
        measure_model(one_actor, HELD_OUT, "/no/such/model", tmp_path / "a")
    assert type(raised.value) is CheckpointError  # not Ray's wrapper with a remote traceback
    assert "Traceback" not in str(raised.value)
    with pytest.raises(DataError, match="Measure the base model first"):
        measure_model(one_actor, HELD_OUT, model, tmp_path / "b", base=tmp_path / "nothing")
    assert not (tmp_path / "a" / "measured.json").exists()
    measure_model(one_actor, HELD_OUT, model, tmp_path / "c")  # and the actor still works
