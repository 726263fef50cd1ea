"""The page of a sweep of arms: its tables against the tables on disk, and its figures."""

import re
from dataclasses import replace
from pathlib import Path

import pandas as pd
import pytest
from fake_sweep import FakeSweep

from mixlens.analysis import answer_sentences, build_tables, load_sweep
from mixlens.analysis.results import SweepResults
from mixlens.analysis.tables import Tables
from mixlens.report import write_report
from mixlens.report.captions import caveats
from mixlens.report.examples import compared_models
from mixlens.report.grids import accuracy_grid, effects_grid, pairs_grid

pytestmark = pytest.mark.slow

GROUPS = ("coarse", "attribute", "relational", "scene_graph")
ARMS = tuple(zip(GROUPS, (0.0, 0.4, 0.7, 1.0), strict=True))
SMALL = FakeSweep(arms=ARMS, groups=GROUPS, images=24, layers=6, steps=20)


@pytest.fixture(scope="module")
def sweep(tmp_path_factory: pytest.TempPathFactory) -> SweepResults:
    return load_sweep(SMALL.write(tmp_path_factory.mktemp("runs")))


@pytest.fixture(scope="module")
def tables(sweep: SweepResults) -> Tables:
    return build_tables(sweep)


@pytest.fixture(scope="module")
def text(sweep: SweepResults) -> str:
    path, _ = write_report(sweep.folder)
    return " ".join(re.sub(r"<[^>]*>", " ", path.read_text().split("<main>")[1]).split())


def _value(tables: Tables, run: str, subject: str, metric: str, part: str) -> str:
    rows = tables.sweep.set_index(["level", "subject", "metric", "part"]).sort_index()
    row = rows.loc[[(run, subject, metric, part)]].iloc[0]
    # Planted redundancy has intervals of 0.01 to 0.1, which take three or four decimals.
    digits = 4 if metric.startswith("redundancy") and row["high"] - row["low"] < 0.01 else 3
    return f"{row['value']:.{digits}f}\n[{row['low']:.{digits}f}, {row['high']:.{digits}f}]"


def test_the_page_answers_shows_and_tabulates(
    sweep: SweepResults, tables: Tables, text: str
) -> None:
    for sentence in answer_sentences(tables):
        assert " ".join(sentence.split()) in text
    figures = {file.stem for file in (sweep.folder / "figures").glob("*.svg")}
    assert figures >= {
        "redundancy", "accuracy", "layers", "tradeoff", "token_metrics", "training",
    }  # fmt: skip
    assert "sufficiency" not in figures
    assert "What the arms did" in text
    arm = "scene_graph_data: scenes of 3 to 6 objects; turns an image: 1 scene-graph"
    assert f"Arm scene_graph {arm}" in text
    assert "on what it was trained on" in text
    result = text.split("Recipe")[0]
    assert not re.search(r"hare of complex data|\bratios\b|\bratio \d|\bnan\b", result)


def test_accuracy_is_starred_where_a_level_was_trained_on_the_group(
    sweep: SweepResults, tables: Tables
) -> None:
    grid = accuracy_grid(sweep, tables)
    assert grid.head == (
        "", "coarse", "attribute", "relational", "scene graph, object F1", "simple, mean",
        "complex, mean", "mean of all", "on what it was trained on",
    )  # fmt: skip
    rows = {row[0]: row[1:] for row in grid.rows}
    assert list(rows) == ["base model", *GROUPS]
    starred = [["*" in cell for cell in row[:4]] for row in rows.values()]
    assert starred == [[False] * 4] + [[row == column for column in range(4)] for row in range(4)]
    assert rows["base model"][-1] == "–"
    for arm in GROUPS:
        metric = "object_f1" if arm == "scene_graph" else "exact"
        assert rows[arm][-1] == _value(tables, arm, arm, metric, "")
        assert rows[arm][-2] == _value(tables, arm, "all", "accuracy", "")
        assert rows[arm][GROUPS.index(arm)].replace("\u00a0*", "") == rows[arm][-1]
    assert rows["attribute"][2] == _value(tables, "attribute", "relational", "exact", "")


