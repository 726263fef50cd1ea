"""Attribute questions: one attribute of an object that its other attributes name."""

from functools import partial

from mixlens.tasks.facts import ATTEMPTS, Draft, Draw, Facts
from mixlens.tasks.naming import name
from mixlens.tasks.vocabulary import COLOUR, SHAPE, SIZE, TEXTURE


def _attribute(facts: Facts, draw: Draw, attribute: int) -> Draft | None:
    choices = facts.space.words[attribute]
    many = len(facts.seen)
    if len(choices) < 2 or not many:
        return None
    bit = 1 << attribute
    first = int(draw() * many)
    for step in range(min(many, ATTEMPTS)):
        i = facts.seen[(first + step) % many]
        word = facts.words[i][attribute]
        if (facts.spoken[i] | facts.secret[i]) & bit or word in facts.affirmed:
            continue
        named = name(facts, i, draw, bit)
        if named is not None and facts.keep_secret(i, attribute):
            return {"a": "the " + named}, word, choices
    return None


colour = partial(_attribute, attribute=COLOUR)
texture = partial(_attribute, attribute=TEXTURE)
size = partial(_attribute, attribute=SIZE)
shape = partial(_attribute, attribute=SHAPE)
