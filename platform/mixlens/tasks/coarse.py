"""Coarse questions: the shape and colour of the largest object, and what is there at all."""

from mixlens.tasks.facts import FEW_WORDS, SIZE_RATIO, Draft, Draw, Facts
from mixlens.tasks.group import Group, Kind
from mixlens.tasks.vocabulary import COLOUR, SHAPE, YES_NO


def _main(facts: Facts, attribute: int) -> Draft | None:
    """The word that all objects share which could be taken for the largest.

    Size is the diameter, because the area depends on the shape and would give it away.
    """
    choices = facts.space.words[attribute]
    if len(choices) < 2 or not facts.all_seen:
        return None
    limit = max(facts.diameter) / SIZE_RATIO
    largest = [i for i in range(facts.count) if facts.diameter[i] > limit]
    words = facts.columns[attribute]
    word = words[largest[0]]
    if facts.given_away(attribute, word) or any(words[i] != word for i in largest):
        return None
    if not all(facts.keep_secret(i, attribute) for i in largest):
        return None
    # Presence and counts, which come before, must not be about the answer; nor, where there are
    # few words, about any of them.
    facts.mentioned.update([word] if len(choices) >= FEW_WORDS else choices)
    return {}, word, choices


def main_shape(facts: Facts, draw: Draw) -> Draft | None:
    """What shape the largest object has."""
    return _main(facts, SHAPE)


def main_colour(facts: Facts, draw: Draw) -> Draft | None:
    """What colour the largest object has."""
    return _main(facts, COLOUR)


def _presence(facts: Facts, draw: Draw, attribute: int) -> Draft | None:
    """Asked only where a present and an absent word are left, so that either is as likely."""
    words = facts.columns[attribute]
    there, visible = set(words), {words[i] for i in facts.seen}
    left = [word for word in facts.space.words[attribute] if word not in facts.mentioned]
    present = [word for word in left if word in visible]
    absent = [word for word in left if word not in there]
    if not present or not absent:
        return None
    yes = draw() < 0.5
    candidates = present if yes else absent
    word = candidates[int(draw() * len(candidates))]
    facts.mentioned.add(word)
    if yes:
        facts.affirmed.add(word)
    return {"word": word}, "yes" if yes else "no", YES_NO


def shape_presence(facts: Facts, draw: Draw) -> Draft | None:
    """Whether any object has a shape."""
    return _presence(facts, draw, SHAPE)


def colour_presence(facts: Facts, draw: Draw) -> Draft | None:
    """Whether any object has a colour."""
    return _presence(facts, draw, COLOUR)


GROUP = Group(
    name="coarse",
    label="coarse",
    complexity=1,
    tier="simple",
    place=0,
    kinds={
        "main_shape": Kind(main_shape, stage=2, tickets=3),
        "main_colour": Kind(main_colour, stage=2, tickets=3),
        "shape_presence": Kind(shape_presence, stage=1),
        "colour_presence": Kind(colour_presence, stage=1),
    },
    asks_for=(
        "dominant_colour", "dominant_shape", "dominant_supercategory", "category_diversity",
        "supercategory_diversity",
    ),
)  # fmt: skip
