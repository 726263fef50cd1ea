from pathlib import Path

import pytest

from mixlens.models.tiny import build_tiny_vllm
from mixlens.spec import Layout, SweepSpec, load_spec
from mixlens.sweep.plan import plan_sweep
from mixlens.sweep.records import finish_trial, start_trial

ROOT = Path(__file__).resolve().parents[3]


@pytest.fixture
def spec(tmp_path: Path) -> SweepSpec:
    build_tiny_vllm(tmp_path / "model", ["red"], size="test")
    overrides = [f"model={tmp_path / 'model'}", f"runs_dir={tmp_path / 'runs'}", "seeds=[0]"]
    return load_spec(SweepSpec, ROOT / "sweeps" / "quickstart.yaml", overrides)


def test_plan_counts_examples_parameters_and_what_is_finished(spec: SweepSpec):
    layout, runs = Layout.of(spec), spec.runs()
    start_trial(runs[0], layout.trial(runs[0]))
    start_trial(runs[1], layout.trial(runs[1]))
    finish_trial(runs[1], layout.trial(runs[1]))

    plan = plan_sweep(spec, time_a_step=False)

    assert plan.finished == {runs[1].name}
    assert plan.pending == (runs[0], *runs[2:])
    total = spec.training.steps * spec.training.global_batch
    for run in runs:
        counts = plan.examples[run.name]
        assert sum(counts.values()) == total
        assert counts["complex"] == round(run.ratio * total)
    from transformers import AutoModelForImageTextToText

    model = AutoModelForImageTextToText.from_pretrained(spec.model)
    assert plan.parameters * 1e6 == pytest.approx(sum(p.numel() for p in model.parameters()))
    assert plan.seconds_a_step is None
    assert plan.seconds_a_trial() is None


def test_disk_grows_with_what_is_still_to_run(spec: SweepSpec):
    layout, runs = Layout.of(spec), spec.runs()
    before = plan_sweep(spec, time_a_step=False).disk_bytes
    start_trial(runs[0], layout.trial(runs[0]))
    finish_trial(runs[0], layout.trial(runs[0]))
    assert plan_sweep(spec, time_a_step=False).disk_bytes < before


def test_a_step_is_timed_where_cpus_will_train(spec: SweepSpec):
    assert plan_sweep(spec, time_a_step=True).seconds_a_trial() > 0
    on_gpus = spec.model_copy(
        update={"resources": spec.resources.model_copy(update={"gpus_per_worker": 1.0})}
    )
    assert plan_sweep(on_gpus, time_a_step=True).seconds_a_trial() is None
