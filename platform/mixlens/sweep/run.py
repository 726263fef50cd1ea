"""The whole of a sweep, from its file to the answer, as `jobs/sweep.py` runs it."""

import os
import shlex
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import TypeVar

from rich.console import Console
from rich.table import Table

from mixlens.analysis import answer_sentences, collect_provenance
from mixlens.analysis.transfer_answer import read_answer
from mixlens.analysis.versions import sweep_version_warnings
from mixlens.design import Layout, SweepSpec, asked_trials
from mixlens.design.layout import check_layout
from mixlens.errors import MixlensError
from mixlens.lock import held
from mixlens.measurement import base_of
from mixlens.models import check_model, fingerprint, resolve_model
from mixlens.report import write_report
from mixlens.sources import open_source
from mixlens.spec import MeasureSpec
from mixlens.sweep.indexing import index_data
from mixlens.sweep.known import check_file
from mixlens.sweep.machine import (
    address_of,
    check_engine_room,
    check_reachable,
    check_runs_dir,
    trials_at_once,
)
from mixlens.sweep.plan import (
    Plan,
    check_disk,
    check_evaluation,
    plan_sweep,
    refused_photographs,
)
from mixlens.sweep.quiet import chatter_to
from mixlens.sweep.records import write_json
from mixlens.sweep.view import SweepView
from mixlens.tasks import prompts_digest
from mixlens.tracking import open_writer

MOST_COLUMNS = 3  # of components, in the table of a plan

Resolvable = TypeVar("Resolvable", SweepSpec, MeasureSpec)


def resolve(spec: Resolvable) -> Resolvable:
    """The spec with its base checked, fingerprinted and, where a folder, named absolutely.

    Raises:
        CheckpointError: the base is not there, not whole, or of a family that cannot be used.
    """
    with chatter_to(Path(os.devnull)):
        check_model(spec.model)
    # Workers have other working directories, but a package of their own.
    is_builtin = spec.model.startswith("builtin:")
    model = spec.model if is_builtin else resolve_model(spec.model)
    return spec.model_copy(
        update={
            "model": model,
            "model_fingerprint": fingerprint(spec.model, print),
            "prompts_digest": prompts_digest(),
        },
    )


def show_plan(spec: SweepSpec) -> None:
    """Print what the sweep would do; start nothing, write nothing but indexes of its data sets.

    Raises:
        MixlensError: something that the sweep needs is not there or impossible.
    """
    spec, plan, at_once = _checked(spec, time_a_step=True)
    print_plan(spec, plan, at_once, Console())


def run_sweep(spec: SweepSpec, command: Sequence[str]) -> None:
    """Do what is missing of the sweep, report it, and print the answer.

    Whatever ends it early leaves no MLflow run open.

    Raises:
        MixlensError: before any work, something it needs is not there or impossible, or another
            process works in the sweep's directory; after it, trials that failed, by name. The
            report then holds the others.
    """
    if address := address_of(spec.resources):
        check_reachable(address)
    root = Layout.of(spec).root
    check_runs_dir(root)
    with held(root, command, print):
        _run_sweep(spec, command)


def _run_sweep(spec: SweepSpec, command: Sequence[str]) -> None:
    """The same, once nobody else works in the sweep's directory."""
    spec, plan, _ = _checked(spec, time_a_step=False)
    layout = Layout.of(spec)
    writer = open_writer(spec, layout.root, layout.root.parent)

    log = layout.logs / "ray.log"
    with (
        chatter_to(log) as screen,
        SweepView(plan.trials, plan.finished, screen) as view,
        writer,
    ):
        from mixlens.sweep.driver import ray_running, run_trials

        view.say(f"{spec.name}: starting Ray; its own output goes to {log}")
        with ray_running(spec.resources, layout.root, log, view.say) as capacity:
            at_once = trials_at_once(spec.resources, capacity, len(plan.pending))
            check_engine_room(spec, capacity)
            write_json(layout.sweep_file, spec.model_dump(mode="json"))
            _note_provenance(plan, layout, command)
            for warning in sweep_version_warnings(spec, layout.root):
                view.say(warning)
            writer.start(view.tell)
            view.say(f"{spec.name}: measuring the base, then {len(plan.pending)} trials")
            failed = run_trials(
                spec,
                plan.pending,
                layout,
                at_once,
                lambda trial, stage, metrics: view.update(trial, stage, metrics),
            )
        if len(failed) == len(plan.trials):
            raise _failure(failed, plan, log)
        view.say(f"{spec.name}: writing the report")
        report, tables = write_report(layout.root)
        behind = writer.finish(failed)
    warnings = sweep_version_warnings(spec, layout.root)
    sentences = [*answer_sentences(tables), *read_answer(layout.tables), *warnings]
    print_answer(sentences, report, writer.how_to_look, behind, Console())
    if failed:
        raise _failure(failed, plan, log)


