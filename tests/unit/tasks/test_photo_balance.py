"""A guesser that reads questions about photographs and never sees them gains nothing."""

from collections import Counter, defaultdict

import numpy as np
import pytest
from made_photos import CATEGORIES, make_photos
from photo_truth import fields
from sklearn.feature_extraction.text import CountVectorizer
from sklearn.naive_bayes import MultinomialNB

from mixlens.tasks.photo import Categories, candidates
from mixlens.tasks.photo.balance import answers_of, balanced, chances
from mixlens.tasks.photo.objects import describe_objects
from mixlens.tasks.photo.rows import ROW_KIND, ROW_KINDS

PHOTOS = make_photos(9000, 2)
OBJECTS = describe_objects(
    PHOTOS.first,
    PHOTOS.width,
    PHOTOS.height,
    PHOTOS.category,
    PHOTOS.boxes,
    PHOTOS.area,
    PHOTOS.crowd,
    PHOTOS.coverage,
    CATEGORIES,
)
MANY = np.diff(PHOTOS.first)
TASKS = {
    "one turn": {"coarse": 1, "attribute": 1, "relational": 1, "count": 1, "locate": 1},
    "many turns": {"coarse": 4, "attribute": 4, "relational": 6, "count": 3, "locate": 3},
}
DRAWN = {
    "all": np.ones(len(PHOTOS), bool),
    "crowded": np.quantile(MANY, 0.75) <= MANY,
    "sparse": np.quantile(MANY, 0.5) >= MANY,
}

CELLS = 1 / 20
"""The most that guessing a cell may reach: photographs have little in their corners."""


def asked(tasks, drawn):
    """Turns about some photographs, those of every other one to learn from."""
    halves = ([], [])
    for i in np.flatnonzero(DRAWN[drawn]).tolist():
        halves[i % 2].extend(PHOTOS.ask(i, TASKS[tasks], 7))
    return halves


def names(turn):
    """What the question says, whatever its phrasing, and in either order."""
    return (turn.kind, *fields(turn).values())


def by_names(learn, test):
    seen = defaultdict(Counter)
    for turn in learn:
        seen[names(turn)][turn.answer] += 1
        seen[turn.kind][turn.answer] += 1
    return [seen.get(names(t), seen[t.kind]).most_common(1)[0][0] == t.answer for t in test]


def by_kind(learn, test):
    seen = defaultdict(Counter)
    for turn in learn:
        seen[turn.kind][turn.answer] += 1
    return [seen[turn.kind].most_common(1)[0][0] == turn.answer for turn in test]


def by_words(learn, test):
    words = CountVectorizer(token_pattern=r"\S+", lowercase=False)
    texts = [[f"{t.kind} {t.question}" for t in half] for half in (learn, test)]
    model = MultinomialNB().fit(words.fit_transform(texts[0]), [t.answer for t in learn])
    return model.predict(words.transform(texts[1])) == np.array([t.answer for t in test])


@pytest.mark.parametrize("drawn", DRAWN)
@pytest.mark.parametrize("tasks", TASKS)
def test_the_best_guess_from_text_alone_is_near_chance(tasks, drawn):
    learn, test = asked(tasks, drawn)
    families = {
        "presence": ("presence",),
        "dominant": ("dominant",),
        "size_class": ("size_class",),
        "largest": ("largest",),
        "sides": ("left_of", "right_of", "left_or_right"),
        "heights": ("above", "below", "above_or_below"),
        "sizes": ("larger", "smaller", "larger_or_smaller"),
        "count": ("count_category",),
        "locate": ("locate",),
    }
    for family, kinds in families.items():
        own = [[turn for turn in half if turn.kind in kinds] for half in (learn, test)]
        chance = np.mean([1 / len(turn.choices) if turn.choices else CELLS for turn in own[1]])
        if len(own[1]) < 100 and drawn != "all":
            continue  # what is this rare is balanced over all photographs only
        assert len(own[1]) >= 60, family
        error = (chance * (1 - chance) / len(own[1])) ** 0.5
        for guess in (by_names, by_kind, by_words):
            right = np.mean(guess(*own))
            assert right <= chance + 0.015 + 3 * error, (family, guess.__name__, right, chance)


