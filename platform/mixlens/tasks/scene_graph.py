"""The scene graph: all objects with their attributes, and relations between neighbours."""

from mixlens.tasks.facts import DIRECTION_MARGIN, Draft, Draw, Facts
from mixlens.tasks.group import LAST, Group, Kind
from mixlens.tasks.naming import description
from mixlens.tasks.vocabulary import cell_words

MAX_LISTED = 12
"""Scenes with more objects are not listed in full: an answer stays within 127 words."""

GRAPH_SCORES = (
    "parsed", "object_precision", "object_recall", "object_f1", "object_exact_f1",
    "attribute_precision", "attribute_recall", "attribute_f1",
    "relation_precision", "relation_recall", "relation_f1", "ged", "ged_exact", "ged_in_time",
)  # fmt: skip
"""Of answers that are graphs; see `mixlens.tasks.graph_score`."""

AXIS_MARGIN = 0.04
"""One axis must separate two centres by this much more (fraction of the side) than the other."""


def listed(facts: Facts) -> str | None:
    """All objects in raster order, or None if they are too many or partly hidden."""
    if facts.count > MAX_LISTED or not facts.all_seen:
        return None
    cells = facts.cells()
    return " ; ".join([f"{cell_words(*cells[i])} {description(facts, i)}" for i in facts.raster()])


def relation(facts: Facts, i: int, j: int) -> str | None:
    """Where object `i` is from object `j`, along the axis that separates them more.

    None for a near-tie: see `DIRECTION_MARGIN` and `AXIS_MARGIN`.
    """
    across, down = facts.x[j] - facts.x[i], facts.y[j] - facts.y[i]
    width, height = abs(across), abs(down)
    if max(width, height) < DIRECTION_MARGIN or abs(width - height) < AXIS_MARGIN:
        return None
    if width > height:
        return "left" if across > 0 else "right"
    return "above" if down > 0 else "below"


def scene_graph(facts: Facts, draw: Draw) -> Draft | None:
    """The answer grammar is in `prompts.yaml`."""
    objects = listed(facts)
    if objects is None or not facts.ask_once("scene_graph"):
        return None
    order = facts.raster()
    triplets = []
    for number in range(1, facts.count):
        word = relation(facts, order[number - 1], order[number])
        if word is not None:
            triplets.append(f"{number} {word} {number + 1}")
    return {}, f"{objects} | {' ; '.join(triplets)}" if triplets else objects, ()


GROUP = Group(
    name="scene_graph",
    label="scene-graph",
    complexity=4,
    tier="complex",
    place=6,
    kinds={
        "scene_graph": Kind(scene_graph, stage=LAST),
    },
    scores=("exact", "relaxed", *GRAPH_SCORES),
    headline="object_f1",
    score_label="object F1",
    has_long_answers=True,
    asks_for=("category_diversity",),
)
