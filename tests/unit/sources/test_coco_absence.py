"""What annotations do not say is not asked: damage and partial annotation are no absence."""

import json
import math
import shutil
from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path
from random import Random
from typing import Any

import numpy as np
import pytest
from coco_scenes import CATEGORY_IDS
from coco_set import CocoSet
from hypothesis import given, settings
from hypothesis import strategies as st
from photo_truth import true_answer

from mixlens.errors import DataError, SpecError
from mixlens.sources import open_source
from mixlens.sources.coco import columns
from mixlens.sources.coco.build import build_index
from mixlens.sources.coco.index import CocoIndex, open_index
from mixlens.sources.coco.notes import notes
from mixlens.spec import CocoComponent, CocoSpec
from mixlens.tasks import Turn
from mixlens.tasks.photo import (
    PHOTO_KINDS,
    Categories,
    Coverage,
    Photo,
    ask_photo,
    complete_everywhere,
)

SPLITS = ("train", "held_out")
EVERYTHING = dict.fromkeys(PHOTO_KINDS, 9)
BOX = {"bbox": [10, 10, 20, 20], "segmentation": [], "iscrowd": 0, "area": 400}
Document = dict[str, Any]


def built(made: CocoSet, folder: Path, change: Callable[[Document], None]) -> CocoSpec:
    """The data set with changed copies of both files of annotations."""
    data = {**made.data, "max_left_out": 1.0}
    for split in SPLITS:
        document = json.loads((made.root / made.data[split]["annotations"]).read_text())
        change(document)
        path = folder / f"{split}.json"
        path.write_text(json.dumps(document))
        data[split] = made.data[split] | {"annotations": str(path)}
    spec = CocoSpec.model_validate(data | {"root": str(made.root)})
    # Files of annotations may lie elsewhere; images do not.
    return build_index("photos", spec, folder / "indexes", lambda *_: None)


@pytest.fixture(scope="module")
def sound(clean_coco_set, tmp_path_factory) -> CocoIndex:
    spec = CocoSpec.model_validate(clean_coco_set.data)
    made = build_index("photos", spec, tmp_path_factory.mktemp("sound"), lambda *_: None)
    return open_index(Path(made.index))


def asked(index: CocoIndex, row: int) -> tuple[Turn, ...]:
    photo = index.photo(row)
    return ask_photo(photo, index.categories, index.possible, EVERYTHING, 0, row)


def is_true(turn: Turn, photo: Photo, categories: Categories) -> bool:
    if turn.kind == "photo_caption":
        return turn.answer in photo.captions
    try:
        return true_answer(turn, photo, categories) == turn.answer
    except AssertionError:  # a name that means no object, or several
        return False


def untrue(index: CocoIndex, sound: CocoIndex) -> list[Turn]:
    """What is asked and has another answer by the sound annotations."""
    row_of = {(int(s), int(i)): row for row, (s, i) in enumerate(_keys(sound))}
    return [
        turn
        for row, key in enumerate(_keys(index))
        for turn in asked(index, row)
        if not is_true(turn, sound.photo(row_of[int(key[0]), int(key[1])]), sound.categories)
    ]


def _keys(index: CocoIndex) -> list[tuple[int, int]]:
    return list(zip(index.split.tolist(), index.image_id.tolist(), strict=True))


DAMAGE: tuple[dict[str, Any], ...] = (
    {"bbox": []},
    {"bbox": None},
    {"bbox": [5, 5, 0, 10]},
    {"bbox": [5, 5, 10, -3]},
    {"bbox": [4000, 5, 10, 10]},
    {"bbox": [1, 2, 3, "x"]},
    {"category_id": 777},
    {"category_id": None},
    {"category_id": "dog"},
    {"segmentation": [[5.0, 5.0, 6.0, 6.0]]},
    {"segmentation": {"size": [7, 7], "counts": [49]}},
    {"segmentation": [[30, 30, 30, 30, 30, 30]]},
    {"segmentation": "none"},
    {"iscrowd": "no"},
    {"id": None},
    {"id": "first"},
)


