"""Photographs as a source: the same access by position as scenes, splits and strata."""

from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
import pytest
from coco_set import make_coco_set

from mixlens.design import SweepSpec, asked_trials
from mixlens.errors import DataError, SpecError
from mixlens.mixture.manifest import write_manifest
from mixlens.mixture.order import order_of
from mixlens.sources import from_row, open_source, to_row
from mixlens.sources.coco.build import build_index
from mixlens.sources.files import Files
from mixlens.spec import HELD_OUT_START, CocoComponent, CocoSpec, RunSpec

TASKS = {"coarse": 1, "attribute": 1, "relational": 1, "count": 1, "locate": 1}


@pytest.fixture(scope="module")
def data(clean_coco_set, tmp_path_factory):
    spec = CocoSpec.model_validate(clean_coco_set.data)
    indexes = tmp_path_factory.mktemp("indexes")
    return {"coco": build_index("coco", spec, indexes, lambda *told: None)}


def component(**settings) -> CocoComponent:
    return CocoComponent.model_validate({"kind": "coco", "data": "coco", "tasks": TASKS} | settings)


def names(source, start: int, size: int) -> list[str]:
    return [source.file_name(start + place) for place in range(size)]


def test_an_example_is_the_bytes_of_its_file_with_turns_and_attributes(data):
    source = open_source("photos", component(), data)
    root = Path(data["coco"].root)
    for place in range(0, source.size, 7):
        example = source.example(place)
        assert example.image == (root / "train2017" / source.file_name(place)).read_bytes()
        assert example.example_id == f"photos/{place}"
        assert example.turns
        assert {turn.group for turn in example.turns} <= set(TASKS)
        assert from_row(to_row(example)) == example == source.example(place)


def test_training_and_held_out_images_are_different_files(data):
    source = open_source("photos", component(), data)
    train = names(source, 0, source.size)
    held_out = names(source, HELD_OUT_START, source.held_out_size)
    assert len(train) > 50
    assert len(held_out) > 20
    assert len({*train, *held_out}) == len(train) + len(held_out)
    assert source.example(HELD_OUT_START).example_id == f"photos/{HELD_OUT_START}"


def test_held_out_images_come_in_one_shuffled_order_for_every_component(data):
    whole = open_source("a", component(), data)
    some = open_source("b", component(tasks={"locate": 1}), data)
    every = names(whole, HELD_OUT_START, whole.held_out_size)
    assert every != sorted(every)
    chosen = names(some, HELD_OUT_START, some.held_out_size)
    assert chosen == [name for name in every if name in set(chosen)]


@pytest.mark.parametrize("index", [-1, 10**6, HELD_OUT_START + 10**6, 2 * HELD_OUT_START])
def test_an_index_that_no_image_has_is_refused(data, index):
    with pytest.raises(DataError, match=rf"photos.*{index}.*images to train on"):
        open_source("photos", component(), data).example(index)


def test_strata_split_the_images_by_quantile_and_ask_the_same_questions(data):
    whole = open_source("whole", component(), data)
    parts = [
        open_source(f"part{i}", component(strata={"object_count": bounds}), data)
        for i, bounds in enumerate([(0, 0.5), (0.5, 1)])
    ]
    assert sum(part.size for part in parts) == whole.size
    few, many = ([part.attributes(i)["object_count"] for i in range(part.size)] for part in parts)
    assert max(few) < min(many)
    asked = {whole.file_name(i): whole.example(i).turns for i in range(whole.size)}
    for part in parts:
        for i in range(part.size):
            assert part.example(i).turns == asked[part.file_name(i)]


def test_several_strata_are_met_at_once(data):
    strata = {"object_count": (0.3, 1), "covered_fraction": (0, 0.7)}
    both = open_source("both", component(strata=strata), data)
    single = [
        set(names(source, 0, source.size))
        for name, bounds in strata.items()
        for source in [open_source("one", component(strata={name: bounds}), data)]
    ]
    assert set(names(both, 0, both.size)) == single[0] & single[1] != set()


@pytest.mark.parametrize(
    ("attribute", "problem"), [("colour", "no such"), ("dominant_category", "name, not a number")]
)
def test_strata_of_what_is_no_number_are_refused(data, attribute, problem):
    with pytest.raises(SpecError, match=rf"components\.x\.strata.*{attribute}.*{problem}.*count"):
        open_source("x", component(strata={attribute: (0, 0.5)}), data)


def test_the_seed_changes_the_questions_alone(data):
    one, other = (open_source("x", component(seed=seed), data) for seed in (0, 1))
    assert names(one, 0, one.size) == names(other, 0, other.size)
    differing = [i for i in range(one.size) if one.example(i).turns != other.example(i).turns]
    assert len(differing) > one.size / 2


