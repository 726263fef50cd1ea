"""What people read in MLflow's pages: what a run is, and where to look."""

import json
from typing import Any

from mixlens.analysis.tables import HEADLINE
from mixlens.design import SweepSpec
from mixlens.spec import MeasureSpec, RunSpec
from mixlens.tracking.server import RUNS, VIEW, Server

KIND = "mlflow.experimentKind"
# MLflow's pages for models, not those for prompts and traces. Where its pages have a switch for the
# two, the switch rules, unless the address says which.
TRAINING = "custom_model_development"
NOTE = "mlflow.note.content"
_VIEW_TAG = f"mlflow.sharedViewState.{VIEW}"

_EXPERIMENT = """\
How much high-complexity visual data does a vision LLM need? Every sweep of Mixlens is one run here,
with its base and each trial as runs below it; a measured model is a run by itself.

**Where to look**

- [The runs side by side, with the columns that answer](#/experiments/{experiment}/{runs}): \
`accuracy/...` of each task group, `redundancy/visual_mean`, ratio and seed.
- A sweep's own run: artifacts `report.html` and `answer.txt`; charts `by_level/...` (step = \
place of the level); `effect/...` with its interval in `/low` and `/high`.
- A trial: charts `training/...` and `mixture/...` over the steps; `layers/...` (step = layer).

MLflow is a mirror of the run directory: `mixlens track RUN` sends what is missing here.
"""

_COLUMNS = (
    "params.`level`", "params.`ratio`", "params.`seed`",
    *(f"metrics.`accuracy/{group}`" for group in HEADLINE),
    "metrics.`redundancy/visual_mean`", "metrics.`training/loss`",
)  # fmt: skip


def describe_experiment(server: Server) -> None:
    """Say what the experiment holds, open it in the pages for models, and offer a view of the runs.

    What a person has written there stays.
    """
    experiment = server.client.get_experiment(server.experiment_id)
    wanted = {
        KIND: TRAINING,
        NOTE: _EXPERIMENT.format(experiment=server.experiment_id, runs=RUNS),
        _VIEW_TAG: json.dumps(view_state()),
    }
    for name, value in wanted.items():
        if name not in experiment.tags:
            server.client.set_experiment_tag(server.experiment_id, name, value)


def view_state() -> dict[str, Any]:
    """MLflow's state of a list of runs: flat, and with the columns that answer."""
    return {
        "orderByKey": "attributes.`Created`",
        "orderByAsc": True,
        "searchFilter": "",
        "selectedColumns": list(_COLUMNS),
    }


def note_of_sweep(spec: SweepSpec) -> str:
    """Where to look in a sweep's run."""
    axis = spec.design.axis
    curves = f"`by_level/...` (step = place of the {axis.noun}, from 1 on)"
    return (
        f"{spec.name}: {spec.model} fine-tuned on {len(spec.design.levels())} {axis.noun}s with "
        f"{len(spec.seeds)} seeds each; the "
        f"runs below are the base and the trials.\n\n"
        "- The answer: artifact `answer.txt`, and `report.html` with all figures.\n"
        f"- Its numbers: {curves}, and `effect/...` or `trend/...` with `/low` and `/high`.\n"
        "- Tables: artifacts `tables/*.parquet`."
    )


def note_of_base(spec: SweepSpec) -> str:
    """What the base's run is."""
    return (
        f"{spec.model} before any fine-tuning, measured on the held-out images of every trial: "
        "`accuracy/...`, `redundancy/...` and, over the layers, `layers/...`."
    )


def note_of_trial(run: RunSpec) -> str:
    """What a trial's run is."""
    mixture = ", ".join(f"{weight:g} {name}" for name, weight in run.weights.items() if weight)
    return (
        f"{run.model} fine-tuned on {mixture} (seed {run.seed}), then measured.\n\n"
        "- Training: `training/...` and `mixture/...` over the steps. A resumed training repeats "
        "steps; shown is what was logged first, and artifact `training.jsonl` holds the last.\n"
        "- Results: `accuracy/...`, `redundancy/...` and, over the layers, `layers/...`; `/low` "
        "and `/high` beside them are 95 % intervals."
    )


def note_of_model(spec: MeasureSpec) -> str:
    """Where to look in the run of a measured model."""
    return (
        f"{spec.model}, measured on {spec.evaluation.examples} held-out images.\n\n"
        "- The diagnosis: artifact `diagnosis.txt`, and `report.html` with all figures.\n"
        "- Its numbers, each with `/low` and `/high`: `layers/...` and `controls/...` (step = "
        "layer), `probes/...`, `deletion/...` (step = percent deleted), `accuracy/...`."
    )