def damage(seed: int) -> Callable[[Document], None]:
    """Of a third of the images one annotation or two, each in a way of its own."""
    chance = Random(seed)

    def change(document: Document) -> None:
        first = document["annotations"][0]["id"]
        of_image: dict[int, list[Any]] = {}
        for one in document["annotations"]:
            of_image.setdefault(one["image_id"], []).append(one)
        for image_id, own in of_image.items():
            if chance.random() < 0.35:
                for one in chance.sample(own, min(chance.randint(1, 2), len(own))):
                    one |= chance.choice(DAMAGE)
                    if one["id"] == "first":
                        one["id"] = first
                    if chance.random() < 0.1:
                        one |= {"image_id": str(image_id)}

    return change


@pytest.mark.case
@pytest.mark.parametrize("seed", range(2))
def test_whatever_annotations_are_damaged_every_answer_is_that_of_the_sound_set(
    seed, clean_coco_set, sound, tmp_path
):
    index = open_index(Path(built(clean_coco_set, tmp_path, damage(seed)).index))
    assert len(index) == len(sound)
    assert 0.15 * len(index) < (~index.whole).sum() < 0.5 * len(index)
    assert untrue(index, sound) == []
    of_damaged = Counter(
        turn.kind for row in np.flatnonzero(~index.whole).tolist() for turn in asked(index, row)
    )
    assert len(of_damaged) > 8, of_damaged  # what needs no absence is still asked
    assert not of_damaged.keys() & {"dominant", "largest", "category_graph"}
    for row in range(len(index)):
        for name, value in index.attributes(row).items():
            if index.whole[row]:
                assert value == sound.attributes(row)[name]
            else:
                assert value is None or math.isnan(value), name


def test_that_property_can_fail(clean_coco_set, sound, tmp_path, monkeypatch):
    monkeypatch.setattr(
        columns,
        "coverage_of",
        lambda records, *rest: complete_everywhere(len(records), rest[-1]),
    )
    index = open_index(Path(built(clean_coco_set, tmp_path, damage(0)).index))
    kinds = {turn.kind for turn in untrue(index, sound)}
    assert {"presence", "count_category", "category_graph"} <= kinds


def federate(document: Document) -> None:
    """Each image is annotated for some categories, perhaps not all objects; others are denied."""
    chance = Random(5)
    for image in document["images"]:
        own = [one for one in document["annotations"] if one["image_id"] == image["id"]]
        there = {one["category_id"] for one in own}
        absent = sorted(set(CATEGORY_IDS.values()) - there)
        image["neg_category_ids"] = [one for one in absent if chance.random() < 0.5]
        image["not_exhaustive_category_ids"] = []
        for category in sorted(there):
            of_it = [one for one in own if one["category_id"] == category]
            fate = chance.random()
            if fate < 0.25:  # not looked for
                gone = of_it
            elif fate < 0.5:
                gone = of_it[1:]
                image["not_exhaustive_category_ids"].append(category)
            else:
                gone = []
            document["annotations"] = [one for one in document["annotations"] if one not in gone]


@pytest.mark.case
def test_a_federated_file_denies_only_what_was_looked_for(clean_coco_set, sound, tmp_path):
    index = open_index(Path(built(clean_coco_set, tmp_path, federate).index))
    assert untrue(index, sound) == []
    kinds = Counter(turn.kind for row in range(len(index)) for turn in asked(index, row))
    assert min(kinds[kind] for kind in ("presence", "count_category", "box", "above")) > 3, kinds
    said = {}
    for split in SPLITS:
        for image in json.loads((tmp_path / f"{split}.json").read_text())["images"]:
            said[SPLITS.index(split), image["id"]] = image
    denied = 0
    for row, key in enumerate(_keys(index)):
        image, photo = said[key], index.photo(row)
        there = {index.categories.names[place] for place in photo.category}
        listed = {
            name: number in image["neg_category_ids"] for name, number in CATEGORY_IDS.items()
        }
        more = {n for n, i in CATEGORY_IDS.items() if i in image["not_exhaustive_category_ids"]}
        whole = all(listed[name] or name in there - more for name in CATEGORY_IDS)
        assert index.whole[row] == whole
        for turn in asked(index, row):
            if turn.kind == "presence" and turn.answer == "no":
                denied += 1
                assert any(listed[name] and f" {name} " in turn.question for name in listed)
            if turn.kind == "count_category":
                assert not any(f" {name} " in turn.question for name in more)
    assert denied > 10
    told = " ".join(notes(index.record))
    assert "train.json is federated" in told
    assert "attributes are unknown" in told


