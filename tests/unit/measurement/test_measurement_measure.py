"""One model measured, part by part, in this process: the same whatever the batches."""

import json
import shutil
from dataclasses import replace

import numpy as np
import pandas as pd
import pyarrow.parquet as pq
import pytest
from here import Here

from mixlens.activations.store import layers_of, read_layer
from mixlens.analysis.measured import model_tables
from mixlens.errors import DataError
from mixlens.evaluation.throughput import Effort, read_throughput
from mixlens.measurement import Asked, Measurement, Subject, load, measure
from mixlens.measurement.request import Answers, Probe
from mixlens.models import load_vlm
from mixlens.models.tiny import build_tiny_vlm
from mixlens.spec import DeletionSpec, HeldOut, ProbeSpec, SceneComponent, SceneSpec
from mixlens.tasks import vocabulary

IMAGES = 24
HELD_OUT = HeldOut(
    name="scenes",
    component=SceneComponent(
        scene=SceneSpec(image_size=64, objects=(1, 4)), tasks={"coarse": 2, "count": 1}
    ),
    examples=IMAGES,
)
PLAIN = Asked(answers=Answers(engine="transformers", max_new_tokens=8))
PROBES = ProbeSpec(attributes=("object_count",), kinds=("linear",), every_position=False)
DELETION = DeletionSpec(shares=(0.5,), seeds=(0,), downsampling=False, examples=16)
FULL = replace(PLAIN, probes=PROBES, deletion=DELETION)


def measurement_of(root, model, asked=FULL, held_out=HELD_OUT) -> Measurement:
    return Measurement(root, Subject("model", model, "0123"), held_out, asked)


def times(folder) -> dict:
    """Every file below a folder, and when it was written."""
    return {file: file.stat().st_mtime_ns for file in folder.rglob("*") if file.is_file()}


@pytest.fixture(scope="module")
def model(tmp_path_factory):
    folder = tmp_path_factory.mktemp("tiny")
    build_tiny_vlm(folder, vocabulary(), seed=4, size="test")
    return str(folder)


@pytest.fixture(scope="module")
def measured(model, tmp_path_factory):
    pool, told = Here(), []
    measurement = measurement_of(tmp_path_factory.mktemp("root"), model)
    measure(pool, measurement, 8, lambda *x: told.append(x))
    return measurement, pool, told


@pytest.fixture
def copied(measured, model, tmp_path):
    """A copy of it for tests that ask for more."""
    shutil.copytree(measured[0].root, tmp_path / "root")
    return lambda asked: measurement_of(tmp_path / "root", model, asked)


def test_everything_that_was_asked_for_is_there_and_nothing_else(measured):
    measurement, _, told = measured
    parts = {folder.name.split("-")[0] for folder in measurement.folder.iterdir()}
    assert parts == {"answers", "tokens", "probe", "embeddings", "deletion"}
    assert {file.stem for file in measurement.folder.glob("*/*.parquet")} == {
        "examples", "image_metrics", "pooled_metrics", "nulls", "attributes",
        "probes", "embeddings", "deleted",
    }  # fmt: skip
    record = json.loads(measurement.record(measurement.tokens).read_text())
    assert record["images"] == IMAGES
    assert record["left_out"] == measurement.left_out() == []
    assert record["not_estimable"]["text/0/redundancy_score"] == IMAGES
    assert {"first look", "tokens", "nulls"} <= record["seconds"].keys()
    # Every stage was told from none of its units to all of them.
    for stage in {stage for stage, _, _ in told}:
        counts = [(done, units) for name, done, units in told if name == stage]
        assert counts == [(n, counts[-1][1]) for n in range(counts[-1][1] + 1)]


def test_a_finished_measurement_is_not_touched_whatever_the_batches_are(measured):
    measurement, _, _ = measured
    before, pool = times(measurement.folder), Here()
    gone = replace(measurement, subject=replace(measurement.subject, path="/no/such/model"))
    for batch_size in (8, 5):
        measure(pool, gone, batch_size)
    assert pool.stages == []
    assert times(measurement.folder) == before


@pytest.mark.parametrize(
    ("more", "stages"),
    [
        (
            {"deletion": DELETION.model_copy(update={"shares": (0.5, 0.75)})},
            {"_saliency": 2, "_delete": 2},
        ),
        (
            {"probes": PROBES.model_copy(update={"attributes": ("object_count", "ink_fraction")})},
            {"_room": 1, "_store": 3, "_probe": 6},
        ),
        (
            {"probes": PROBES.model_copy(update={"kinds": ("linear", "mlp")})},
            {"_room": 1, "_store": 3, "_probe": 6},
        ),
        ({"answers": Answers(engine="transformers", max_new_tokens=4)}, {"_answer": 3}),
        ({"keep_states": True}, {"_room": 1, "_store": 3}),
        ({"metrics": ("twonn", "cka_previous")}, {"_extended": 3}),
    ],
    ids=["share", "attribute", "network", "answers", "states", "metrics"],
)
def test_one_more_request_measures_this_one_alone(copied, more, stages):
    before = times(copied(FULL).folder)
    pool, asked = Here(), copied(replace(FULL, **more))
    assert not asked.is_finished()
    measure(pool, asked, 8)
    assert pool.units == stages
    assert asked.is_finished()
    after = times(asked.folder)
    assert {file: after[file] for file in before} == before
    assert len(after) > len(before)


