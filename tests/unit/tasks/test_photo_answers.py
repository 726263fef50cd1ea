"""What is asked about photographs has one right answer: recomputed by plain Python."""

from collections import Counter

import numpy as np
import pytest
from coco_truth import read_coco
from made_photos import CATEGORIES, make_photos, one_photo, photos_of
from photo_truth import (
    forms,
    things_of,
    true_answer,
    true_counts,
    true_dominant,
    true_graph,
    true_largest,
    true_pairs,
)

from mixlens.tasks.photo import PHOTO_KINDS, Categories, candidates, coarse
from mixlens.tasks.photo.objects import describe_objects
from mixlens.tasks.photo.rows import FORMS

EVERYTHING = dict.fromkeys(PHOTO_KINDS, 9)
PHOTOS = make_photos(2500, 1)
FORM_NAMES = ("plain", "leftmost", "rightmost", "largest")


def objects_of(photos):
    return describe_objects(
        photos.first,
        photos.width,
        photos.height,
        photos.category,
        photos.boxes,
        photos.area,
        photos.crowd,
        photos.coverage,
        photos.categories,
    )


def told_nothing(photos):
    return np.zeros(len(photos.category), bool)


def test_every_answer_is_what_the_geometry_says():
    seen = Counter()
    for i in range(len(PHOTOS)):
        photo = PHOTOS.photo(i)
        for turn in PHOTOS.ask(i, EVERYTHING, seed=i % 3):
            seen[turn.kind] += 1
            if turn.kind == "photo_caption":
                assert turn.answer in photo.captions
                continue
            assert turn.answer == true_answer(turn, photo, CATEGORIES), (i, turn)
            assert not turn.choices or turn.answer in turn.choices
    kinds = {kind for kinds in PHOTO_KINDS.values() for kind in kinds}
    assert set(seen) == kinds
    assert min(seen.values()) >= 50, seen