def test_a_category_that_is_annotated_and_denied_is_unknown(clean_coco_set, tmp_path):
    def contradict(document: Document) -> None:
        for image in document["images"]:
            image["neg_category_ids"] = list(CATEGORY_IDS.values())

    index = open_index(Path(built(clean_coco_set, tmp_path, contradict).index))
    kinds = {turn.kind for row in range(len(index)) for turn in asked(index, row)}
    assert kinds <= {"presence", "photo_caption"}  # "yes" needs no absence


def test_a_stratum_of_what_is_unknown_leaves_these_images_out(clean_coco_set, tmp_path):
    spec = built(clean_coco_set, tmp_path, damage(0))
    index = open_index(Path(spec.index))
    tasks = {"locate": 1, "caption": 1}
    sizes = []
    for strata in ({}, {"object_count": (0.0, 1.0)}, {"object_count": (0.5, 1.0)}):
        component = CocoComponent(kind="coco", data="coco", tasks=tasks, strata=strata)
        source = open_source("photos", component, {"coco": spec})
        sizes.append(source.size)
        if strata:
            counts = [source.attributes(place)["object_count"] for place in range(source.size)]
            assert not np.isnan(counts).any()
    lost = (~index.whole & (index.split == 0) & (index.carries != 0)).sum()
    assert sizes[0] - sizes[1] <= lost
    assert sizes[2] < sizes[1] < sizes[0]


def test_a_stratum_of_what_is_unknown_everywhere_is_refused(clean_coco_set, tmp_path):
    def silent(document: Document) -> None:
        for image in document["images"]:
            image["neg_category_ids"] = []

    spec = built(clean_coco_set, tmp_path, silent)
    component = CocoComponent(
        kind="coco", data="coco", tasks={"caption": 1}, strata={"object_count": (0.5, 1)}
    )
    with pytest.raises(SpecError, match=r"photos\.strata.*object_count.*unknown of every image"):
        _ = open_source("photos", component, {"coco": spec}).size


def regions(share: float, **field: Any) -> Callable[[Document], None]:
    def change(document: Document) -> None:
        chance = Random(1)
        for one in document["annotations"]:
            if chance.random() < share:
                one |= field

    return change


@pytest.mark.case
@pytest.mark.parametrize("field", [{"iscrowd": 1}, {"iscrowd": 0, "ignore": 1}])
def test_a_set_of_regions_alone_is_refused_with_the_remedy(field, clean_coco_set, tmp_path):
    with pytest.raises(
        DataError, match=r"train\.annotations.*all \d+ annot.*iscrowd.*to 0"
    ) as told:
        built(clean_coco_set, tmp_path, regions(1, **field))
    assert f"by {'ignore' if 'ignore' in field else 'iscrowd'}" in str(told.value)


