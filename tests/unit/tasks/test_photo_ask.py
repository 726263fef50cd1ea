"""What a sequence of turns about a photograph promises."""

import hashlib
from collections import Counter, defaultdict
from itertools import combinations

import numpy as np
import pytest
from coco_truth import read_coco
from made_photos import CATEGORIES, make_photos, photos_of
from photo_truth import fields, meant, things_of

from mixlens.tasks import GROUPS, prompts_digest, vocabulary
from mixlens.tasks.photo import PHOTO_GROUPS, PHOTO_KINDS, QUESTION, find_questions
from mixlens.tasks.photo.rows import FORMS, ROW_KINDS
from mixlens.tasks.prompts import photo_prompts, prompts, prompts_text

PHOTOS = make_photos(2000, 5)
EVERYTHING = dict.fromkeys(PHOTO_KINDS, 4)
STAGES = {
    "dominant": 0, "largest": 0, "presence": 1, "count_category": 2, "locate": 4, "box": 4,
    "category_graph": 5, "photo_caption": 6,
}  # fmt: skip


def all_turns(tasks=EVERYTHING, seed=0):
    return [(i, PHOTOS.ask(i, tasks, seed)) for i in range(len(PHOTOS))]


def test_the_same_arguments_give_the_same_turns_in_any_order():
    forth = [PHOTOS.ask(i, EVERYTHING) for i in range(200)]
    back = [PHOTOS.ask(i, EVERYTHING) for i in reversed(range(200))][::-1]
    assert forth == back
    assert len(set(forth)) > 190


def test_seed_and_index_matter():
    i = max(range(100), key=lambda i: len(PHOTOS.ask(i, EVERYTHING)))
    few = {"coarse": 1, "relational": 1, "attribute": 1}
    asked = {PHOTOS.ask(i, few, seed, index) for seed in range(4) for index in range(4)}
    assert len(asked) >= 12


def test_rows_and_turns_are_those_that_were_recorded():
    """Another record is another experiment for every data set; the index has a version."""
    rows = hashlib.sha256(PHOTOS.questions.rows.tobytes()).hexdigest()[:16]
    turns = [[(t.kind, t.answer, t.choices) for t in turns] for _, turns in all_turns()]
    assert (rows, hashlib.sha256(repr(turns).encode()).hexdigest()[:16]) == (
        "d84f47a1d85f218d",
        "b6dee7cb6d8d71e8",
    )


