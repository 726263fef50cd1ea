"""Every answer against a reference that reads the question's text and looks at the world."""

import re
from itertools import pairwise

import pytest

from mixlens.scenes import Scene, SceneObject, make_scene
from mixlens.spec import SceneSpec
from mixlens.tasks import GROUPS, Turn, answer_space, ask

SPECS = {
    "few": SceneSpec(objects=(1, 5)),
    "default": SceneSpec(),
    "poor": SceneSpec(
        objects=(2, 8),
        shapes=("circle", "star", "cross"),
        colours=("red", "blue"),
        textures=("solid",),
        sizes=({"name": "tiny", "diameter": (0.06, 0.08)}, {"name": "huge", "diameter": 0.2}),
    ),
    "crowded": SceneSpec(objects=(30, 40), sizes=({"name": "small", "diameter": (0.05, 0.07)},)),
}
IMPOSSIBLE = {
    "poor": {"texture", "same_texture"},  # all objects are solid
    "crowded": {"size", "scene_graph", "caption_full"},  # one size word; too many to list
}
TASKS = [dict.fromkeys(GROUPS, 8), dict.fromkeys(GROUPS, 1), *({group: 4} for group in GROUPS)]
THE = r"the ([a-z ]+?)"
ATTRIBUTE = r"(colour|texture|size|shape)"
SIDES = r"(left of|right of|above|below)"


def cases(name: str, count: int) -> list[tuple[Scene, Turn]]:
    spec = SPECS[name]
    space = answer_space(spec)
    scenes = [make_scene(spec, 3, i) for i in range(count)]
    return [
        (s, turn)
        for i, s in enumerate(scenes)
        for turn in ask(s, TASKS[i % len(TASKS)], 3, i, space)
    ]


