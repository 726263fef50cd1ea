import io
import shutil
from pathlib import Path

import pandas as pd
import pytest
from here import Here
from rich.console import Console

from mixlens.activations.subspaces import FOLDER
from mixlens.design import Layout, SweepSpec, Trial, asked_trials
from mixlens.measurement import Asked, Measurement, Subject, measure, trial_of
from mixlens.models.tiny import build_tiny_vlm
from mixlens.spec import held_out_of, load_spec
from mixlens.sweep.plan import check_disk, plan_sweep
from mixlens.sweep.records import start_trial
from mixlens.sweep.run import print_plan

ROOT = Path(__file__).resolve().parents[3]


@pytest.fixture
def spec(tmp_path: Path) -> SweepSpec:
    build_tiny_vlm(tmp_path / "model", ["red"], size="test")
    overrides = [f"model={tmp_path / 'model'}", f"runs_dir={tmp_path / 'runs'}", "seeds=[0]"]
    return load_spec(SweepSpec, ROOT / "sweeps" / "quickstart.yaml", overrides)


def finish(spec: SweepSpec, layout: Layout, trial: Trial) -> None:
    """Leave what says that a trial is trained and measured."""
    start_trial(trial, layout.trial(trial))
    (layout.trial(trial) / "trained.json").touch()
    measurement = trial_of(spec, layout.root, trial)
    names = spec.evaluation.probes.attributes
    for request in [*measurement.requests(), *measurement.asked.probings(names)]:
        measurement.part(request).mkdir(parents=True)
        measurement.record(request).touch()
    facts = pd.DataFrame({"example_id": ["held_out/1"], **{name: [1.0] for name in names}})
    facts.to_parquet(measurement.part(measurement.tokens) / "attributes.parquet")


def test_plan_counts_examples_parameters_and_what_is_finished(spec: SweepSpec):
    layout, trials = Layout.of(spec), asked_trials(spec)
    start_trial(trials[0], layout.trial(trials[0]))
    finish(spec, layout, trials[1])

    plan = plan_sweep(spec, time_a_step=False)

    assert plan.finished == {trials[1].name}
    assert plan.pending == (trials[0], *trials[2:])
    total = spec.training.steps * spec.training.global_batch
    for trial in trials:
        counts = plan.examples[trial.name]
        assert sum(counts.values()) == total
        assert counts.get("complex", 0) == round(trial.level.coordinates["ratio"] * total)
    from transformers import AutoModelForImageTextToText

    model = AutoModelForImageTextToText.from_pretrained(spec.model)
    assert plan.parameters * 1e6 == pytest.approx(sum(p.numel() for p in model.parameters()))
    assert plan.seconds_a_step is None
    assert plan.seconds_a_trial() is None


def test_disk_grows_with_what_is_still_to_run(spec: SweepSpec):
    before = plan_sweep(spec, time_a_step=False).disk_bytes
    finish(spec, Layout.of(spec), asked_trials(spec)[0])
    assert plan_sweep(spec, time_a_step=False).disk_bytes < before


def test_a_step_is_timed_where_cpus_will_train(spec: SweepSpec):
    assert plan_sweep(spec, time_a_step=True).seconds_a_trial() > 0
    on_gpus = spec.model_copy(
        update={"resources": spec.resources.model_copy(update={"gpus_per_worker": 1.0})}
    )
    assert plan_sweep(on_gpus, time_a_step=True).seconds_a_trial() is None


def test_the_estimate_covers_the_subspaces_that_a_measurement_writes(
    spec: SweepSpec, tmp_path: Path
):
    images = 64
    held_out = held_out_of(spec).model_copy(update={"examples": images})
    base = Measurement(tmp_path, Subject("base", spec.model, "0123"), held_out, Asked())
    measure(Here(), base)
    written = sum(file.stat().st_size for file in (base.part(base.tokens) / FOLDER).iterdir())

    def estimate(images: int) -> int:
        evaluation = spec.evaluation.model_copy(update={"examples": images})
        plan = plan_sweep(spec.model_copy(update={"evaluation": evaluation}), time_a_step=False)
        return plan.disk_bytes or 0

    assert estimate(1000 + images) - estimate(1000) == pytest.approx(written, rel=0.1)


def test_of_a_hub_model_that_is_not_here_size_and_time_are_unknown(
    spec: SweepSpec, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    repository = tmp_path / "hub" / "models--some--model"
    snapshot = repository / "snapshots" / "0123"
    shutil.copytree(spec.model, snapshot)
    (repository / "refs").mkdir()
    (repository / "refs" / "main").write_text("0123")
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(tmp_path / "hub"))
    monkeypatch.setattr("transformers.utils.hub.constants.HF_HUB_CACHE", str(tmp_path / "hub"))
    on_hub = spec.model_copy(update={"model": "some/model"})
    here = plan_sweep(on_hub, time_a_step=False)
    assert here.parameters == plan_sweep(spec, time_a_step=False).parameters

    (snapshot / "model.safetensors").unlink()  # only its configuration was fetched
    plan = plan_sweep(on_hub, time_a_step=True)
    assert (plan.parameters, plan.disk_bytes, plan.seconds_a_step) == (None, None, None)
    check_disk(plan, tmp_path)
    out = io.StringIO()
    print_plan(on_hub, plan, None, Console(file=out, width=200))
    told = " ".join(out.getvalue().split())
    for line in ("base model some/model (size unknown", "disk unknown: the model is"):
        assert line in told
