"""The plan and the view of a sweep of arms."""

import io
from pathlib import Path

from rich.console import Console

from mixlens.design import SweepSpec, asked_trials
from mixlens.models.tiny import build_tiny_vlm
from mixlens.spec import load_spec
from mixlens.sweep.plan import plan_sweep
from mixlens.sweep.run import print_plan
from mixlens.sweep.view import SweepView

ROOT = Path(__file__).resolve().parents[3]


def test_the_plan_names_arms_and_gives_each_as_many_images_of_its_own(tmp_path: Path):
    build_tiny_vlm(tmp_path / "model", ["red"], size="test")
    overrides = [f"model={tmp_path / 'model'}", f"runs_dir={tmp_path / 'runs'}"]
    spec = load_spec(SweepSpec, ROOT / "sweeps" / "task_groups.yaml", overrides)
    plan = plan_sweep(spec, time_a_step=False)
    assert len(plan.trials) == 8
    total = spec.training.steps * spec.training.global_batch
    for trial in plan.trials:
        assert plan.examples[trial.name] == {f"{trial.level.id}_data": total}
    out = io.StringIO()
    print_plan(spec, plan, 2, Console(file=out, width=80))
    (line,) = (line for line in out.getvalue().splitlines() if "relational,seed=1" in line)
    assert f"to run │ {total} relational_data" in line


def test_the_view_shows_arms(tmp_path: Path):
    runs = asked_trials(load_spec(SweepSpec, ROOT / "sweeps" / "task_groups.yaml"))
    out = io.StringIO()
    with SweepView(runs, frozenset(), out) as view:
        view.update(runs[-1], "measuring")
    assert out.getvalue().startswith("scene_graph,seed=1 ")