@pytest.mark.case
def test_a_set_of_mostly_regions_says_so_and_has_no_strata_of_a_constant(clean_coco_set, tmp_path):
    def nearly_all(document: Document) -> None:
        for one in document["annotations"]:
            one["iscrowd"] = 1
        for image in document["images"]:
            document["annotations"].append(
                BOX | {"id": 10**6 + image["id"], "image_id": image["id"], "category_id": 18}
            )

    spec = built(clean_coco_set, tmp_path, nearly_all)
    index = open_index(Path(spec.index))
    counts = index.record["counts"]
    assert counts["objects"] - counts["regions"] == len(index)
    told = [row for row in index.record["left_out"] if row["outcome"] == "region"]
    assert sum(row["count"] for row in told) == counts["regions"]
    assert any("most annotations" in note and "set iscrowd" in note for note in notes(index.record))
    component = CocoComponent(
        kind="coco", data="coco", tasks={"coarse": 1}, strata={"object_count": (0.5, 1)}
    )
    with pytest.raises(SpecError, match=r"object_count.*is 1 in all.*are regions of many objects"):
        _ = open_source("photos", component, {"coco": spec}).size


@pytest.mark.case
@pytest.mark.parametrize(
    ("field", "value"), [("ignore", 1), ("isgroupof", 1), ("IsGroupOf", True), ("iscrowd", 1)]
)
def test_what_is_flagged_as_a_region_is_never_counted_or_named(
    field, value, clean_coco_set, tmp_path
):
    def change(document: Document) -> None:
        for one in document["annotations"]:
            if one["category_id"] == CATEGORY_IDS["person"]:
                one[field] = value

    index = open_index(Path(built(clean_coco_set, tmp_path, change).index))
    turns = [turn for row in range(len(index)) for turn in asked(index, row)]
    about = [turn for turn in turns if " person " in turn.question]
    assert {turn.kind for turn in about} <= {"presence"}
    assert any(turn.kind == "presence" and turn.answer == "yes" for turn in about)


def test_stuff_is_no_object_and_where_nothing_was_annotated_nothing_is_absent(
    clean_coco_set, tmp_path
):
    marked = []

    def change(document: Document) -> None:
        for category in document["categories"]:
            category["isthing"] = int(category["name"] != "boat")
        document["categories"].append({"id": 0, "name": "Ignored  regions"})
        for image in document["images"][::3]:
            marked.append(image["id"])
            document["annotations"].append(
                BOX | {"id": 10**6 + image["id"], "image_id": image["id"], "category_id": 0}
            )

    index = open_index(Path(built(clean_coco_set, tmp_path, change).index))
    assert set(index.image_id[~index.whole].tolist()) == set(marked)
    reasons = {row["reason"] for row in index.record["left_out"]}
    assert reasons == {"iscrowd", "stuff", "ignored_region"}
    assert index.record["damage"]["train"]["annotations"][0] == 0
    for row in range(len(index)):
        for turn in asked(index, row):
            assert "ignored" not in turn.question
            assert " boat " not in turn.question or turn.kind == "presence"
            assert index.whole[row] or turn.answer != "no" or turn.kind != "presence"


@pytest.mark.case
@pytest.mark.parametrize("bad", [None, 7, {}, {"bbox": [1, 2, 3, 4], "category_id": 1, "id": 5}])
def test_an_annotation_of_nobody_knows_which_image_is_refused(bad, clean_coco_set, tmp_path):
    with pytest.raises(
        DataError, match=r"1 of \d+'.*do not say of which image.*annotations\[\d+\]"
    ):
        built(clean_coco_set, tmp_path, lambda document: document["annotations"].append(bad))


@pytest.mark.case
def test_fields_that_nothing_reads_are_told_with_their_number(clean_coco_set, tmp_path):
    def change(document: Document) -> None:
        for number, one in enumerate(document["annotations"]):
            one |= {"isfake": int(number < 3), "isreflected": 0, "attributes": {"occluded": True}}
        document["images"][0]["video_id"] = 4

    index = open_index(Path(built(clean_coco_set, tmp_path, change).index))
    unread = index.record["files"]["train"]["unread"]
    number = len(json.loads((tmp_path / "train.json").read_text())["annotations"])
    assert unread == {"images": {"video_id": 1}, "annotations": {"attributes": number, "isfake": 3}}
    assert any(f"attributes ({number:,}), isfake (3)" in note for note in notes(index.record))