def test_rows_are_sorted_and_within_their_images():
    rows = PHOTOS.questions.rows
    assert rows.dtype == QUESTION
    assert (np.diff(rows["image"]) >= 0).all()
    for kind, reference in (("size_class", "a"), ("size", "a"), ("size", "b"), ("locate", "a")):
        own = rows[rows["kind"] == ROW_KINDS.index(kind)]
        assert (own[reference] // FORMS < np.diff(PHOTOS.first)[own["image"]]).all()
    assert len(np.unique(rows)) == len(rows)


def test_as_many_turns_as_asked_for_and_never_the_same_question_twice():
    for _, turns in all_turns():
        numbers = Counter(turn.group for turn in turns)
        assert all(number <= 4 for number in numbers.values())
        assert numbers["scene_graph"] <= 1
        assert numbers["caption"] <= 1
        details = [(t.kind, *sorted(fields(t).values())) for t in turns]
        assert len(set(details)) == len(details)
        assert len({turn.question for turn in turns}) == len(turns)


@pytest.mark.parametrize("group", PHOTO_GROUPS)
def test_an_image_carries_a_group_exactly_if_a_turn_of_it_can_be_asked(group):
    carries = PHOTOS.questions.carries >> PHOTO_GROUPS.index(group) & 1
    assert 0.02 < carries.mean() < 1
    for i in range(len(PHOTOS)):
        turns = PHOTOS.ask(i, {group: 2}, seed=i)
        assert bool(turns) == carries[i], i
        assert all(turn.group == group for turn in turns)
        assert all(turn.complexity == GROUPS[group].complexity for turn in turns)


def test_kinds_are_asked_about_evenly():
    kinds = Counter(t.kind for s in range(3) for _, turns in all_turns({"relational": 1}, s)
                    for t in turns)  # fmt: skip
    for axis in (("left_of", "right_of", "left_or_right"), ("above", "below", "above_or_below"),
                 ("larger", "smaller", "larger_or_smaller")):  # fmt: skip
        numbers = [kinds[kind] for kind in axis]
        assert min(numbers) > 100
        assert max(numbers) < 1.3 * min(numbers)


def test_what_could_help_later_turns_comes_late():
    for _, turns in all_turns():
        order = [STAGES.get(turn.kind, 3) for turn in turns]
        assert order == sorted(order)


def test_no_turn_gives_another_away():
    sides = {
        "left_of": "x", "right_of": "x", "left_or_right": "x", "above": "y", "below": "y",
        "above_or_below": "y", "larger": "size", "smaller": "size", "larger_or_smaller": "size",
        "size_class": "size", "locate": "place", "box": "place",
    }  # fmt: skip
    together = Counter()
    group_of = dict(zip(CATEGORIES.names, CATEGORIES.supercategories, strict=True))
    for i, turns in all_turns():
        things = things_of(PHOTOS.photo(i), CATEGORIES)
        used = defaultdict(list)
        for turn in turns:
            if turn.kind in sides:
                objects = [meant(name, things)[0] for name in fields(turn).values()]
                used[sides[turn.kind]] += [thing.i for thing in objects]
        # No object twice in one respect: of three, two answers would tell the third.
        for what, objects in used.items():
            assert len(set(objects)) == len(objects), (i, what)
        said = {turn.kind: turn for turn in turns}
        presence = [fields(turn)["word"] for turn in turns if turn.kind == "presence"]
        assert len(set(presence)) == len(presence)
        sized = [things[k] for k in used["size"]]
        if "dominant" in said:
            assert "largest" not in said
            group = said["dominant"].answer
            assert group not in {group_of[word] for word in presence}
            assert group not in {thing.group for thing in sized}
        if "largest" in said:
            assert said["largest"].answer not in presence
            widest = max(things, key=lambda thing: thing.box)
            assert widest.i not in used["size"]
        for pair in combinations(sorted({*said}), 2):
            together[pair] += 1
    assert together["dominant", "presence"] > 50
    assert together["largest", "presence"] > 20
    assert together["dominant", "size_class"] > 20


def test_what_the_coarse_questions_bar_is_barred_whether_they_are_asked_or_not():
    """Else the balance of presence would depend on which groups a component asks."""
    alone = dict(all_turns({"coarse": 9}))
    for i in range(len(PHOTOS)):
        words = set()
        for seed in range(4):
            for turn in PHOTOS.ask(i, {"coarse": 9}, seed):
                if turn.kind == "presence":
                    words.add(fields(turn)["word"])
        for turn in alone[i]:
            if turn.kind == "dominant":
                groups = {CATEGORIES.supercategories[CATEGORIES.names.index(w)] for w in words}
                assert turn.answer not in groups


def test_other_images_do_not_change_what_one_is_asked_by_their_threads_or_order():
    columns = {name: getattr(PHOTOS, name) for name in PHOTOS.__annotations__}
    again = find_questions(**columns, coverage=PHOTOS.coverage)
    assert (again.rows == PHOTOS.questions.rows).all()
    assert (again.carries == PHOTOS.questions.carries).all()


def test_phrasings_of_photographs_leave_the_words_of_scenes_alone():
    """The built-in model's vocabulary, and so its weights, depend on them."""
    kinds = {kind for kinds in PHOTO_KINDS.values() for kind in kinds}
    assert kinds <= set(photo_prompts())
    assert set(prompts()) == {kind for group in GROUPS.values() for kind in group.kinds}
    assert not {"photograph", "instances", "covers"} & vocabulary()
    shared = kinds & set(prompts())
    assert len(shared) == 10
    assert all(photo_prompts()[kind] == prompts()[kind] for kind in shared)
    for kind in kinds:
        phrasings = [template for _, template in photo_prompts()[kind]]
        assert len(phrasings) == len(set(phrasings)) == 3
        used = [{w for w in ("a", "b", "word") if f"%({w})s" in text} for text in phrasings]
        assert used[0] == used[1] == used[2]


def test_the_digest_is_of_both_files():
    assert hashlib.sha256(prompts_text().encode()).hexdigest()[:16] == prompts_digest()
    assert "photo_caption:" in prompts_text()
    assert "chain_nearest:" in prompts_text()


def test_captions_are_drawn_from_those_of_the_image():
    said = defaultdict(set)
    for seed in range(12):
        for i in range(60):
            for turn in PHOTOS.ask(i, {"caption": 2}, seed):
                said[i].add(turn.answer)
    for i in range(60):
        assert said[i] <= set(PHOTOS.photo(i).captions)
    full = [i for i in range(60) if PHOTOS.captions[i] == 3]
    assert np.mean([len(said[i]) == 3 for i in full]) > 0.75


def test_real_photographs_carry_most_groups(coco_sample):
    photos = photos_of(read_coco(next((coco_sample / "annotations").glob("instances_*.json"))))
    carries = photos.questions.carries
    for group in ("coarse", "count", "relational", "scene_graph"):
        assert (carries >> PHOTO_GROUPS.index(group) & 1).sum() >= 5, group
    for i in range(len(photos)):
        for turn in photos.ask(i, EVERYTHING):
            assert "  " not in turn.question
            assert turn.question.isascii()
