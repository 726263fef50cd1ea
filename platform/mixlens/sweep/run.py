"""The whole of a sweep, from its file to the answer, as `jobs/sweep.py` runs it."""

import os
import shlex
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.table import Table

from mixlens.analysis import answer_sentences, collect_provenance, load_run, read_provenance
from mixlens.errors import MixlensError, ResourceError
from mixlens.models import fingerprint
from mixlens.report import write_report
from mixlens.spec import Layout, RunSpec, SweepSpec
from mixlens.sweep.plan import Plan, check_disk, plan_sweep
from mixlens.sweep.quiet import chatter_to
from mixlens.sweep.records import write_json
from mixlens.sweep.view import SweepView
from mixlens.tracking import TrackedRun, log_run, log_sweep, open_tracker
from mixlens.tracking.results import headline


def resolve(spec: SweepSpec) -> SweepSpec:
    """The spec with its base checked, fingerprinted and, where a folder, named absolutely."""
    mark = fingerprint(spec.model)
    folder = Path(spec.model).expanduser()
    # Workers have other working directories.
    model = str(folder.resolve()) if folder.is_dir() else spec.model
    return spec.model_copy(update={"model": model, "model_fingerprint": mark})


def show_plan(spec: SweepSpec) -> None:
    """Print what the sweep would do; start nothing, write nothing."""
    spec = resolve(spec)
    with chatter_to(Path(os.devnull)):
        plan = plan_sweep(spec, time_a_step=True)
    check_disk(plan, Layout.of(spec).root)
    print_plan(spec, plan, Console())


def run_sweep(spec: SweepSpec, command: Sequence[str]) -> None:
    """Do what is missing of the sweep, report it, and print the answer.

    Raises:
        MixlensError: before any work, something it needs is not there or impossible; after it,
            trials that failed, by name. The report then holds the others.
    """
    spec = resolve(spec)
    layout = Layout.of(spec)
    plan = plan_sweep(spec, time_a_step=False)
    check_disk(plan, layout.root)
    tracker = open_tracker(spec, layout.root.parent)
    layout.root.mkdir(parents=True, exist_ok=True)
    write_json(layout.sweep_file, spec.model_dump(mode="json"))
    _note_provenance(plan, layout, command)

    log = layout.logs / "ray.log"
    with chatter_to(log) as screen:
        from mixlens.sweep.driver import ray_running, run_trials

        parent = tracker.sweep(spec, layout.root)
        tracked = {run.name: tracker.trial(run, layout.trial(run), parent) for run in plan.runs}
        with SweepView(plan.runs, plan.finished, screen) as view:
            watcher = _Watcher(plan.runs, layout, tracked, view)
            view.say(f"{spec.name}: starting Ray; its own output goes to {log}")
            with ray_running(spec.resources, log):
                view.say(f"{spec.name}: measuring the base, then {len(plan.pending)} trials")
                failed = run_trials(plan.runs, layout, watcher)
            if len(failed) == len(plan.runs):
                raise _failure(failed, plan, log)
            view.say(f"{spec.name}: writing the report")
            report, tables = write_report(layout.root)
        # Also what an earlier start had trained but not yet logged.
        for run in plan.runs:
            if run.name not in failed:
                log_run(tracked[run.name], load_run(layout.trial(run), run))
            tracked[run.name].finish("FAILED" if run.name in failed else "FINISHED")
        base = tracker.base(spec, layout.base(plan.runs[0]), parent)
        log_run(base, load_run(layout.base(plan.runs[0]), None))
        base.finish()
        log_sweep(parent, tables, answer_sentences(tables), layout.root)
        parent.finish("FAILED" if failed else "FINISHED")
    print_answer(spec, answer_sentences(tables), report, tracker.uri, Console())
    if failed:
        raise _failure(failed, plan, log)


def _note_provenance(plan: Plan, layout: Layout, command: Sequence[str]) -> None:
    """Write down, beside what is about to be made, what it is made with."""
    provenance = collect_provenance(shlex.join(command))
    folders = [layout.trial(run) for run in plan.pending]
    base = layout.base(plan.runs[0])
    if read_provenance(base) is None:
        folders.append(base)
    if folders:
        folders.append(layout.root)
    for folder in folders:
        provenance.write(folder)