def test_what_is_added_later_is_what_it_would_have_been_at_once(copied, model, tmp_path):
    probes = PROBES.model_copy(
        update={"attributes": ("ink_fraction", "object_count"), "kinds": ("linear", "mlp")}
    )
    shares = DELETION.model_copy(update={"shares": (0.25, 0.5), "policies": ("random", "norm")})
    asked = replace(FULL, probes=probes, deletion=shares)
    measure(Here(), copied(asked), 8)
    at_once = measurement_of(tmp_path / "other", model, asked)
    measure(Here(), at_once, 8)
    one, other = load(copied(asked)), load(at_once)
    keys = ["stream", "layer", "position", "attribute", "kind", "n"]
    pd.testing.assert_frame_equal(one.probes[keys], other.probes[keys])
    pd.testing.assert_frame_equal(one.probes, other.probes, rtol=1e-9)
    pd.testing.assert_frame_equal(
        one.deleted.drop(columns="prefill_s_per_image"),
        other.deleted.drop(columns="prefill_s_per_image"),
    )


def test_metrics_beyond_the_default_set_stand_beside_it(measured, copied):
    """Each with its mean and interval over images, and none where it was not asked for."""
    asked = copied(replace(FULL, metrics=("twonn", "mutual_information")))
    measure(Here(), asked, 8)
    one_more = copied(replace(FULL, metrics=("twonn", "mutual_information", "rankme")))
    assert [request.label for request in one_more.missing()] == ["rankme"]
    default, both = load(measured[0]).image_metrics, load(asked).image_metrics
    extended = ("twonn", "mutual_information")
    added = both["metric"].isin(extended)
    pd.testing.assert_frame_equal(both[~added].reset_index(drop=True), default)
    assert set(both.loc[added, "metric"]) == set(extended)
    counts = both.groupby(["stream", "layer", "metric"]).size()
    assert (counts == IMAGES).all()
    layers = model_tables(load(asked), {}, None).layers
    rows = layers[(layers["metric"] == "twonn") & (layers["stream"] == "visual")]
    assert len(rows) == 3
    assert ((rows["low"] < rows["value"]) & (rows["value"] < rows["high"])).all()


def test_what_is_no_longer_asked_for_is_not_read(copied):
    more = replace(FULL, deletion=DELETION.model_copy(update={"shares": (0.5, 0.75)}))
    measure(Here(), copied(more), 8)
    assert set(load(copied(more)).deleted["share"]) == {0, 0.5, 0.75}
    assert set(load(copied(FULL)).deleted["share"]) == {0, 0.5}
    plain = load(copied(PLAIN))
    assert plain.deleted is None
    assert plain.probes is None


def test_a_measurement_that_was_killed_goes_on_with_what_is_missing(model, measured, tmp_path):
    measurement = measurement_of(tmp_path, model)

    class Killed(Here):
        def map(self, function, units, *shared, done=lambda n: None):
            if function.__name__ == "_probe":
                super().map(function, units[:2], *shared)
                raise KeyboardInterrupt
            return super().map(function, units, *shared, done=done)

    with pytest.raises(KeyboardInterrupt):
        measure(Killed(), measurement, 8)
    assert not measurement.is_finished()
    with pytest.raises(DataError, match="the measurement is not finished"):
        load(measurement)
    pool = Here()
    measure(pool, measurement, 8)
    assert pool.units == {"_room": 1, "_store": 3, "_probe": 6, "_saliency": 2, "_delete": 2}
    assert not list(measurement.folder.glob("*.unfinished"))
    pd.testing.assert_frame_equal(load(measurement).probes, load(measured[0]).probes)


def test_linear_probes_are_asked_for_one_by_one_and_networks_together():
    spec = ProbeSpec(kinds=("linear", "mlp"))
    found = Asked(probes=spec).probings(["a", "b"])
    assert [(one.kind, one.attributes) for one in found] == [
        ("linear", ("a",)), ("linear", ("b",)), ("mlp", ("a", "b")),
    ]  # fmt: skip
    assert len({one.folder for one in found}) == 3
    assert all(isinstance(one, Probe) for one in found)


def test_the_folder_tells_the_model_from_the_images(tmp_path):
    one = measurement_of(tmp_path, "model")
    digests = {
        replace(one, held_out=HELD_OUT.model_copy(update=change)).folder
        for change in ({}, {"examples": 9}, {"images": "blank"}, {"prompts_digest": "a"},
                       {"component": HELD_OUT.component.model_copy(update={"seed": 1})})
    }  # fmt: skip
    assert len(digests) == 5
    other = replace(one, subject=replace(one.subject, digest="4567"))
    assert other.folder not in digests
    assert replace(one, asked=Asked()).folder == one.folder


