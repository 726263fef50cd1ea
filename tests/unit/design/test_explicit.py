"""Levels that a file spells out."""

from pathlib import Path

import numpy as np
import pytest
from fake_sweep import FakeSweep
from test_designs import MINIMAL, load

from mixlens.analysis.answer import answer_sentences
from mixlens.analysis.build import build_tables
from mixlens.analysis.results import load_sweep
from mixlens.design import asked_trials
from mixlens.errors import SpecError

POINTS = {
    "some": {"weights": {"shapes": 0.5, "graphs": 0.5}, "coordinates": {"mean_objects": 3.0}},
    "few": {"weights": {"shapes": 1.0}, "coordinates": {"mean_objects": 1.5}},
}
EXPLICIT = {"kind": "explicit", "points": POINTS, "scale": "mean_objects"}


class AsPoints(FakeSweep):
    """The ratios of a fake sweep, each written out as a mixture with a quantity."""

    def _axis(self) -> dict:
        points = {
            f"share_{100 * ratio:g}": {
                "weights": {"complex": ratio, "simple": 1 - ratio},
                "coordinates": {"ratio": ratio},
            }
            for ratio in self.ratios
        }
        return {"design": {"kind": "explicit", "points": points, "scale": "ratio"}}


def test_levels_have_the_quantities_of_the_file_and_its_mixtures(tmp_path: Path):
    spec = load(tmp_path, {**MINIMAL, "design": EXPLICIT})
    assert [trial.name for trial in asked_trials(spec)] == [
        "some,seed=3", "some,seed=4", "few,seed=3", "few,seed=4",
    ]  # fmt: skip
    assert spec.design.ordered(spec.design.levels())[0].label == "few (mean objects 1.5)"
    without = load(tmp_path, {**MINIMAL, "design": {**EXPLICIT, "scale": None}})
    assert [level.label for level in without.design.ordered(without.design.levels())] == [
        "some", "few",
    ]  # fmt: skip


def test_ratios_written_out_are_the_same_runs_and_give_the_same_answer(tmp_path: Path):
    both = FakeSweep(images=64), AsPoints(images=64)
    runs = [
        [trial.run for trial in asked_trials(fake.spec(tmp_path / str(place)))]
        for place, fake in enumerate(both)
    ]
    assert runs[0] == runs[1]
    ratios, points = (
        build_tables(load_sweep(fake.write(tmp_path / str(place))))
        for place, fake in enumerate(both)
    )
    numbers = ["value", "low", "high", "n"]
    for name in ("accuracy", "layers", "effects", "recommendation"):
        ours, theirs = getattr(points, name), getattr(ratios, name)
        there = [column for column in numbers if column in theirs]
        np.testing.assert_array_equal(ours[there].to_numpy(), theirs[there].to_numpy())
    change = answer_sentences(ratios)[0].replace("share of complex data", "ratio")
    assert answer_sentences(points)[0] == change
    assert answer_sentences(points)[1] == answer_sentences(ratios)[1]


@pytest.mark.parametrize(
    ("change", "named"),
    [
        ({"points": {}}, ["design.points", "at least 1"]),
        ({"scale": "objects"}, ["scale: got 'objects'", "['mean_objects']"]),
        (
            {"points": {**POINTS, "odd": {"weights": {"graphs": 1.0}}}},
            ["points.odd.coordinates", "same quantities"],
        ),
        (
            {"points": {**POINTS, "many": {**POINTS["some"], "weights": {"graphs": 1.0}}}},
            ["points.many.coordinates.mean_objects: got 3.0", "so has some"],
        ),
        (
            {"points": {"one": {"weights": {"nothing": 1.0}}}, "scale": None},
            ["design.points.one.weights: got 'nothing'", "are graphs, shapes."],
        ),
        (
            {"points": {"base": {"weights": {"graphs": 1.0}}}, "scale": None},
            ["design: got 'base'", "before fine-tuning"],
        ),
    ],
)
def test_a_wrong_one_is_refused(tmp_path: Path, change: dict, named: list[str]):
    with pytest.raises(SpecError) as error:
        load(tmp_path, {**MINIMAL, "design": {**EXPLICIT, **change}})
    for text in named:
        assert text in str(error.value)
