"""The page: what stands on it, that it needs nothing else, and the shapes a sweep can have."""

import os
import re
import subprocess
import sys
from dataclasses import replace
from html.parser import HTMLParser
from pathlib import Path

import pandas as pd
import pytest
from fake_parts import table_file
from fake_sweep import FakeSweep
from job_inside import run_inside

from mixlens.analysis import answer_sentences, build_tables, collect_provenance, load_sweep
from mixlens.measurement import base_of
from mixlens.report import write_report
from mixlens.report.examples import show_examples
from mixlens.report.html import render
from mixlens.report.inside import inside_tables

pytestmark = pytest.mark.slow

ROOT = Path(__file__).parents[3]
SMALL = FakeSweep(ratios=(0.0, 0.5, 1.0), images=24, layers=6, steps=20)
FIGURES = {
    "redundancy", "accuracy", "sufficiency", "layers", "tradeoff", "token_metrics", "training",
    "count", "correlations",
}  # fmt: skip


class _Page(HTMLParser):
    """Text, links and tags of a page, and whether every tag is closed."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.text, self.links, self.open = "", [], []
        self.counts: dict[str, int] = {}
        self.feed(text)
        self.close()
        self.text = " ".join(self.text.split())

    def handle_starttag(self, tag: str, attributes: list[tuple[str, str | None]]) -> None:
        self.counts[tag] = self.counts.get(tag, 0) + 1
        self.links += [value for name, value in attributes if name in ("src", "href")]
        if tag not in ("meta", "img", "link", "br"):
            self.open.append(tag)

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag

    def handle_data(self, data: str) -> None:
        if self.open and self.open[-1] not in ("style", "script"):
            self.text += data


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return SMALL.write(tmp_path_factory.mktemp("runs"))


@pytest.fixture(scope="module")
def page(folder: Path) -> _Page:
    made_with = collect_provenance("python jobs/sweep.py 'my sweep.yaml' 'seeds=[0,1]'")
    made_with.write(folder)
    replace(made_with, commit="", source="0123456789abcdef").write(
        load_sweep(folder).trials[0].folder
    )
    path, _ = write_report(folder)
    assert path == folder / "report.html"
    return _Page(path.read_text())


def _page_of(fake: FakeSweep, runs_dir: Path) -> _Page:
    return _Page(write_report(fake.write(runs_dir))[0].read_text())


def test_the_answer_stands_first(folder: Path, page: _Page) -> None:
    tables = build_tables(load_sweep(folder))
    for sentence in answer_sentences(tables):
        assert " ".join(sentence.split()) in page.text
    assert page.text.index("Raising the share") < page.text.index("Figure 1")


def test_it_needs_nothing_else(folder: Path, page: _Page) -> None:
    assert page.open == []
    assert page.links
    assert all(link.startswith("data:") for link in page.links)
    text = (folder / "report.html").read_text()
    assert not re.search(r"@import|<script|url\(", text)
    assert page.counts["h1"] == 1


def test_figures_tables_and_examples_are_there(folder: Path, page: _Page) -> None:
    assert {file.stem for file in (folder / "figures").glob("*.svg")} == FIGURES
    assert page.counts["img"] == len(FIGURES) + 4
    for place in range(1, len(FIGURES) + 1):
        assert f"Figure {place}." in page.text
    assert "n = 24" in page.text
    base = pd.read_parquet(folder / "tables" / "sweep.parquet")
    row = base[(base["level"] == "base") & (base["subject"] == "relational")].iloc[0]
    assert f"{row['value']:.3f} [{row['low']:.3f}, {row['high']:.3f}]" in page.text


def test_the_recipe_says_how_to_make_it_again(folder: Path, page: _Page) -> None:
    sweep = load_sweep(folder)
    assert "python jobs/sweep.py 'my sweep.yaml' 'seeds=[0,1]'" in page.text
    assert sweep.spec.digest() in page.text
    for trial in sweep.trials:
        assert trial.trial is not None
        assert trial.trial.run.digest() in page.text
    assert re.search(r"prompts\.yaml, SHA-256 [0-9a-f]{16}", page.text)
    assert "torch 2." in page.text
    assert "holds no provenance.json" not in page.text
    # A trial keeps the code that trained it, whatever the code of the last start was.
    assert f"{sweep.trials[0].name} source 0123456789abcdef" in page.text
    assert f"{sweep.trials[1].name} code not recorded" in page.text


def test_examples_are_shown_with_the_answers_that_were_given(folder: Path) -> None:
    sweep = load_sweep(folder)
    shown = show_examples(sweep)
    assert len({example.example_id for example in shown}) == 4
    highest = next(trial for trial in sweep.trials if trial.level == "ratio=1" and trial.seed == 0)
    for example in shown:
        assert example.image.startswith("data:image/png;base64,")
        for asked in example.asked:
            rows = highest.examples
            rows = rows[(rows["example_id"] == example.example_id) & (rows["group"] == asked.group)]
            assert asked.replies[2].text == rows["response"].iloc[0]
            assert asked.replies[2].is_right == (rows["relaxed"].iloc[0] == 1)
            graph = asked.group == "scene_graph"
            expected = f"object F1 {rows['object_f1'].iloc[0]:.2f}" if graph else ""
            assert asked.replies[2].note == expected
    pictures = {example.image for example in shown}
    assert len(pictures) == 4


def test_what_a_model_answers_is_not_html(tmp_path: Path) -> None:
    folder = SMALL.write(tmp_path)
    file = table_file(base_of(SMALL.spec(tmp_path), folder), "examples")
    table = pd.read_parquet(file)
    table["response"] = "<script>alert(1)</script>"
    table.to_parquet(file)
    sweep = load_sweep(folder)
    text = render(sweep, build_tables(sweep), inside_tables(sweep), {})
    assert "<script>" not in text
    assert "&lt;script&gt;alert(1)" in text


def test_an_unfinished_sweep_says_so(tmp_path: Path) -> None:
    sweep = load_sweep(replace(SMALL, unfinished=2).write(tmp_path))
    page = _Page(render(sweep, build_tables(sweep), inside_tables(sweep), {}))
    assert "Not finished yet" in page.text
    assert "ratio=1,seed=0; ratio=1,seed=1" in page.text
    assert "4 of 6 finished" in page.text
    assert "holds no provenance.json" in page.text


@pytest.mark.parametrize(
    "fake",
    [
        replace(SMALL, ratios=(0.5,), seeds=(0,)),
        replace(SMALL, seeds=(0,), layers=1, groups=("coarse",)),
    ],
    ids=["one run", "one seed, layer and task group"],
)
def test_smaller_sweeps_have_a_report_too(fake: FakeSweep, tmp_path: Path) -> None:
    page = _page_of(fake, tmp_path)
    assert page.open == []
    assert not re.search(r"\bnan\b", page.text.split("Recipe")[0], re.IGNORECASE)
    assert page.counts["img"] >= 7


def test_the_job_rebuilds_the_same_page_and_refuses_other_folders(
    folder: Path,
    page: _Page,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capfd: pytest.CaptureFixture[str],
) -> None:
    before = (folder / "report.html").read_bytes()
    (folder / "report.html").unlink()
    done = subprocess.run(
        [sys.executable, str(ROOT / "jobs" / "report.py"), str(folder)],
        capture_output=True, text=True, check=False, cwd=tmp_path,
        env={**os.environ, "OMP_NUM_THREADS": "1"},
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    assert done.stdout.strip() == str(folder / "report.html")
    assert (folder / "report.html").read_bytes() == before
    monkeypatch.chdir(tmp_path)
    wrong = run_inside(monkeypatch, capfd, "report.py", "nowhere")
    assert wrong.returncode == 2
    assert wrong.stderr.startswith("error: run directory: got ")
    assert "Traceback" not in wrong.stderr


@pytest.mark.case
def test_results_of_different_versions_are_named_beside_the_answer(tmp_path: Path) -> None:
    folder = SMALL.write(tmp_path)
    made_with, sweep = collect_provenance("a command"), load_sweep(folder)
    older = replace(made_with, packages=made_with.packages | {"transformers": "5.1.0"})
    older.write(base_of(sweep.spec, folder).folder)
    for trial in sweep.trials:
        made_with.write(trial.folder)
    page = _Page(write_report(folder)[0].read_text())
    now = made_with.packages["transformers"]
    assert "Results were made with different versions" in page.text
    assert f"transformers 5.1.0 (the base) and {now} ({sweep.trials[0].name}" in page.text
