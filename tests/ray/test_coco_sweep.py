"""Scenes and photographs in one sweep, as a person with a COCO folder starts it."""

import os
import subprocess
import sys
from pathlib import Path

import pandas as pd
import pyarrow.parquet as pq
import pytest
from mlflow import MlflowClient

from mixlens.design import Layout, SweepSpec, held_trials
from mixlens.measurement import base_of, load
from mixlens.models.tiny import build_tiny_vlm
from mixlens.spec import load_spec
from mixlens.tasks import vocabulary

pytestmark = [pytest.mark.ray, pytest.mark.slow, pytest.mark.timeout(1800)]

ROOT = Path(__file__).resolve().parents[2]
FILE = "sweeps/coco_mix.yaml"
SMALL = [  # what makes the shipped file small enough for a test
    "design.ratios=[0.5,1]",
    "seeds=[0]",
    "training.steps=4",
    "training.global_batch=8",
    "training.micro_batch=8",
    "training.warmup_steps=1",
    "training.log_every=1",
    "training.checkpoint_every=2",
    "evaluation.examples=24",
    "evaluation.batch_size=12",
    "evaluation.max_new_tokens=4",
    "data.coco.max_left_out=0.9",  # most of the data set is damaged on purpose
]


def test_ratios_of_scenes_and_photographs_end_in_one_report(coco_set, tmp_path: Path):
    base, runs = tmp_path / "base", tmp_path / "runs"
    base.mkdir()
    build_tiny_vlm(base, vocabulary(), size="test")
    overrides = [f"data.coco.root={coco_set.root}", f"model={base}", f"runs_dir={runs}", *SMALL]
    kept = {name: value for name, value in os.environ.items() if not name.startswith("RAY_")}
    done = subprocess.run(
        [sys.executable, "jobs/sweep.py", FILE, *overrides], cwd=ROOT, capture_output=True,
        text=True, timeout=900,
        env={**kept, "RAY_AUTH_MODE": "disabled", "RAY_worker_niceness": "0"},
    )  # fmt: skip
    assert done.returncode == 0, done.stderr

    said = " ".join(done.stdout.split())
    assert "correlations of the redundancy score" in said  # do trends hold on scenes too?

    root = runs / "coco_mix"
    tables = {file.stem: pd.read_parquet(file) for file in (root / "tables").glob("*.parquet")}
    accuracy = tables["accuracy"].dropna(subset=["value"])
    assert set(accuracy["run"]) == {f"ratio={r},seed=0" for r in ("0.5", "1")} | {"base"}
    assert {"coarse", "relational", "count", "locate"} <= set(accuracy["group"])

    # Every trial drew exactly its shares of scenes, photographs and captions.
    trials = held_trials(load_spec(SweepSpec, root / "sweep.json"), Layout(root))
    assert [trial.level.coordinates["ratio"] for trial in trials] == [0.5, 1.0]
    for trial in trials:
        drawn = pd.read_parquet(Layout(root).trial(trial) / "mixture.parquet").set_index("step")
        assert set(drawn) - {"trained_on"} == set(trial.run.weights)
        for name, weight in trial.level.weights.items():
            if weight:
                assert (abs(drawn[name] - weight * 8 * drawn.index) < 1).all()

    # The figures of the study on photographs: correlations, probes, and what holds on both.
    probes = load(base_of(load_spec(SweepSpec, root / "sweep.json"), root)).probes
    assert "dominant_supercategory" in set(probes["attribute"])
    transfer = tables["transfer"]
    assert {"object_count", "shape_diversity", "covered_fraction"} <= set(transfer["attribute"])
    assert "category_diversity" in set(transfer["attribute_there"])  # on photographs
    known = transfer.dropna(subset=["rho", "rho_there"])
    assert len(known) > 20
    assert known["rho"].between(-1, 1).all()
    assert (known["low"] <= known["rho"]).all()
    page = (root / "report.html").read_text()
    for told in ("On photographs and scenes", "left out", "truncated"):
        assert told in page

    # What was left out is in the index, and in MLflow.
    (index,) = (runs / "indexes").iterdir()
    left_out = pq.read_table(index / "left_out.parquet").to_pylist()
    assert len(left_out) >= len(coco_set.expected) > 20
    client = MlflowClient(f"sqlite:///{runs / 'mlflow.db'}")
    (experiment,) = (e for e in client.search_experiments() if e.name == "mixlens")
    (parent,) = (
        run
        for run in client.search_runs([experiment.experiment_id])
        if "mlflow.parentRunId" not in run.data.tags
    )
    kept = {artifact.path for artifact in client.list_artifacts(parent.info.run_id, "data/coco")}
    assert "data/coco/left_out.parquet" in kept