def test_nothing_deleted_answers_as_the_table_of_answers_does(measured):
    results = load(measured[0])
    deletion = model_tables(results, {}).deletion
    whole = deletion[(deletion["share"] == 0) & (deletion["objects"] == "all")]
    first = results.attributes["example_id"][:16]
    asked = results.examples[results.examples["example_id"].isin(first)]
    for group in ("coarse", "count"):
        value = whole.loc[whole["group"] == group, "value"].iloc[0]
        expected = asked.loc[asked["group"] == group, "exact"].mean()
        assert value == pytest.approx(expected)
    halved = deletion[(deletion["share"] == 0.5) & (deletion["objects"] == "all")]
    assert (halved["tokens_kept"] == whole["tokens_kept"].iloc[0] / 2).all()
    # The raw answers are kept: one row a question and setting.
    assert len(results.deleted) == 2 * len(asked)


def test_batches_change_nothing(measured, model, tmp_path):
    measurement = measurement_of(tmp_path, model)
    measure(Here(), measurement, 24)
    one, other = load(measured[0]), load(measurement)
    for name in ("examples", "image_metrics", "pooled_metrics", "nulls", "attributes", "probes"):
        pd.testing.assert_frame_equal(
            getattr(one, name), getattr(other, name), rtol=1e-4, atol=1e-5
        )
    first, second = (
        table.embeddings.sort_values(["stream", "layer", "example_id"]) for table in (one, other)
    )
    np.testing.assert_allclose(np.stack(first["vector"]), np.stack(second["vector"]), atol=0.02)


def test_how_fast_it_answered_stands_beside_the_answers(measured):
    part = measured[0].part(PLAIN.answers)
    record = json.loads((part / "throughput.json").read_text())
    assert record["engine"] == "transformers"
    assert record["answers"] == len(load(measured[0]).examples)
    assert record["answers"] <= record["tokens"] <= 8 * record["answers"]
    assert record["answers_per_s"] == pytest.approx(record["answers"] / record["seconds"], rel=0.01)
    assert record["tokens_per_s"] == pytest.approx(record["tokens"] / record["seconds"], rel=0.01)
    assert load(measured[0]).throughput == read_throughput(part)


def test_vllm_gives_the_answers_and_nothing_else(measured, copied, model, monkeypatch):
    asked = copied(Asked(answers=Answers(engine="vllm", max_new_tokens=8)))
    pool, told = Here(gpus_per_actor=1), []
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
    measure(pool, asked, 8, lambda *x: told.append(x))
    own, other = load(measured[0]), load(asked)
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
    assert pool.stages == ["_questions", "_score"]
    assert ("vllm", 0, len(expected)) in told
    assert ("vllm", len(expected), len(expected)) in told
    assert other.throughput["answers_per_s"] == len(expected) / 2
    assert not (asked.folder / "asked").exists()


def test_blank_images_look_alike_and_can_go_unasked(measured, model, tmp_path):
    blank = HELD_OUT.model_copy(update={"images": "blank"})
    measurement = measurement_of(tmp_path, model, Asked(), blank)
    measure(Here(), measurement, 8)
    results = load(measurement)
    assert len(results.examples) == 0
    assert results.throughput == {}
    assert results.probes is None
    assert results.deleted is None
    pixels = results.image_metrics[results.image_metrics["stream"] == "pixels"]
    cosine = pixels.loc[pixels["metric"] == "mean_cosine", "value"]
    np.testing.assert_allclose(cosine, 1, atol=1e-6)
    # The attributes are those of the scenes that were there before.
    pd.testing.assert_frame_equal(results.attributes, load(measured[0]).attributes)


def test_tables_hold_the_model_beside_its_controls(measured):
    results = load(measured[0])
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


def test_states_are_kept_where_the_file_asks_for_them(measured, copied):
    kept = copied(replace(FULL, keep_states=True))
    measure(Here(), kept, 8)
    means = load(measured[0]).embeddings
    for stream, layer in layers_of(kept.states):
        some = means[(means["stream"] == stream) & (means["layer"] == layer)]
        states = read_layer(kept.states, stream, layer, list(some["example_id"]))
        count = states.exists.sum(1, keepdim=True)
        mean = (states.tokens * states.exists[..., None]).sum(1) / count
        np.testing.assert_allclose(mean, np.stack(some["vector"]), atol=0.02)
    # What is kept is read again for one more probe.
    pool, probes = Here(), PROBES.model_copy(update={"attributes": ("ink_fraction",)})
    measure(pool, copied(replace(FULL, probes=probes, keep_states=True)), 8)
    assert pool.units == {"_probe": 6}