def test_pairs_are_starred_by_their_common_interval(tables: Tables) -> None:
    grid = pairs_grid(tables)
    assert [row[0] for row in grid.rows][:2] == ["attribute − coarse", "relational − coarse"]
    assert len(grid.rows) == 6
    effects = tables.effects
    column = grid.head.index("visual redundancy")
    for row in grid.rows:
        end, start = row[0].split(" − ")
        (found,) = effects[
            (effects["contrast"] == "pair")
            & (effects["level_to"] == end)
            & (effects["level_from"] == start)
            & (effects["metric"] == "redundancy_score")
            & (effects["subject"] == "visual")
            & (effects["part"] == "mean")
        ].to_dict("records")
        cell = row[column]
        assert cell.startswith(f"{found['value']:+.3f}".replace("-", "−"))
        assert ("*" in cell) == (found["low"] > 0 or found["high"] < 0)
    assert {"*" in row[column] for row in grid.rows} == {True, False}


def test_trend_and_difference_have_verdicts_of_their_own(tables: Tables) -> None:
    grid = effects_grid(tables)
    assert grid.head[1:] == ("Last − first arm", "Trend, per arm", "Difference is", "Trend is")
    rows = {row[0]: row for row in grid.rows}
    assert rows["visual redundancy"][3:] == ("beyond noise", "beyond noise")
    assert rows["text redundancy"][3:] == ("within noise", "within noise")


def test_the_examples_compare_the_ends_of_the_arms(sweep: SweepResults) -> None:
    assert [run.name for run in compared_models(sweep)] == [
        "base", "coarse,seed=0", "scene_graph,seed=0",
    ]  # fmt: skip


def test_caveats_say_what_differs_between_the_arms(
    sweep: SweepResults, tables: Tables, tmp_path: Path
) -> None:
    notes = " ".join(caveats(sweep, tables))
    assert "whose answers differ in length" in notes
    assert "same images in the same order" in notes
    assert "hold for all pairs at once" in notes
    assert "fine-tuned for 20 steps" in notes
    # The study's numbers are cited for its four groups in its order, and for nothing else.
    assert "coarse 0.78, attribute 0.62, relational 0.48, scene-graph 0.35" in notes
    turned = load_sweep(replace(SMALL, arms=ARMS[::-1]).write(tmp_path))
    assert "0.78" not in " ".join(caveats(turned, build_tables(turned)))
    coarse = sweep.spec.components["coarse_data"]
    components = sweep.spec.components | {"coarse_data": coarse.model_copy(update={"seed": 9})}
    other = sweep.spec.model_copy(update={"components": components})
    assert "train on different images" in " ".join(caveats(replace(sweep, spec=other), tables))


@pytest.mark.parametrize(
    "fake",
    [
        replace(SMALL, unfinished=7),
        replace(SMALL, seeds=(0,), layers=1, groups=("coarse",)),
        replace(SMALL, arms=(("coarse-count", 0.0), ("pair", 1.0)), groups=("coarse", "count")),
    ],
    ids=["one run", "one seed, layer and group", "arms of several and of unasked groups"],
)
def test_smaller_sweeps_of_arms_have_a_report_too(fake: FakeSweep, tmp_path: Path) -> None:
    path, tables = write_report(fake.write(tmp_path))
    page = path.read_text().split("Recipe")[0]
    assert not re.search(r"\bnan\b", re.sub(r"data:[^\"]*", "", page), re.IGNORECASE)
    assert "What the arms did" in page
    assert isinstance(tables.effects, pd.DataFrame)
    if len(fake.arms) == 2:
        grid = accuracy_grid(load_sweep(path.parent), tables)
        own = {row[0]: row[-1] for row in grid.rows}
        assert own["coarse-count"] == _value(tables, "coarse-count", "coarse+count", "accuracy", "")
        assert own["pair"] == "–"
