"""Attribute questions: one attribute of an object that its other attributes name."""

from functools import partial

from mixlens.tasks.facts import ATTEMPTS, Draft, Draw, Facts
from mixlens.tasks.group import Group, Kind
from mixlens.tasks.naming import name
from mixlens.tasks.vocabulary import COLOUR, SHAPE, SIZE, TEXTURE


def _attribute(facts: Facts, draw: Draw, attribute: int) -> Draft | None:
    choices = facts.space.words[attribute]
    if len(choices) < 2 or not facts.seen:
        return None
    bit = 1 << attribute
    words = facts.columns[attribute]
    by_word: dict[str, list[int]] = {}
    for i in facts.seen:
        by_word.setdefault(words[i], []).append(i)
    answers = list(by_word)
    for _ in range(ATTEMPTS):
        # The answer is drawn first: crowded scenes have more small objects than large ones.
        word = answers[int(draw() * len(answers))]
        things = by_word[word]
        i = things[int(draw() * len(things))]
        if (facts.spoken[i] | facts.secret[i]) & bit or facts.given_away(attribute, word):
            continue
        named = name(facts, i, draw, bit)
        if named is not None and facts.keep_secret(i, attribute):
            return {"a": "the " + named}, word, choices
    return None


colour = partial(_attribute, attribute=COLOUR)
texture = partial(_attribute, attribute=TEXTURE)
size = partial(_attribute, attribute=SIZE)
shape = partial(_attribute, attribute=SHAPE)


GROUP = Group(
    name="attribute",
    label="attribute",
    complexity=2,
    tier="simple",
    place=2,
    kinds={
        "colour": Kind(colour),
        "texture": Kind(texture),
        "size": Kind(size),
        "shape": Kind(shape),
    },
    asks_for=(
        "dominant_colour", "dominant_shape", "colour_diversity", "shape_diversity",
        "texture_diversity", "dominant_category", "size_mean", "size_spread",
    ),
)  # fmt: skip