def test_without_balance_the_same_guesser_would_gain_much():
    """So that the test above can fail."""
    nobody = np.zeros(len(PHOTOS.category), bool)
    for rows, least in (
        (candidates.direction(OBJECTS, "vertical"), 0.65),
        (candidates.size(OBJECTS, nobody), 0.6),
        (candidates.size_class(OBJECTS, nobody), 0.6),
        (candidates.count_category(OBJECTS), 0.4),
    ):
        _, key = np.unique(rows.key, return_inverse=True)
        table = np.zeros((key.max() + 1, rows.answer.max() + 1))
        np.add.at(table, (key, rows.answer), 1)
        assert table.max(1).sum() / table.sum() > least, rows.kind


def keys_of(rows):
    """Key -> answers, of accepted rows of one kind; the key says all that the text says."""
    kind = ROW_KINDS[rows["kind"][0]]
    if kind in ("horizontal", "vertical", "size"):
        key = [name_of(rows, "a"), name_of(rows, "b")]
    elif kind == "size_class":
        key = [name_of(rows, "a")]
    elif kind == "count_category":
        key = [rows["a"].astype(int)]
    elif kind == "presence":
        key = [rows["a"].astype(int), rows["b"].astype(int)]
    elif kind in ("locate", "box"):
        found = candidates.locate(OBJECTS, kind)
        own = dict(zip(zip(found.image, found.a, strict=True), found.key, strict=True))
        key = [np.array([own[pair] for pair in zip(rows["image"], rows["a"], strict=True)])]
    else:
        key = [np.zeros(len(rows), int)]
    found = defaultdict(list)
    for *name, answer in zip(*key, rows["answer"].tolist(), strict=True):
        found[tuple(int(part) for part in name)].append(answer)
    return found


def name_of(rows, which):
    """A number for the category and the form of a name."""
    place, form = np.divmod(rows[which].astype(int), 4)
    return PHOTOS.category[PHOTOS.first[rows["image"]] + place].astype(int) * 4 + form


@pytest.mark.parametrize(
    "kind",
    ["dominant", "largest", "presence", "size_class", "horizontal", "vertical", "size",
     "count_category", "locate", "box"],
)  # fmt: skip
def test_every_key_is_balanced_to_within_chance(kind):
    rows = PHOTOS.questions.rows
    keys = keys_of(rows[rows["kind"] == ROW_KIND[kind]])
    weighed = 0
    for key, answers in keys.items():
        counts = np.array(list(Counter(answers).values()))
        mean = counts.mean()
        if mean < 10:
            continue  # too few to tell; guessers are tested on them above
        # Those that are accepted by chance vary by less than the square root of their number; how
        # often an image is asked moves the balance of rows a little, so that turns are balanced.
        assert len(counts) > 1, key
        assert np.abs(counts - mean).max() <= 4 * mean**0.5 + 0.15 * mean, (key, counts)
        weighed += 1
    assert weighed >= 1


def test_either_answer_of_two_is_as_likely_in_each_kind():
    first = ("yes", "left", "above", "larger")
    for tasks in TASKS:
        answers = defaultdict(list)
        for half in asked(tasks, "all"):
            for turn in half:
                if len(turn.choices) == 2 and turn.group in ("coarse", "relational"):
                    answers[turn.kind].append(turn.answer in first)
        assert len(answers) >= 10
        for kind, values in answers.items():
            assert abs(np.mean(values) - 0.5) <= 1.5 / len(values) ** 0.5 + 0.005, kind


def test_choices_are_the_answers_that_occur():
    """Chance is one over their number, so that none may be there for nothing."""
    offered, occurred = defaultdict(set), defaultdict(set)
    for seed in range(3):
        for i in range(len(PHOTOS)):
            for turn in PHOTOS.ask(i, TASKS["many turns"], seed):
                if turn.kind in ("count_category", "size_class", "largest", "dominant"):
                    offered[names(turn)] |= set(turn.choices)
                    occurred[names(turn)].add(turn.answer)
    assert len(offered) > 20
    assert {key: offered[key] - some for key, some in occurred.items() if offered[key] - some} == {}


# --- the rule itself


def drawn_rows(counts, images=None):
    """Rows of one key, so many of each answer."""
    answer = np.repeat(np.arange(len(counts)), counts)
    rows = np.arange(len(answer)) if images is None else images
    return np.zeros(len(answer), int), answer, rows