def _failure(failed: dict[str, str], plan: Plan, log: Path) -> MixlensError:
    """Which trials failed, and why."""
    reasons = "\n".join(f"  {name}: {reason}" for name, reason in failed.items())
    return MixlensError(
        f"{len(failed)} of {len(plan.runs)} trials failed:\n{reasons}\n"
        f"The whole story is in {log}. The same command tries them again."
    )


class _Watcher:
    """Tells the view and MLflow what trials report."""

    def __init__(
        self,
        runs: Sequence[RunSpec],
        layout: Layout,
        tracked: dict[str, TrackedRun],
        view: SweepView,
    ) -> None:
        self._runs = {run.name: run for run in runs}
        self._layout, self._tracked, self._view = layout, tracked, view

    def __call__(self, name: str, stage: str, metrics: dict[str, Any]) -> None:
        run, tracked = self._runs[name], self._tracked[name]
        shown = dict(metrics)
        if stage == "training" and "loss" in metrics:
            try:
                tracked.log_training([metrics])
            except ResourceError as error:  # nothing is lost: the whole log follows at the end
                self._view.say(f"MLflow: {error}")
        elif stage == "done":
            shown |= headline(load_run(self._layout.trial(run), run))
        self._view.update(name, stage, shown)


def print_plan(spec: SweepSpec, plan: Plan, console: Console) -> None:
    """The resolved plan as tables."""
    training = spec.training
    table = Table(title=f"{spec.name}: {len(plan.runs)} trials", title_justify="left")
    for column in ("trial", "state", *(f"{name}" for name in sorted(spec.components))):
        table.add_column(column, justify="left" if column in ("trial", "state") else "right")
    for run in plan.runs:
        counts = plan.examples[run.name]
        state = "finished" if run.name in plan.finished else "to run"
        cells = [str(counts.get(name, 0)) for name in sorted(spec.components)]
        table.add_row(run.name, state, *cells)
    console.print(table)
    facts = {
        "base model": f"{spec.model} ({plan.parameters:.1f} M parameters)"
        if plan.parameters
        else f"{spec.model} (not on this machine: size unknown)",
        "training": f"{training.steps} steps of {training.global_batch} examples, "
        f"{'LoRA' if training.lora else 'all weights'}, ZeRO-{training.zero_stage}, "
        f"{training.precision}",
        "held out": f"{spec.evaluation.examples} images of {spec.evaluation.component!r}",
        "a trial takes": f"{spec.resources.workers} workers x "
        f"({spec.resources.cpus_per_worker:g} CPU, {spec.resources.gpus_per_worker:g} GPU)",
        "time": _time(plan),
        "disk": f"at most {plan.disk_bytes / 1e9:.1f} GB in {Layout.of(spec).root}",
    }
    for name, fact in facts.items():
        console.print(f"{name:14} {fact}", markup=False, highlight=False, soft_wrap=True)


def _time(plan: Plan) -> str:
    seconds = plan.seconds_a_trial()
    if seconds is None:
        return "not estimated: the trials train on GPUs, and this is not one"
    total = seconds * len(plan.pending)
    return (
        f"about {seconds:.0f} s of one core a trial and {total / 60:.0f} core minutes in all, by "
        "one step timed here just now; starting and stopping trials comes on top"
    )


def print_answer(
    spec: SweepSpec, sentences: Sequence[str], report: Path, uri: str, console: Console
) -> None:
    """What the person came for."""
    console.print()
    for sentence in sentences:
        console.print(sentence, markup=False, highlight=False)
    console.print()
    console.print(f"report   {report}", markup=False, highlight=False, soft_wrap=True)
    mlflow = Path(sys.executable).parent / "mlflow"
    view = uri if uri.startswith("http") else f"{mlflow} ui --backend-store-uri {uri}"
    console.print(f"MLflow   {view}", markup=False, highlight=False, soft_wrap=True)