class World:
    """The reference: what the words of a question mean."""

    def __init__(self, scene: Scene) -> None:
        self.things = scene.objects
        self.side = scene.image.shape[0]

    def fits(self, words: str) -> list[SceneObject]:
        wanted = [word for word in words.split() if word != "object"]
        return [
            thing
            for thing in self.things
            if all(w in (thing.size, thing.colour, thing.texture, thing.shape) for w in wanted)
        ]

    def the(self, words: str) -> SceneObject:
        (only,) = self.fits(words)
        return only

    def holds(self, relation: str, one: SceneObject, other: SceneObject) -> bool | None:
        """Whether the relation holds; None if that is too close to say."""
        gap = {
            "left of": other.x - one.x,
            "right of": one.x - other.x,
            "above": other.y - one.y,
            "below": one.y - other.y,
        }[relation] / self.side
        return None if abs(gap) < 0.08 else gap > 0

    def distance(self, one: SceneObject, other: SceneObject) -> float:
        return ((one.x - other.x) ** 2 + (one.y - other.y) ** 2) ** 0.5

    def nearest(self, to: SceneObject, among: list[SceneObject]) -> SceneObject:
        first, second = sorted(among, key=lambda thing: self.distance(to, thing))[:2]
        assert self.distance(to, second) >= 1.25 * self.distance(to, first) - 1e-9
        return first

    def cell(self, thing: SceneObject) -> tuple[int, int]:
        return int(8 * thing.y / self.side), int(8 * thing.x / self.side)

    def raster(self) -> list[SceneObject]:
        return sorted(self.things, key=lambda thing: (*self.cell(thing), thing.x, thing.y))

    # One method for each way of asking, whatever the phrasing.

    def largest(self, attribute: str) -> str:
        most = max(thing.diameter for thing in self.things)
        (only,) = {getattr(t, attribute) for t in self.things if t.diameter * 1.2 > most}
        return only

    def presence(self, word: str) -> str:
        return "yes" if self.fits(word) else "no"

    def attribute(self, attribute: str, words: str) -> str:
        assert getattr(self.the(words), attribute) not in words.split()
        return getattr(self.the(words), attribute)

    def relation(self, one: str, relation: str, other: str) -> str:
        relation = {"higher than": "above", "lower than": "below"}.get(relation, relation)
        verdict = self.holds(relation, self.the(one), self.the(other))
        assert verdict is not None
        return "yes" if verdict else "no"

    def which_side(self, one: str, words: str, other: str) -> str:
        (word,) = [
            word
            for word in words.split(" or ")
            if self.holds({"left": "left of", "right": "right of"}.get(word, word),
                          self.the(one), self.the(other))
        ]  # fmt: skip
        return word

    def which_size(self, one: str, other: str) -> str:
        ratio = self.the(one).diameter / self.the(other).diameter
        assert max(ratio, 1 / ratio) >= 1.2 - 1e-9
        return "larger" if ratio > 1 else "smaller"

    def comparison(self, one: str, word: str, other: str) -> str:
        ratio = self.the(one).diameter / self.the(other).diameter
        assert max(ratio, 1 / ratio) >= 1.2 - 1e-9
        return "yes" if (ratio > 1) == (word == "larger") else "no"

    def nearer(self, one: str, other: str, to: str) -> str:
        near = self.nearest(self.the(to), [self.the(one), self.the(other)])
        return one if near is self.the(one) else other

    def same(self, attribute: str, one: str, other: str) -> str:
        pair = self.the(one), self.the(other)
        assert pair[0] is not pair[1]
        return "same" if len({getattr(t, attribute) for t in pair}) == 1 else "different"

    def chain(self, attribute: str, side: str, one: str, level: str, other: str) -> str:
        pair = self.the(one), self.the(other)
        (only,) = [
            thing
            for thing in self.things
            if thing not in pair
            and self.holds(side, thing, pair[0]) is not False
            and self.holds(level, thing, pair[1]) is not False
        ]
        assert self.holds(side, only, pair[0])
        assert self.holds(level, only, pair[1])
        return getattr(only, attribute)

    def nearest_side(self, to: str, relation: str, other: str) -> str:
        start = self.the(to)
        near = self.nearest(start, [thing for thing in self.things if thing is not start])
        assert near is not self.the(other)
        verdict = self.holds(relation, near, self.the(other))
        assert verdict is not None
        return "yes" if verdict else "no"

    def count(self, word: str = "") -> str:
        return str(len(self.fits(word)))

    def where(self, words: str) -> str:
        return "y{} x{}".format(*self.cell(self.the(words)))

    def where_both(self, one: str, other: str) -> str:
        return f"{self.where(one)} ; {self.where(other)}"

    def offset(self, one: str, other: str) -> str:
        a, b = self.the(one), self.the(other)
        (row, column), (other_row, other_column) = self.cell(a), self.cell(b)
        side = "right" if self.holds("right of", a, b) else "left"
        height = "above" if self.holds("above", a, b) else "below"
        assert self.holds(height, a, b)
        return f"{side} {abs(column - other_column)} {height} {abs(row - other_row)}"

    def describe(self, thing: SceneObject) -> str:
        return f"{thing.size} {thing.colour} {thing.texture} {thing.shape}"

    def everything(self) -> str:
        return " ; ".join(
            "y{} x{} ".format(*self.cell(t)) + self.describe(t) for t in self.raster()
        )

    def graph(self) -> str:
        order = self.raster()
        triplets = []
        for number, (one, other) in enumerate(pairwise(order), 1):
            dx, dy = (other.x - one.x) / self.side, (other.y - one.y) / self.side
            if abs(abs(dx) - abs(dy)) < 0.04 or max(abs(dx), abs(dy)) < 0.08:
                continue
            wide = abs(dx) > abs(dy)
            word = ("left" if dx > 0 else "right") if wide else ("above" if dy > 0 else "below")
            triplets.append(f"{number} {word} {number + 1}")
        return self.everything() + (f" | {' ; '.join(triplets)}" if triplets else "")

    def at(self, row: str, column: str) -> str:
        inside = [t for t in self.things if self.cell(t) == (int(row), int(column))]
        assert len(inside) < 2
        return self.describe(inside[0]) if inside else "nothing"

    def row(self, number: str) -> str:
        inside = [t for t in self.raster() if self.cell(t)[0] == int(number)]
        texts = [f"x{self.cell(t)[1]} {self.describe(t)}" for t in inside]
        return " ; ".join(texts) or "nothing"

    def column(self, number: str) -> str:
        inside = [t for t in self.raster() if self.cell(t)[1] == int(number)]
        texts = [f"y{self.cell(t)[0]} {self.describe(t)}" for t in inside]
        return " ; ".join(texts) or "nothing"

    def all_of(self, word: str) -> str:
        inside = [t for t in self.raster() if t in self.fits(word)]
        return " ; ".join("y{} x{}".format(*self.cell(t)) for t in inside) or "nothing"


