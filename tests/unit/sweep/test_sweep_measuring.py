"""One model measured, stage by stage, in this process: the same whatever the batches."""

import json

import numpy as np
import pandas as pd
import pyarrow.parquet as pq
import pytest

from mixlens.activations.store import layers_of, read_layer
from mixlens.analysis.measured import model_tables
from mixlens.analysis.measurement import load_model
from mixlens.errors import DataError
from mixlens.evaluation.throughput import Effort
from mixlens.models import load_vlm
from mixlens.models.tiny import build_tiny_vlm
from mixlens.spec import (
    DeletionSpec,
    EvaluationSpec,
    HeldOut,
    ProbeSpec,
    ResourceSpec,
    SceneComponent,
    SceneSpec,
)
from mixlens.sweep.measuring import measure_model
from mixlens.tasks import vocabulary

IMAGES = 24
HELD_OUT = HeldOut(
    name="scenes",
    component=SceneComponent(
        scene=SceneSpec(image_size=64, objects=(1, 4)), tasks={"coarse": 2, "count": 1}
    ),
    evaluation=EvaluationSpec(
        component="scenes",
        examples=IMAGES,
        batch_size=8,
        max_new_tokens=8,
        probes=ProbeSpec(attributes=("object_count",), kinds=("linear",), every_position=False),
        deletion=DeletionSpec(shares=(0.5,), seeds=(0,), downsampling=False, examples=16),
    ),
)


class Here:
    """A pool that works in this process."""

    resources = ResourceSpec(gpus_per_actor=1)

    def __init__(self):
        self.loaded = {}
        self.stages = []

    def load(self, path):
        if path not in self.loaded:
            self.loaded[path] = load_vlm(path)
        return self.loaded[path]

    def map(self, function, units, *shared, done=lambda n: None):
        self.stages.append(function.__name__)
        results = []
        for unit in units:
            results.append(function(self.load, unit, *shared))
            done(len(results))
        return results


@pytest.fixture(scope="module")
def model(tmp_path_factory):
    folder = tmp_path_factory.mktemp("tiny")
    build_tiny_vlm(folder, vocabulary(), seed=4, size="test")
    return str(folder)


@pytest.fixture(scope="module")
def measured(model, tmp_path_factory):
    pool, told = Here(), []
    directory = measure_model(
        pool,
        HELD_OUT,
        model,
        tmp_path_factory.mktemp("measure"),
        progress=lambda *x: told.append(x),
    )
    return directory, pool, told


def test_everything_that_was_asked_for_is_there_and_nothing_else(measured):
    directory, _, told = measured
    assert {file.stem for file in directory.glob("*.parquet")} == {
        "examples", "image_metrics", "pooled_metrics", "nulls", "attributes",
        "probes", "embeddings", "deletion",
    }  # fmt: skip
    assert not (directory / "states").exists()
    record = json.loads((directory / "measured.json").read_text())
    assert record["images"] == IMAGES
    assert record["seconds"].keys() == {stage for stage, _, _ in told}
    # Every stage was told from none of its units to all of them.
    for stage in record["seconds"]:
        counts = [(done, units) for name, done, units in told if name == stage]
        assert counts == [(n, counts[-1][1]) for n in range(counts[-1][1] + 1)]


def test_a_finished_measurement_is_not_touched(measured, model):
    directory, _, _ = measured
    pool = Here()
    assert measure_model(pool, HELD_OUT, "/no/such/model", directory) == directory
    assert pool.stages == []


def test_nothing_deleted_answers_as_the_table_of_answers_does(measured):
    results = load_model(measured[0])
    deletion = results.deletion
    whole = deletion[(deletion["share"] == 0) & (deletion["objects"] == "all")]
    first = results.attributes["example_id"][:16]
    asked = results.examples[results.examples["example_id"].isin(first)]
    for group in ("coarse", "count"):
        value = whole.loc[whole["group"] == group, "value"].iloc[0]
        expected = asked.loc[asked["group"] == group, "exact"].mean()
        assert value == pytest.approx(expected)
    halved = deletion[(deletion["share"] == 0.5) & (deletion["objects"] == "all")]
    assert (halved["tokens_kept"] == whole["tokens_kept"].iloc[0] / 2).all()


def test_batches_change_nothing(measured, model, tmp_path):
    evaluation = HELD_OUT.evaluation.model_copy(update={"batch_size": 24})
    other = load_model(
        measure_model(
            Here(), HELD_OUT.model_copy(update={"evaluation": evaluation}), model, tmp_path
        )
    )
    one = load_model(measured[0])
    for name in ("examples", "image_metrics", "pooled_metrics", "attributes", "probes"):
        pd.testing.assert_frame_equal(
            getattr(one, name), getattr(other, name), rtol=1e-4, atol=1e-5
        )
    first, second = (
        table.embeddings.sort_values(["stream", "layer", "example_id"]) for table in (one, other)
    )
    np.testing.assert_allclose(np.stack(first["vector"]), np.stack(second["vector"]), atol=0.02)


def test_how_fast_it_answered_stands_beside_the_answers(measured):
    directory, _, _ = measured
    record = json.loads((directory / "throughput.json").read_text())
    assert record["engine"] == "transformers"
    assert record["answers"] == len(load_model(directory).examples)
    assert record["answers"] <= record["tokens"] <= 8 * record["answers"]
    assert record["answers_per_s"] == pytest.approx(record["answers"] / record["seconds"], rel=0.01)
    assert record["tokens_per_s"] == pytest.approx(record["tokens"] / record["seconds"], rel=0.01)