@pytest.mark.parametrize(
    ("counts", "kept"),
    [
        ((900, 300), (0, 1)),
        ((900, 10), ()),  # one is far too rare, and one answer alone is no question
        ((900, 500, 40), (0, 1)),
        ((1, 1), (0, 1)),
        ((5,), ()),
        ((300, 300, 300, 80), (0, 1, 2, 3)),
    ],
)
def test_the_rarest_answer_is_always_accepted_and_others_as_often(counts, kept):
    key, answer, image = drawn_rows(counts)
    like = np.random.default_rng(0).integers(0, 9, len(key))
    accepted = balanced(key, answer, image, like, chances(image, 1))
    found = np.bincount(answer[accepted], minlength=len(counts))
    assert tuple(np.flatnonzero(found)) == kept
    if kept:
        least = min(counts[k] for k in kept)
        for k in kept:
            assert abs(found[k] - least) <= 3 * least**0.5 + 0.2 * least
            assert found[k] <= counts[k]


def test_answers_are_balanced_among_images_that_are_alike():
    """One answer is that of crowded images: where both occur they are balanced, else not asked."""
    draw = np.random.default_rng(1)
    answer = draw.integers(0, 2, 20_000)
    like = np.where(answer == 1, draw.normal(12, 4, 20_000), draw.normal(8, 4, 20_000)).astype(int)
    image = np.arange(len(answer))
    accepted = balanced(np.zeros(len(answer), int), answer, image, like, chances(image))
    for low, high in ((-99, 6), (6, 9), (9, 12), (12, 15), (15, 99)):
        own = answer[accepted & (like >= low) & (like < high)]
        assert abs(own.mean() - 0.5) < 0.06, (low, own.mean())
    assert accepted.sum() > 5000


@pytest.mark.parametrize(("images", "each"), [(500, 6), (1000, 4), (1000, 3), (300, 12)])
def test_a_question_counts_as_often_as_its_image_asks_it(images, each):
    """One answer comes in images that have many questions, the other in images with one."""
    image = np.concatenate((np.repeat(np.arange(images), each), images + np.arange(2000)))
    answer = np.repeat([0, 1], [images * each, 2000])
    nothing = np.zeros(len(image), int)
    accepted = balanced(nothing, answer, image, nothing, chances(image, np.arange(len(image))))
    many = np.bincount(image, accepted)
    often = np.minimum(1, 2 / np.maximum(many, 1))[image]
    asked_of = np.bincount(answer[accepted], often[accepted])
    assert 0.9 < asked_of[0] / asked_of[1] < 1.1


def test_what_is_accepted_depends_on_no_order():
    draw = np.random.default_rng(3)
    key, answer = draw.integers(0, 9, 5000), draw.integers(0, 3, 5000)
    image, like = np.sort(draw.integers(0, 900, 5000)), draw.integers(0, 20, 5000)
    chance = chances(image, np.arange(5000))
    accepted = balanced(key, answer, image, like, chance)
    shuffled = draw.permutation(5000)
    again = balanced(*(x[shuffled] for x in (key, answer, image, like, chance)))
    assert (again == accepted[shuffled]).all()
    assert 0.2 < accepted.mean() < 1


def test_chances_are_uniform_and_those_of_neighbours_unrelated():
    values = chances(np.repeat(np.arange(300), 300), 4, np.tile(np.arange(300), 300))
    counts = np.histogram(values, 50, (0, 1))[0]
    assert np.abs(counts - 1800).max() < 5 * 1800**0.5
    table = values.reshape(300, 300)
    for one, other in ((table[1:], table[:-1]), (table[:, 1:], table[:, :-1])):
        assert abs(np.corrcoef(one.ravel(), other.ravel())[0, 1]) < 0.015
    assert (chances(np.arange(5), 1) != chances(np.arange(5), 2)).all()
    # Recorded: another version of the hash would ask other questions of every index.
    assert chances(np.array([0, 1, 2]), 3, 4).round(6).tolist() == [0.500321, 0.841122, 0.661222]


def test_answers_of_a_key_as_bits():
    assert answers_of(np.array([5, 5, 7, 5]), np.array([1, 3, 2, 1])).tolist() == [10, 10, 4, 10]


def test_one_category_or_one_supercategory_leaves_no_question_about_it():
    photos = make_photos(800, 4)
    alone = type(photos)(
        **{
            name: getattr(photos, name)
            for name in photos.__annotations__
            if name not in ("categories", "category")
        },
        category=np.zeros_like(photos.category),
        categories=Categories(("ship",), ("vehicle",)),
    )
    kinds = {ROW_KINDS[kind] for kind in np.unique(alone.questions.rows["kind"])}
    assert not kinds & {"presence", "dominant", "largest"}
    assert {"locate", "count_category", "vertical"} <= kinds