LARGEST = {
    r"(?:what|which) (shape|colour) (?:is|does) the largest object(?: have)? \?",
    r"name the (shape|colour) of the largest object \.",
}
READINGS: list[tuple[str, set[str], object]] = [
    ("main_shape main_colour", LARGEST, World.largest),
    (
        "shape_presence colour_presence",
        {
            r"is there any (\w+)(?: object)? \?",
            r"does the image show any (\w+)(?: object)? \?",
            r"can you see any (\w+)(?: object)? in the image \?",
        },
        World.presence,
    ),
    (
        "colour texture size shape",
        {
            rf"(?:what|which) {ATTRIBUTE} (?:is|does) {THE}(?: have)? \?",
            rf"name the {ATTRIBUTE} of {THE} \.",
        },
        World.attribute,
    ),
    (
        "left_of right_of above below",
        {
            rf"(?:is|does) {THE}(?: to the| lie)? "
            rf"(left of|right of|above|below|higher than|lower than) {THE} \?"
        },
        World.relation,
    ),
    (
        "larger smaller",
        {
            rf"is {THE} (larger|smaller) than {THE} \?",
            rf"does {THE} have a (larger|smaller) size than {THE} \?",
        },
        World.comparison,
    ),
    (
        "larger smaller",
        {rf"compared with {THE} , is {THE} (larger|smaller) \?"},
        lambda world, other, one, word: world.comparison(one, word, other),
    ),
    (
        "left_or_right above_or_below",
        {rf"(?:is|does) {THE}(?: lie)? (left or right|above or below)(?: of)? {THE} \?"},
        World.which_side,
    ),
    (
        "left_or_right above_or_below",
        {rf"(left or right|above or below) : where is {THE} compared with {THE} \?"},
        lambda world, words, one, other: world.which_side(one, words, other),
    ),
    (
        "larger_or_smaller",
        {
            rf"is {THE} larger or smaller than {THE} \?",
            rf"larger or smaller : what is {THE} compared with {THE} \?",
        },
        World.which_size,
    ),
    (
        "larger_or_smaller",
        {rf"compared with {THE} , is {THE} larger or smaller \?"},
        lambda world, other, one: world.which_size(one, other),
    ),
    (
        "nearest",
        {
            rf"is {THE} or {THE} nearer to {THE} \?",
            rf"which of {THE} and {THE} is nearer to {THE} \?",
        },
        World.nearer,
    ),
    (
        "nearest",
        {rf"which is nearer to {THE} : {THE} or {THE} \?"},
        lambda world, to, one, other: world.nearer(one, other, to),
    ),
    (
        "same_colour same_shape same_texture",
        {
            rf"is the {ATTRIBUTE} of {THE} and {THE} the same or different \?",
            rf"compare the {ATTRIBUTE} of {THE} and {THE} : same or different \?",
        },
        World.same,
    ),
    (
        "same_colour same_shape same_texture",
        {rf"do {THE} and {THE} have the same {ATTRIBUTE} or different \?"},
        lambda world, one, other, attribute: world.same(attribute, one, other),
    ),
    (
        "chain_attribute",
        {
            rf"(?:what|which) {ATTRIBUTE} (?:is|does) the object {SIDES} {THE} and {SIDES} {THE}"
            r"(?: have)? \?",
            rf"name the {ATTRIBUTE} of the object {SIDES} {THE} and {SIDES} {THE} \.",
        },
        World.chain,
    ),
    (
        "chain_nearest",
        {
            rf"(?:is|does) the object nearest to {THE}(?: lie)? {SIDES} {THE} \?",
            rf"take the object nearest to {THE} : is it {SIDES} {THE} \?",
        },
        World.nearest_side,
    ),
    (
        "count_all",
        {
            r"how many objects are there \?",
            r"how many objects does the image show \?",
            r"count the objects \.",
        },
        World.count,
    ),
    (
        "count_colour count_shape",
        {
            r"how many (\w+) objects (?:are there|does the image show) \?",
            r"count the (\w+) objects \.",
        },
        World.count,
    ),
    (
        "locate caption_find",
        {
            rf"(?:where|at which position|in which cell) is {THE} \?",
            rf"(?:give the position of|find|point at) {THE} \.",
        },
        World.where,
    ),
    (
        "pair_find",
        {rf"(?:where are|find|point at) {THE} and {THE} [.?]"},
        World.where_both,
    ),
    (
        "pair_offset",
        {
            rf"compare the position of {THE} and {THE} \.",
            rf"(?:where is|give the position of) {THE} compared with {THE} [.?]",
        },
        World.offset,
    ),
    (
        "scene_graph",
        {
            r"give the scene graph \.",
            r"write the scene graph of the image \.",
            r"list all objects and their relations \.",
        },
        World.graph,
    ),
    (
        "caption_full",
        {r"describe the image \.", r"describe all objects \.", r"list all objects \."},
        World.everything,
    ),
    (
        "caption_cell",
        {r"describe y(\d) x(\d) \.", r"(?:what|which object) is at y(\d) x(\d) \?"},
        World.at,
    ),
    (
        "caption_row",
        {r"list the objects in row y(\d) \.", r"describe row y(\d) \.", r"what is in row y(\d) \?"},
        World.row,
    ),
    (
        "caption_column",
        {
            r"list the objects in column x(\d) \.",
            r"describe column x(\d) \.",
            r"what is in column x(\d) \?",
        },
        World.column,
    ),
    (
        "caption_find_all",
        {r"(?:find|point at) the (\w+) objects \.", r"where are the (\w+) objects \?"},
        World.all_of,
    ),
]
LISTS = {
    "caption_colours": {
        "list the colours .",
        "which colours does the image show ?",
        "name all colours .",
    },
    "caption_shapes": {
        "list the shapes .",
        "which shapes does the image show ?",
        "name all shapes .",
    },
}