def test_vllm_gives_the_answers_and_nothing_else(measured, model, tmp_path, monkeypatch):
    plain = {"probes": None, "deletion": None, "engine": "vllm"}
    asked = HELD_OUT.model_copy(update={"evaluation": HELD_OUT.evaluation.model_copy(update=plain)})
    pool, told = Here(), []
    end = load_vlm(model).processor.tokenizer.eos_token_id

    def says_its_number(files, served, resources, done):
        said = {}
        for file in files:
            for row in pq.read_table(file).to_pylist():
                for number in row["numbers"]:
                    said[row["unit"], number] = [5 + row["unit"], 5 + number, end]
        assert (served.model, resources) == (model, pool.resources)
        done(len(said))
        return said, Effort(len(said), 3 * len(said), 2.0)

    monkeypatch.setattr("mixlens.evaluation.engine.ask_vllm", says_its_number)
    directory = measure_model(pool, asked, model, tmp_path, progress=lambda *x: told.append(x))
    own, other = load_model(measured[0]), load_model(directory)
    for name in ("image_metrics", "pooled_metrics", "attributes"):
        pd.testing.assert_frame_equal(getattr(own, name), getattr(other, name))
    same = ["example_id", "group", "question", "answer", "choices"]
    pd.testing.assert_frame_equal(own.examples[same], other.examples[same])
    tokenizer = load_vlm(model).processor.tokenizer
    unit = np.searchsorted(other.attributes["example_id"], other.examples["example_id"]) // 8 * 8
    number = other.examples.groupby(unit).cumcount()
    expected = [
        tokenizer.decode([5 + u, 5 + n], skip_special_tokens=True).strip()
        for u, n in zip(unit, number, strict=True)
    ]
    assert other.examples["response"].tolist() == expected
    assert len(set(expected)) > 16
    assert set(other.examples["finished"]) == {1.0}
    assert pool.stages == ["_left_out", "_look", "_questions", "_score", "_reduce", "_null"]
    assert ("vllm", 0, len(expected)) in told
    assert ("vllm", len(expected), len(expected)) in told
    record = json.loads((directory / "throughput.json").read_text())
    assert (record["engine"], record["answers_per_s"]) == ("vllm", len(expected) / 2)
    assert not (directory / "asked").exists()


def test_blank_images_look_alike_and_can_go_unasked(measured, model, tmp_path):
    plain = HELD_OUT.evaluation.model_copy(update={"probes": None, "deletion": None})
    blank = HELD_OUT.model_copy(update={"images": "blank", "evaluation": plain})
    results = load_model(measure_model(Here(), blank, model, tmp_path, answers=False))
    assert len(results.examples) == 0
    assert not (tmp_path / "throughput.json").exists()
    assert results.probes is None
    assert results.deletion is None
    pixels = results.image_metrics[results.image_metrics["stream"] == "pixels"]
    cosine = pixels.loc[pixels["metric"] == "mean_cosine", "value"]
    np.testing.assert_allclose(cosine, 1, atol=1e-6)
    # The attributes are those of the scenes that were there before.
    pd.testing.assert_frame_equal(results.attributes, load_model(measured[0]).attributes)


def test_tables_hold_the_model_beside_its_controls(measured, model, tmp_path):
    results = load_model(measured[0])
    tables = model_tables(results, {"twin": results})
    scores = tables.layers[
        (tables.layers["metric"] == "gini") & (tables.layers["stream"] == "visual")
    ]
    own, twin = (scores[scores["model"] == name] for name in ("model", "twin"))
    assert own["value"].tolist() == twin["value"].tolist()
    by_image = results.image_metrics.query("metric == 'gini' and stream == 'visual'")
    means = by_image.groupby("layer")["value"].mean()
    np.testing.assert_allclose(own.set_index("layer")["value"], means)
    assert ((own["low"] <= own["value"]) & (own["value"] <= own["high"])).all()
    # The excess is paired by image: the difference of the means.
    layers = tables.layers[tables.layers["model"] == "model"]
    excess = layers[(layers["metric"] == "redundancy_excess") & (layers["stream"] == "visual")]
    scores = results.image_metrics.query("metric == 'redundancy_score'")
    floor = scores.query("stream == 'pixels'")["value"].mean()
    means = scores.query("stream == 'visual'").groupby("layer")["value"].mean() - floor
    np.testing.assert_allclose(excess.set_index("layer")["value"], means)
    # Counts of 1 to 4 objects each stand for themselves, and their images add up.
    counted = tables.by_count.query("metric == 'gini' and stream == 'visual' and layer == 0")
    assert counted["objects"].tolist() == sorted(results.attributes["object_count"].unique())
    assert counted["n"].sum() == IMAGES
    few = results.attributes.query("object_count == 1")["example_id"]
    expected = by_image[(by_image["layer"] == 0) & by_image["example_id"].isin(few)]["value"].mean()
    assert counted["value"].iloc[0] == pytest.approx(expected)


def test_states_are_kept_where_the_file_asks_for_them(measured, model, tmp_path):
    asked = {"probes": None, "deletion": None, "keep_states": True}
    kept = HELD_OUT.model_copy(update={"evaluation": HELD_OUT.evaluation.model_copy(update=asked)})
    directory = measure_model(Here(), kept, model, tmp_path, answers=False)
    means = load_model(measured[0]).embeddings
    for stream, layer in layers_of(directory / "states"):
        some = means[(means["stream"] == stream) & (means["layer"] == layer)]
        states = read_layer(directory / "states", stream, layer, list(some["example_id"]))
        count = states.exists.sum(1, keepdim=True)
        mean = (states.tokens * states.exists[..., None]).sum(1) / count
        np.testing.assert_allclose(mean, np.stack(some["vector"]), atol=0.02)


def test_an_unfinished_measurement_is_named(tmp_path):
    with pytest.raises(DataError, match=r"no examples\.parquet"):
        load_model(tmp_path)