def test_an_ordinary_data_set_needs_no_notes(sound):
    assert list(notes(sound.record)) == []
    assert sound.whole.all()
    assert sound.record["counts"]["incomplete"] == {"train": 0, "held_out": 0}


@pytest.mark.case
def test_a_panoptic_file_is_named_as_such(clean_coco_set, tmp_path):
    def change(document: Document) -> None:
        document["annotations"] = [
            {"image_id": one["id"], "file_name": "1.png", "segments_info": [{"id": 1}]}
            for one in document["images"]
        ]

    with pytest.raises(DataError, match=r"train\.annotations.*panoptic file.*instances file"):
        built(clean_coco_set, tmp_path, change)


@pytest.mark.case
def test_one_record_for_each_box_is_one_photograph(clean_coco_set, sound, tmp_path):
    def split_up(document: Document) -> None:
        images = {image["id"]: image for image in document["images"]}
        seen = set()
        for one in document["annotations"]:
            image = images[one["image_id"]]
            if image["id"] in seen:
                one["image_id"] = 10**7 + one["id"]
                document["images"].append(image | {"id": one["image_id"]})
            seen.add(image["id"])

    index = open_index(Path(built(clean_coco_set, tmp_path, split_up).index))
    assert _keys(index) == _keys(sound)
    assert untrue(index, sound) == []
    for row in range(len(index)):
        assert index.attributes(row) == sound.attributes(row)
    assert any("repeat a file" in note for note in notes(index.record))


@settings(max_examples=200, deadline=None)
@given(st.data())
def test_coverage_is_that_of_plain_sets(data):
    many = data.draw(st.integers(1, 6))
    known = data.draw(
        st.lists(st.none() | st.sets(st.integers(0, many - 1)), min_size=1, max_size=6)
    )
    first = data.draw(st.permutations(range(-1, many)).map(lambda order: order[:many]))
    first = [min(one, place) for place, one in enumerate(first)]
    coverage = _coverage(known, many)
    images, categories = np.meshgrid(np.arange(len(known)), np.arange(-1, many), indexing="ij")
    found = coverage.complete(images.ravel(), categories.ravel())
    expected = [own is None or c in own for own in known for c in range(-1, many)]
    expected = [e and c >= 0 for e, c in zip(expected, categories.ravel().tolist(), strict=True)]
    assert found.tolist() == expected
    first = [one if first[one] == one else -1 for one in first]  # a first one is its own first
    named = coverage.of_names(first)
    for image, own in enumerate(known):
        for name in {one for one in first if one >= 0}:
            members = {place for place, one in enumerate(first) if one == name}
            whole = own is None or members <= own
            assert named.complete(np.array([image]), np.array([name])).tolist() == [whole]


def _coverage(known: list[set[int] | None], many: int) -> Coverage:
    def pairs() -> Iterator[tuple[int, int]]:
        for image, own in enumerate(known):
            yield from ((image, category) for category in sorted(own or ()))

    table = np.array(list(pairs()), np.int64).reshape(-1, 2)
    return Coverage(many, np.array([own is None for own in known]), table[:, 0], table[:, 1])


def test_the_column_of_an_index_says_which_categories_an_image_is_complete_for(
    clean_coco_set, tmp_path
):
    def change(document: Document) -> None:
        of_second = document["images"][1]["id"]
        one = next(a for a in document["annotations"] if a["image_id"] == of_second)
        one["bbox"] = []

    root = tmp_path / "set"
    shutil.copytree(clean_coco_set.root, root)
    spec = built(clean_coco_set, tmp_path, change)
    from pyarrow import ipc, memory_map

    column = ipc.open_file(memory_map(str(Path(spec.index) / "images.arrow"))).get_batch(0)
    lists = column["complete"].to_pylist()
    assert [row for row, own in enumerate(lists) if own is not None] == [1, 97]
    assert all(len(lists[row]) == len(CATEGORY_IDS) - 1 for row in (1, 97))