def reference(scene: Scene, spec: SceneSpec, turn: Turn) -> str:
    if turn.kind in LISTS:
        assert turn.question in LISTS[turn.kind]
        words, attribute = (
            (spec.colours, "colour") if turn.kind == "caption_colours" else (spec.shapes, "shape")
        )
        there = {getattr(thing, attribute) for thing in scene.objects}
        return " , ".join(word for word in words if word in there)
    for kinds, patterns, solve in READINGS:
        if turn.kind not in kinds.split():
            continue
        for pattern in patterns:
            if match := re.fullmatch(pattern, turn.question):
                return solve(World(scene), *match.groups())
    raise AssertionError(f"no reading of {turn.question!r} as {turn.kind}")


@pytest.mark.parametrize("name", SPECS)
def test_every_answer_is_what_the_question_asks_for(name):
    asked = cases(name, 90 if name == "crowded" else 400)
    for scene, turn in asked:
        assert reference(scene, SPECS[name], turn) == turn.answer, turn
        assert not turn.choices or turn.choices.count(turn.answer) == 1
    kinds = {turn.kind for _, turn in asked}
    everything = {kind for group in GROUPS.values() for kind in group.kinds}
    assert kinds <= everything - IMPOSSIBLE.get(name, set())
    if name in ("few", "default"):
        assert kinds == everything


def test_hidden_objects_are_not_asked_about():
    def thing(shape: str, colour: str, x: float, y: float, visible: float) -> SceneObject:
        box = (int(x) - 10, int(y) - 10, int(x) + 10, int(y) + 10)
        return SceneObject(shape, colour, "solid", "small", x, y, 20.0, 0, box, 314, 314, visible)

    things = (
        thing("circle", "red", 30, 30, 0.1),
        thing("star", "blue", 150, 40, 1.0),
        thing("cross", "green", 60, 180, 1.0),
        thing("heart", "blue", 190, 190, 1.0),
    )
    whole = make_scene(SceneSpec(), 0, 0)
    scene = Scene(whole.image, things, whole.ids, {})
    for index in range(300):
        for turn in ask(scene, TASKS[0], 0, index):
            assert "circle" not in turn.question.split()
            assert "red" not in turn.question.split()
            assert turn.group not in ("count", "scene_graph")
            # The hidden one still counts where it matters: nothing is nearest that may not be.
            if turn.kind == "chain_nearest":
                assert reference(scene, SceneSpec(), turn) == turn.answer
