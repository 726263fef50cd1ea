"""The measurement of one model, from its file to the diagnosis, as `jobs/measure.py` runs it."""

from collections.abc import Sequence
from pathlib import Path

from rich.console import Console

from mixlens.analysis import collect_provenance
from mixlens.analysis.versions import measure_version_warnings
from mixlens.errors import ResourceError, explain
from mixlens.lock import held
from mixlens.measurement import controls_of, measure, model_of, other_of
from mixlens.measurement.measure import Pool
from mixlens.measurement.measurement import TWIN_SEED, TWINS
from mixlens.models.twin import random_twin
from mixlens.report.measured import report_model
from mixlens.spec import MeasureSpec, ResourceSpec
from mixlens.sweep.indexing import index_data
from mixlens.sweep.known import check_file
from mixlens.sweep.machine import (
    Capacity,
    address_of,
    check_engine_room,
    check_reachable,
    check_runs_dir,
)
from mixlens.sweep.plan import check_evaluation, refused_photographs
from mixlens.sweep.progress import StageView
from mixlens.sweep.quiet import chatter_to
from mixlens.sweep.records import write_json
from mixlens.sweep.run import print_answer, resolve
from mixlens.tracking import open_writer


def run_measure(spec: MeasureSpec, command: Sequence[str]) -> None:
    """Measure what is missing of a model and its controls, report it, and print the diagnosis.

    Whatever ends it early leaves no MLflow run open.

    Raises:
        MixlensError: before any work, something it needs is not there or impossible; or what went
            wrong in it.
    """
    if address := address_of(spec.resources):
        check_reachable(address)
    check_runs_dir(Path(spec.runs_dir).expanduser().absolute())
    check_file(spec)
    spec = index_data(resolve(spec))
    check_evaluation(spec)
    for name, text in refused_photographs(spec):
        print(f"components.{name}: {text}", flush=True)
    with held(spec.folder, command, print):
        _run_measure(spec, command)


def _run_measure(spec: MeasureSpec, command: Sequence[str]) -> None:
    """The same with a checked spec, once nobody else works in its folder."""
    folder = spec.folder
    writer = open_writer(spec, folder, Path(spec.runs_dir))

    log = folder / "logs" / "ray.log"
    with chatter_to(log) as screen, StageView(screen) as view, writer:
        from mixlens.sweep.driver import ray_running

        view.say(f"{spec.name}: starting Ray; its own output goes to {log}")
        with ray_running(spec.resources, folder, log, view.say) as capacity:
            check_actors(spec.resources, capacity)
            check_engine_room(spec, capacity)
            write_json(folder / "measure.json", spec.model_dump(mode="json"))
            collect_provenance(" ".join(command)).write(folder)
            for warning in measure_version_warnings(spec, folder):
                view.say(warning)
            writer.start(view.say)
            from mixlens.measurement.pool import MeasurementPool

            pool = MeasurementPool(spec.resources)
            try:
                measure_all(pool, spec, folder, view)
            finally:
                pool.close()
        view.say(f"{spec.name}: statistics and report")
        report, _, sentences = report_model(folder)
        behind = writer.finish()
    print_answer(sentences, report, writer.how_to_look, behind, Console())


def measure_all(pool: Pool, spec: MeasureSpec, folder: Path, view: StageView) -> None:
    """The model, here and on other images, then its controls."""
    batch_size, other = spec.evaluation.batch_size, other_of(spec, folder)
    measure(pool, model_of(spec, folder), batch_size, view.stage("model"))
    if other:
        measure(pool, other, batch_size, view.stage(f"model on {other.held_out.name}"))
    controls = controls_of(spec, folder)
    for name, control in controls.items():
        if name in TWINS:
            random_twin(spec.model, control.subject.path, TWINS[name], TWIN_SEED)
        measure(pool, control, batch_size, view.stage(name))


def check_actors(need: ResourceSpec, have: Capacity) -> None:
    """Refuse more actors than the cluster can hold, which would wait for ever.

    Raises:
        ResourceError: names the field that asks for too much.
    """
    for kind in ("cpus", "gpus"):
        there, each = getattr(have, kind), getattr(need, f"{kind}_per_actor")
        if need.actors * each > there + 1e-6:
            raise ResourceError(
                explain(
                    "resources.actors", need.actors,
                    f"{have}, but each takes {each:g} {kind.upper()}",
                    f"Lower it or resources.{kind}_per_actor, or use a larger cluster by "
                    "resources.address.",
                )
            )  # fmt: skip
