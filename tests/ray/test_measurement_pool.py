"""The actor pool: the same tables as one plain process, whatever happens to the actors."""

import os
import signal
import threading
import time
from dataclasses import replace
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import ray
from here import Here

from mixlens.errors import CheckpointError, DataError
from mixlens.measurement import Asked, Measured, Measurement, Subject, load, measure
from mixlens.measurement.pool import MeasurementPool
from mixlens.measurement.request import Answers
from mixlens.models.tiny import build_tiny_vlm
from mixlens.spec import HeldOut, ResourceSpec, SceneComponent, SceneSpec
from mixlens.tasks import vocabulary

pytestmark = pytest.mark.ray

IMAGES = 22
HELD_OUT = HeldOut(
    name="scenes",
    component=SceneComponent(
        scene=SceneSpec(image_size=64, objects=(2, 4)),
        tasks={"coarse": 2, "scene_graph": 1},
        size=100,
    ),
    examples=IMAGES,
)
ASKED = Asked(Answers(engine="transformers", max_new_tokens=8))
SMALL = {"cpus_per_actor": 0.5}


def measurement_of(root: Path, model: str, base: Measurement | None = None) -> Measurement:
    name = "model" if base is None else "tuned"
    return Measurement(root, Subject(name, model, name), HELD_OUT, ASKED, base)


@pytest.fixture(scope="module")
def model(tmp_path_factory):
    folder = tmp_path_factory.mktemp("tiny")
    build_tiny_vlm(folder, vocabulary(), seed=4, size="test")
    return str(folder)


@pytest.fixture(scope="module")
def alone(model, tmp_path_factory) -> Measured:
    """Measured in this process, in one batch."""
    measurement = measurement_of(tmp_path_factory.mktemp("alone"), model)
    measure(Here(), measurement, 64)
    return load(measurement)


@pytest.fixture(scope="module")
def one_actor(ray_local):
    pool = MeasurementPool(ResourceSpec(actors=1, **SMALL))
    yield pool
    pool.close()


def assert_same(measurement: Measurement, alone: Measured) -> None:
    found = load(measurement)
    pd.testing.assert_frame_equal(found.examples, alone.examples)
    for name in ("image_metrics", "pooled_metrics", "nulls"):
        pd.testing.assert_frame_equal(
            getattr(found, name), getattr(alone, name), rtol=1e-5, atol=1e-6
        )
    pd.testing.assert_frame_equal(found.attributes, alone.attributes)


def test_one_actor_gives_what_one_process_gives_once(one_actor, model, alone, tmp_path):
    measurement = measurement_of(tmp_path, model)
    measure(one_actor, measurement, 2)
    assert_same(measurement, alone)

    before = {file: file.stat().st_mtime_ns for file in tmp_path.rglob("*")}
    gone = replace(measurement, subject=replace(measurement.subject, path="/no/such/model"))
    measure(one_actor, gone, 2)  # finished: not even looked at
    assert before == {file: file.stat().st_mtime_ns for file in tmp_path.rglob("*")}

    tuned = measurement_of(tmp_path, model, measurement)
    measure(one_actor, tuned, 2)
    same = load(tuned).image_metrics.query(
        "metric == 'subspace_alignment_base' and stream == 'visual'"
    )
    assert len(same) == 3 * IMAGES
    np.testing.assert_allclose(same["value"], 1, atol=5e-4)
    assert not list(tuned.folder.glob("**/subspaces"))


def test_two_actors_and_the_death_of_one_change_nothing(ray_local, model, alone, tmp_path):
    pool = MeasurementPool(ResourceSpec(actors=2, **SMALL))
    measurement = measurement_of(tmp_path, model)
    try:
        victim = pool._actors[0]
        before = ray.get(victim.__ray_call__.remote(lambda actor: os.getpid()))
        errors = []

        def run():
            try:
                measure(pool, measurement, 2)
            except Exception as error:
                errors.append(error)

        thread = threading.Thread(target=run)
        thread.start()
        deadline = time.monotonic() + 120
        # The second pass over the images has begun.
        while not list(measurement.folder.glob("*/subspaces/*.safetensors")):
            assert time.monotonic() < deadline
            time.sleep(0.005)
        os.kill(before, signal.SIGKILL)
        assert not measurement.is_finished()
        thread.join(120)
        assert not errors
        assert ray.get(victim.__ray_call__.remote(lambda actor: os.getpid())) != before
        assert_same(measurement, alone)
    finally:
        pool.close()


def test_what_a_person_can_correct_comes_back_as_one_message(one_actor, model, tmp_path):
    nowhere = measurement_of(tmp_path / "a", "/no/such/model")
    with pytest.raises(CheckpointError, match="no such folder") as raised:
        measure(one_actor, nowhere, 2)
    assert type(raised.value) is CheckpointError  # not Ray's wrapper with a remote traceback
    assert "Traceback" not in str(raised.value)
    with pytest.raises(DataError, match="Measure the base model first"):
        measure(one_actor, measurement_of(tmp_path / "b", model, nowhere), 2)
    assert not nowhere.is_finished()
    measure(one_actor, measurement_of(tmp_path / "c", model), 2)  # and the actor still works