def test_a_file_that_is_gone_gives_no_bytes(data, tmp_path):
    made = make_coco_set(tmp_path / "set", train=8, held_out=8, faults=False)
    spec = CocoSpec.model_validate(made.data)
    own = {"coco": build_index("coco", spec, tmp_path / "indexes", lambda *told: None)}
    source = open_source("photos", component(), own)
    (made.root / "train2017" / source.file_name(0)).unlink()
    assert source.example(0).image == b""
    assert source.example(1).image


@pytest.mark.parametrize(("failures", "reads"), [(2, 3), (9, 3)])
def test_a_busy_object_store_is_asked_again(data, monkeypatch, failures, reads):
    asked = []

    def read(files: Files, path: str) -> bytes:
        asked.append(path)
        if len(asked) <= failures:
            raise OSError("503 slow down")
        return b"bytes"

    monkeypatch.setattr(Files, "read", read)
    monkeypatch.setattr("time.sleep", lambda _seconds: None)
    image = open_source("photos", component(), data).example(0).image
    assert image == (b"bytes" if failures < reads else b"")
    assert len(asked) == reads


def test_a_data_set_without_index_is_refused(data):
    bare = data["coco"].model_copy(update={"index": ""})
    source = open_source("photos", component(strata={"crowding": (0, 0.5)}), {"coco": bare})
    assert source.describe() == "photographs of coco with crowding between quantiles 0 and 0.5"
    assert "dominant_category" in source.attribute_names()
    with pytest.raises(DataError, match=r"data\.coco.*no index"):
        _ = source.size


def test_attributes_need_no_image(data):
    source = open_source("photos", component(), data)
    for index in (0, HELD_OUT_START + 1):
        assert source.attributes(index) == source.example(index).attributes
        assert sorted(source.attributes(index)) == source.attribute_names()


def sweep(data, weights: dict[str, float], **components) -> SweepSpec:
    rates = {"vision": 1e-4, "projector": 1e-4, "language": 1e-4}
    return SweepSpec.model_validate(
        {
            "name": "s",
            "data": data,
            "components": components,
            "design": {"kind": "ratio", "high": weights, "low": weights, "ratios": [0]},
            "training": {"steps": 50, "global_batch": 8, "micro_batch": 8, "learning_rates": rates},
            "evaluation": {"component": next(iter(components)), "examples": 8},
        }
    )


def first_run(spec: SweepSpec) -> RunSpec:
    return asked_trials(spec)[0].run


def test_a_mixture_goes_through_all_photographs_before_any_comes_again(data):
    scenes = {"tasks": {"coarse": 1}}
    run = first_run(sweep(data, {"photos": 0.5, "scenes": 0.5}, photos=component(), scenes=scenes))
    order = order_of(run)
    size = open_source("photos", component(), data).size
    drawn = [index for name, index in map(order.at, range(4 * size)) if name == "photos"]
    assert abs(len(drawn) - 2 * size) <= 1
    for epoch in (drawn[:size], drawn[size : 2 * size]):
        assert sorted(epoch) == list(range(size))[: len(epoch)]
    assert drawn[:size] != drawn[size : 2 * size]
    assert np.array_equal(order.entries(0, 64)[1], order.take(np.arange(64))[1])


def test_the_manifest_names_the_file_of_each_photograph(data, tmp_path):
    scenes = {"tasks": {"coarse": 1}}
    run = first_run(sweep(data, {"photos": 0.5, "scenes": 0.5}, photos=component(), scenes=scenes))
    write_manifest(run, tmp_path / "manifest.parquet", 5)
    source = open_source("photos", component(), data)
    rows = pq.read_table(tmp_path / "manifest.parquet").to_pylist()
    assert len(rows) == 40
    for row in rows:
        is_photo = row["component"] == "photos"
        assert row["file"] == (source.file_name(row["index"]) if is_photo else None)
    assert len({row["file"] for row in rows}) == 21  # twenty files, and none for scenes


def test_a_component_that_no_image_can_carry_is_refused_where_it_is_drawn(data):
    nothing = component(strata={"object_count": (0.5, 0.50001), "size_mean": (0.9, 0.90001)})
    weights = {"nothing": 0.5, "photos": 0.5}
    run = first_run(sweep(data, weights, photos=component(), nothing=nothing))
    with pytest.raises(SpecError, match=r"components\.nothing.*no training image"):
        order_of(run)
    unused = first_run(sweep(data, {"photos": 1.0}, photos=component(), nothing=nothing))
    assert order_of(unused).components == ("photos",)


def test_the_same_data_elsewhere_make_the_same_run(data, tmp_path):
    one = first_run(sweep(data, {"photos": 1.0}, photos=component()))
    moved = data["coco"].model_copy(update={"root": "/elsewhere", "index": str(tmp_path)})
    assert one.model_copy(update={"data": {"coco": moved}}).digest() == one.digest()
    other = data["coco"].model_copy(update={"fingerprint": "0" * 16})
    assert one.model_copy(update={"data": {"coco": other}}).digest() != one.digest()
