"""Grounded captions, whole and in parts: what a model is pretrained on to look things up."""

from functools import partial

from mixlens.tasks.facts import ATTEMPTS, Draft, Draw, Facts
from mixlens.tasks.group import LAST, Group, Kind
from mixlens.tasks.locate import find
from mixlens.tasks.naming import description
from mixlens.tasks.scene_graph import GRAPH_SCORES, MAX_LISTED, listed
from mixlens.tasks.vocabulary import (
    COLOUR,
    COLUMNS,
    GRID,
    NOTHING,
    ROWS,
    SHAPE,
    cell_words,
)

EMPTY_SHARE = 0.2
"""Share of questions about a cell, line or word that take any; the others take one in use."""


def caption_full(facts: Facts, draw: Draw) -> Draft | None:
    """All objects with cell and attributes, in raster order."""
    objects = listed(facts)
    return ({}, objects, ()) if objects is not None and facts.ask_once("full") else None


def caption_cell(facts: Facts, draw: Draw) -> Draft | None:
    """What has its centre in one cell, of those with one object at most."""
    if not facts.all_seen:
        return None
    cells = facts.cells()
    for _ in range(ATTEMPTS):
        if draw() < EMPTY_SHARE:
            row, column = int(draw() * GRID), int(draw() * GRID)
        else:
            row, column = cells[int(draw() * facts.count)]
        inside = cells.count((row, column))
        if inside < 2 and facts.ask_once("at", row, column):
            answer = description(facts, cells.index((row, column))) if inside else NOTHING
            return {"cell": cell_words(row, column)}, answer, ()
    return None


def _line(facts: Facts, draw: Draw, axis: int) -> Draft | None:
    """The objects of one row (axis 0) or column (axis 1), with their other coordinate."""
    if not facts.all_seen:
        return None
    cells = facts.cells()
    empty = draw() < EMPTY_SHARE
    line = int(draw() * GRID) if empty else cells[int(draw() * facts.count)][axis]
    inside = [i for i in facts.raster() if cells[i][axis] == line]
    if len(inside) > MAX_LISTED or not facts.ask_once("line", axis, line):
        return None
    coordinates = ROWS if axis else COLUMNS
    texts = [f"{coordinates[cells[i][1 - axis]]} {description(facts, i)}" for i in inside]
    fields = {"column": COLUMNS[line]} if axis else {"row": ROWS[line]}
    return fields, " ; ".join(texts) or NOTHING, ()


caption_row = partial(_line, axis=0)
caption_column = partial(_line, axis=1)


def caption_find_all(facts: Facts, draw: Draw) -> Draft | None:
    """The cells of all objects of one colour or shape, in raster order; at times there are none."""
    if not facts.all_seen:
        return None
    attribute = COLOUR if draw() < 0.5 else SHAPE
    words = facts.columns[attribute]
    possible = facts.space.words[attribute] if draw() < EMPTY_SHARE else words
    word = possible[int(draw() * len(possible))]
    cells = facts.cells()
    inside = [cells[i] for i in facts.raster() if words[i] == word]
    if len(inside) > MAX_LISTED or not facts.ask_once("all", word):
        return None
    return {"word": word}, " ; ".join([cell_words(*cell) for cell in inside]) or NOTHING, ()


def _list(facts: Facts, draw: Draw, attribute: int) -> Draft | None:
    """The words that occur, in the order of the scene spec."""
    if not facts.all_seen or not facts.ask_once("list", attribute):
        return None
    there = facts.columns[attribute]
    return {}, " , ".join([w for w in facts.space.words[attribute] if w in there]), ()


caption_colours = partial(_list, attribute=COLOUR)
caption_shapes = partial(_list, attribute=SHAPE)


GROUP = Group(
    name="caption",
    label="caption",
    complexity=4,
    tier=None,
    place=7,
    kinds={
        "caption_full": Kind(caption_full, stage=LAST),
        "caption_cell": Kind(caption_cell, stage=LAST),
        "caption_row": Kind(caption_row, stage=LAST),
        "caption_column": Kind(caption_column, stage=LAST),
        "caption_find": Kind(find, stage=LAST),
        "caption_find_all": Kind(caption_find_all, stage=LAST),
        "caption_colours": Kind(caption_colours, stage=LAST),
        "caption_shapes": Kind(caption_shapes, stage=LAST),
    },
    scores=("exact", "relaxed", *GRAPH_SCORES),
    has_long_answers=True,
    is_compared=False,
)