@pytest.mark.parametrize("kind", ["horizontal", "vertical", "size"])
def test_all_pairs_that_differ_clearly_are_found_and_no_others(kind):
    objects = objects_of(PHOTOS)
    if kind == "size":
        rows = candidates.size(objects, told_nothing(PHOTOS))
    else:
        rows = candidates.direction(objects, kind)
    found = Counter()
    for image, a, b, answer in zip(rows.image, rows.a, rows.b, rows.answer, strict=True):
        low, high = (b, a) if answer else (a, b)
        found[int(image), int(low) // FORMS, int(high) // FORMS] += 1
    wanted = {
        (i, *pair)
        for i in range(len(PHOTOS))
        for pair in true_pairs(things_of(PHOTOS.photo(i), CATEGORIES), kind)
    }
    assert len(wanted) > 500
    assert set(found) == wanted
    assert set(found.values()) == {1}


def test_every_count_largest_object_dominant_kind_and_graph_is_found():
    objects = objects_of(PHOTOS)
    rows = {
        "count": candidates.count_category(objects),
        "largest": coarse.largest(objects),
        "dominant": coarse.dominant(objects),
        "graph": candidates.category_graph(objects, CATEGORIES),
    }
    groups = tuple(dict.fromkeys(CATEGORIES.supercategories))
    found = {
        "count": {
            (int(i), CATEGORIES.names[a], str(n))
            for i, a, n in zip(
                rows["count"].image, rows["count"].a, rows["count"].answer, strict=True
            )
        },
        "largest": {
            (int(i), CATEGORIES.names[a])
            for i, a in zip(rows["largest"].image, rows["largest"].answer, strict=True)
        },
        "dominant": {
            (int(i), groups[a])
            for i, a in zip(rows["dominant"].image, rows["dominant"].answer, strict=True)
        },
        "graph": {(int(i),) for i in rows["graph"].image},
    }
    wanted: dict[str, set] = {name: set() for name in found}
    for i in range(len(PHOTOS)):
        things = things_of(PHOTOS.photo(i), CATEGORIES)
        wanted["count"] |= {(i, *pair) for pair in true_counts(things).items()}
        wanted["largest"] |= {(i, word) for word in [true_largest(things)] if word}
        wanted["dominant"] |= {(i, word) for word in [true_dominant(things)] if word}
        wanted["graph"] |= {(i,) for text in [true_graph(things)] if text}
    for name, some in wanted.items():
        assert len(some) > 200, name
        assert found[name] == some, name
        assert len(rows[name].image) == len(some), name


def test_names_fit_one_object_alone_and_crowds_have_none():
    objects = objects_of(PHOTOS)
    many = Counter()
    for i in range(len(PHOTOS)):
        things = things_of(PHOTOS.photo(i), CATEGORIES)
        for thing in things:
            row = objects.forms[PHOTOS.first[i] + thing.i]
            own = {form for form, fits in zip(FORM_NAMES, row, strict=True) if fits}
            # Objects too small to be asked about keep a name, so that no other object gets it.
            assert not thing.seen or own == forms(thing, things)
            many.update(own)
            assert not (thing.crowd and own)
    assert min(many[form] for form in FORM_NAMES) > 100


@pytest.mark.parametrize(
    ("first", "second", "kind", "asked"),
    [
        # Centres 8 % apart or more.
        ((10, 10, 12, 20), (17.9, 10, 19.9, 20), "horizontal", False),
        ((10, 10, 12, 20), (18.1, 10, 20.1, 20), "horizontal", True),
        ((10, 10, 20, 12), (10, 17.9, 20, 19.9), "vertical", False),
        ((10, 10, 20, 12), (10, 18.1, 20, 20.1), "vertical", True),
        # They share half of the narrower one's width at most.
        ((10, 10, 40, 40), (32, 10, 44, 40), "horizontal", False),
        ((10, 10, 40, 40), (35.1, 10, 45.1, 40), "horizontal", True),
        # Areas of boxes 1.44 times as large.
        ((10, 10, 20, 20), (50, 50, 61.9, 62), "size", False),
        ((10, 10, 20, 20), (50, 50, 62.1, 62), "size", True),
        # Boxes and masks must agree.
        ((10, 10, 20, 20, 1), (50, 50, 70, 70, 0.9), "size", False),
        ((10, 10, 20, 20, 1), (50, 50, 70, 70, 1.3), "size", False),
        ((10, 10, 20, 20, 1), (50, 50, 70, 70, 1.5), "size", True),
        # An object of less than a thousandth of the image is not asked about.
        ((10, 10, 20, 20, 0.099), (50, 50, 70, 70), "size", False),
    ],
)
def test_near_ties_are_not_asked_about(first, second, kind, asked):
    photos = one_photo([("dog", *first), ("cat", *second)])
    objects = objects_of(photos)
    if kind == "size":
        rows = candidates.size(objects, told_nothing(photos))
    else:
        rows = candidates.direction(objects, kind)
    assert len(rows.image) == asked


@pytest.mark.parametrize(
    ("share", "word"),
    [(0.99, 0), (1.01, None), (1.99, None), (2.01, 1), (7.99, 1), (8.1, None), (15.9, None),
     (16.1, 2), (99, 2)],
)  # fmt: skip
def test_sizes_between_the_classes_are_not_asked_about(share, word):
    photos = one_photo([("dog", 0, 0, 100, 100, share)])
    rows = candidates.size_class(objects_of(photos), told_nothing(photos))
    assert rows.answer.tolist() == ([] if word is None else [word])


def test_a_crowd_hides_its_category_and_nothing_else():
    dog, cat = ("dog", 10, 10, 30, 30), ("cat", 60, 60, 90, 90)
    crowd = ("dog", 40, 10, 90, 40, 10, True)
    for things, counted in (([dog, cat], {1, 2}), ([dog, cat, crowd], {2})):
        objects = objects_of(one_photo(things))
        assert set(candidates.count_category(objects).a.tolist()) == counted
        assert len(candidates.direction(objects, "horizontal").image) == (len(counted) == 2)
        assert len(coarse.largest(objects).image) == (len(counted) == 2)
        assert len(candidates.category_graph(objects, CATEGORIES).image) == (len(counted) == 2)
        places = candidates.locate(objects, "locate")
        assert len(places.image) == len(counted)


def test_boxes_are_neither_thin_nor_most_of_the_image():
    for sides, asked in (((4.1, 50), 1), ((3.9, 50), 0), ((70, 71), 1), ((71, 71), 0)):
        photos = one_photo([("dog", 5, 5, 5 + sides[0], 5 + sides[1])])
        assert len(candidates.locate(objects_of(photos), "box").image) == asked


def test_at_most_ten_are_counted_and_all_must_be_visible():
    ten = [("dog", 8 * k, 10, 8 * k + 5, 20) for k in range(10)]
    for things, many in (
        (ten, [10]),
        ([*ten, ("dog", 90, 10, 95, 20)], []),
        ([*ten[:3], ("dog", 90, 10, 95, 20, 0.05)], []),
    ):
        assert candidates.count_category(objects_of(one_photo(things))).answer.tolist() == many


def test_names_of_categories_can_be_any_text():
    names = ("hot  \n dog", "hot dog", "", "a;b", "%(a)s {word}", "狗", "snow|board")
    categories = Categories(names, ("food", "food ", "x", "", "y", "z", "z"))
    odd = [(name, 5 + 13 * k, 10, 12 + 13 * k, 30 + 9 * k) for k, name in enumerate(names)]
    objects = objects_of(one_photo(odd, categories))
    # The first two are one category of two objects; the third has no name.
    assert objects.category.tolist() == [0, 0, -1, 3, 4, 5, 6]
    counted = candidates.count_category(objects)
    assert dict(zip(counted.a.tolist(), counted.answer.tolist(), strict=True)) == {
        0: 2, 3: 1, 4: 1, 5: 1, 6: 1
    }  # fmt: skip
    assert not len(candidates.category_graph(objects, categories).image)
    # Without the ones that would break its grammar, or say nothing, there is a graph.
    fine = [odd[k] for k in (0, 1, 4, 5)]
    assert len(candidates.category_graph(objects_of(one_photo(fine, categories)), categories).image)
    # What has no supercategory could be of the one that covers most.
    assert not len(coarse.dominant(objects).image)
    photos = make_photos(600, 3)
    odd_set = type(photos)(
        **{name: getattr(photos, name) for name in photos.__annotations__ if name != "categories"},
        categories=Categories((*names, *CATEGORIES.names[7:]), CATEGORIES.supercategories),
    )
    spoken = set()
    for i in range(len(odd_set)):
        for turn in odd_set.ask(i, EVERYTHING):
            if turn.kind != "photo_caption":
                spoken.add(turn.question)
                assert turn.answer == true_answer(turn, odd_set.photo(i), odd_set.categories)
    for name in ("hot dog", "a;b", "%(a)s {word}", "狗", "snow|board"):
        assert any(f" {name} " in question for question in spoken), name


def test_data_sets_that_say_little():
    empty = one_photo([])
    assert not len(empty.questions.rows)
    assert empty.questions.carries.tolist() == [0]
    assert empty.ask(0, EVERYTHING) == ()
    alone = one_photo([("dog", 10, 10, 60, 60)])
    assert not len(alone.questions.rows)  # one image: its text would tell every answer


def test_questions_about_real_photographs_are_true(coco_sample):
    photos = photos_of(read_coco(next((coco_sample / "annotations").glob("instances_*.json"))))
    seen = Counter()
    for i in range(len(photos)):
        for turn in photos.ask(i, EVERYTHING):
            seen[turn.kind] += 1
            assert turn.answer == true_answer(turn, photos.photo(i), photos.categories)
    assert len(seen) >= 8, seen
