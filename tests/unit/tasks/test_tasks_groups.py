"""What is known of task groups stands in one record each, in the module of its name."""

from importlib import import_module
from typing import get_args

import pytest

from mixlens.analysis.tables import HEADLINE, TIERS
from mixlens.evaluation.answers import SCORES
from mixlens.spec import TaskGroup
from mixlens.tasks import GROUPS
from mixlens.tasks.photo import PHOTO_GROUPS, PHOTO_KINDS


def test_the_spec_names_the_groups_that_there_are():
    assert list(GROUPS) == list(get_args(TaskGroup))
    assert all(group.name == name for name, group in GROUPS.items())
    assert all(import_module(f"mixlens.tasks.{name}").GROUP is GROUPS[name] for name in GROUPS)
    assert {*PHOTO_GROUPS} == {*PHOTO_KINDS} <= {*GROUPS}


def test_groups_have_labels_and_places_of_their_own():
    assert len({group.label for group in GROUPS.values()}) == len(GROUPS)
    assert sorted(group.place for group in GROUPS.values()) == list(range(len(GROUPS)))
    kinds = [kind for group in GROUPS.values() for kind in group.kinds]
    assert len(set(kinds)) == len(kinds)


@pytest.mark.parametrize("group", GROUPS.values(), ids=lambda group: group.name)
def test_the_headline_of_a_group_is_one_of_its_scores(group):
    assert group.headline in group.scores
    assert set(group.scores) <= set(SCORES)


def test_models_are_compared_by_these_scores():
    """Other ones, or another order of the scores, would be another study."""
    assert HEADLINE == {
        "coarse": "exact", "attribute": "exact", "relational": "exact",
        "scene_graph": "object_f1", "count": "exact", "locate": "relaxed",
    }  # fmt: skip
    assert TIERS == {
        "simple": ("coarse", "attribute"), "complex": ("relational", "scene_graph"),
    }  # fmt: skip
    assert SCORES[:6] == ("exact", "relaxed", "count_error", "location_error", "iou", "parsed")