def _checked(spec: SweepSpec, time_a_step: bool) -> tuple[SweepSpec, Plan, int | None]:
    """The resolved spec and its plan, when nothing that can be known now speaks against it.

    And how many trials will run at once; None where only the cluster can tell.
    """
    root = Layout.of(spec).root
    check_runs_dir(root)
    check_layout(root)
    check_file(spec)
    spec = index_data(resolve(spec))
    at_once = None
    with chatter_to(Path(os.devnull)):
        if address_of(spec.resources) is None:
            from mixlens.sweep.driver import this_machine

            at_once = trials_at_once(spec.resources, this_machine(), len(asked_trials(spec)))
        check_evaluation(spec)
        refused = refused_photographs(spec)
        plan = plan_sweep(spec, time_a_step)
    check_disk(plan, root)
    for name, text in refused:
        print(f"components.{name}: {text}", flush=True)
    return spec, plan, at_once


def _note_provenance(plan: Plan, layout: Layout, command: Sequence[str]) -> None:
    """Write down, beside what is about to be made, what it is made with."""
    provenance = collect_provenance(shlex.join(command))
    folders = [layout.trial(trial) for trial in plan.pending]
    base = base_of(plan.spec, layout.root)
    if not base.is_finished():
        folders.append(base.folder)
    if folders:
        folders.append(layout.root)
    for folder in folders:
        provenance.write(folder)


def _failure(failed: dict[str, str], plan: Plan, log: Path) -> MixlensError:
    """Which trials failed, and why."""
    reasons = "\n".join(f"  {name}: {reason}" for name, reason in failed.items())
    return MixlensError(
        f"{len(failed)} of {len(plan.trials)} trials failed:\n{reasons}\n"
        f"The whole story is in {log}. The same command tries them again."
    )


def print_plan(spec: SweepSpec, plan: Plan, at_once: int | None, console: Console) -> None:
    """The resolved plan as tables."""
    training, resources = spec.training, spec.resources
    layout = Layout.of(spec)
    unknown = "unknown: the model is not on this machine"
    table = Table(title=f"{spec.name}: {len(plan.trials)} trials", title_justify="left")
    drawn = {name for trial in plan.trials for name in trial.run.weights}
    names = sorted(drawn) if len(drawn) <= MOST_COLUMNS else []
    table.add_column("trial", no_wrap=True)
    table.add_column("state")
    for column in names or ["examples"]:
        table.add_column(column, justify="right" if names else "left")
    for trial in plan.trials:
        counts = plan.examples[trial.name]
        state = "finished" if trial.name in plan.finished else "to run"
        if state == "to run" and layout.trained(trial):
            state = "to measure"
        # A level has few of many components: these by name, not a column for each.
        listed = ", ".join(f"{count} {name}" for name, count in counts.items() if count)
        cells = [str(counts.get(name, 0)) for name in names] or [listed]
        table.add_row(trial.name, state, *cells)
    console.print(table)
    facts = {
        "base model": f"{spec.model} ("
        + (f"{plan.parameters:.1f} M parameters" if plan.parameters else f"size {unknown}")
        + ")",
        "training": f"{training.steps} steps of {training.global_batch} examples, "
        f"{'LoRA' if training.lora else 'all weights'}, ZeRO-{training.zero_stage}, "
        f"{training.precision}",
        "held out": f"{spec.evaluation.examples} images of {spec.evaluation.component!r}",
        "a trial takes": f"{resources.workers} workers x "
        f"({resources.cpus_per_worker:g} CPU, {resources.gpus_per_worker:g} GPU)",
        "measurement": f"{resources.actors} actors x ({resources.cpus_per_actor:g} CPU, "
        f"{resources.gpus_per_actor:g} GPU), shared by all trials",
        "at once": f"{at_once} trials on this machine"
        if at_once
        else f"as many trials as the cluster has room for (up to "
        f"{resources.max_concurrent_trials or 'all'})",
        "time": _time(plan),
        "disk": f"at most {plan.disk_bytes / 1e9:.1f} GB in {Layout.of(spec).root}"
        if plan.disk_bytes
        else unknown,
    }
    lines = [*facts.items(), *_photographs(spec), *plan.cost]
    width = max(14, *(len(name) for name, _ in lines))
    for name, fact in lines:
        console.print(f"{name:{width}} {fact}", markup=False, highlight=False, soft_wrap=True)


def _photographs(spec: SweepSpec) -> Iterator[tuple[str, str]]:
    """What there is of each component that takes images from a data set."""
    for name, component in spec.components.items():
        if component.data_set is not None:
            source = open_source(name, component, spec.data)
            yield name, f"{source.size:,} images to train on, {source.held_out_size:,} held out"


def _time(plan: Plan) -> str:
    seconds = plan.seconds_a_trial()
    if seconds is None:
        reason = "train on GPUs" if plan.parameters else "start from a model not on this machine"
        return f"not estimated: the trials {reason}"
    total = seconds * len(plan.pending)
    return (
        f"about {seconds:.0f} s of one core a trial and {total / 60:.0f} core minutes in all, by "
        "one step timed here just now; starting and stopping trials comes on top"
    )


def print_answer(
    sentences: Sequence[str], report: Path, mlflow: str, behind: str, console: Console
) -> None:
    """Print what the person came for.

    Args:
        sentences: the answer.
        report: the page.
        mlflow: where the runs can be looked at.
        behind: what MLflow does not have yet; empty if it has everything.
        console: to print to.
    """
    console.print()
    for sentence in sentences:
        console.print(sentence, markup=False, highlight=False)
    console.print()
    for line in (f"report   {report}", f"MLflow   {mlflow}", *behind.splitlines()):
        console.print(line, markup=False, highlight=False, soft_wrap=True)
