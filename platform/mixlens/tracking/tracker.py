"""MLflow runs whose ids live beside the results, so that a second start finds them again.

Each directory of a sweep holds a `tracking.json`: for each tracking server a key that was drawn
before the MLflow run was made and is kept as its tag. A process that dies between the two finds
the run by its key. What was logged already is kept there too: training steps up to the last one,
and a digest of every table of results.

Only `MlflowClient` is used: it has no global active run and no implied tracking URI. It is imported
when a tracker is opened, because that takes a second.
"""

import hashlib
import json
import logging
import os
import time
import uuid
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any
from urllib.parse import urlsplit, urlunsplit

from mixlens.errors import ResourceError, explain
from mixlens.spec import MeasureSpec, RunSpec, SweepSpec
from mixlens.tasks.prompts import prompts_digest, prompts_text
from mixlens.tracking.data import data_params, log_data

if TYPE_CHECKING:
    from mlflow import MlflowClient

_BATCH = 1000  # metrics in a log_batch call, MLflow's cap
_PARAMS = 100  # params in a log_batch call
_TEXT = 6000  # longest value of a param
_KEY_TAG = "mixlens.key"
_DATABASES = ("sqlite", "postgresql", "mysql", "mssql")
Points = Iterable[tuple[str, float, int]]


class Tracker:
    """An MLflow experiment that can be reached; made by `open_tracker`."""

    def __init__(self, client: "MlflowClient", experiment_id: str, uri: str) -> None:
        self.client = client
        self.experiment_id = experiment_id
        self.uri = uri
        self.runs: list[TrackedRun] = []

    @contextmanager
    def closing(self) -> Iterator[None]:
        """Close the runs that are still open when the block ends with an error.

        As KILLED when it was stopped from outside, such as by Ctrl-C, else as FAILED.
        """
        try:
            yield
        except BaseException as error:
            status = "FAILED" if isinstance(error, Exception) else "KILLED"
            # The server may be what failed; then waiting for it once is enough.
            with suppress(ResourceError), _impatient():
                for run in self.runs:
                    if run.is_open:
                        run.finish(status)
            raise

    def sweep(self, spec: SweepSpec, folder: Path) -> "TrackedRun":
        """The parent run of a sweep whose directory is `folder`."""
        params = {
            "model": spec.model,
            **_axis(spec),
            "seeds": " ".join(str(seed) for seed in spec.seeds),
            **data_params(spec.data),
            **_training_params(spec),
        }
        tags = {"mixlens.kind": "sweep", "mixlens.sweep": spec.name}
        run = self._run(folder, spec.name, tags, params)
        run.log_json("sweep.json", spec.model_dump(mode="json"))
        run.log_text("prompts.yaml", prompts_text())
        log_data(run, spec.data)
        return run

    def base(self, spec: SweepSpec, folder: Path, parent: "TrackedRun") -> "TrackedRun":
        """The run of the base model's measurement, a child of the sweep's."""
        params = {"model": spec.model, "digest": spec.runs()[0].base_digest()}
        tags = {"mixlens.kind": "base", "mixlens.sweep": spec.name}
        return self._run(folder, "base", tags, params, parent)

    def trial(self, run: RunSpec, folder: Path, parent: "TrackedRun") -> "TrackedRun":
        """The run of one trial, a child of the sweep's."""
        params = {
            **({"ratio": run.ratio} if run.arm is None else {"arm": run.arm}),
            "seed": run.seed,
            "model": run.model,
            "digest": run.digest(),
            **{f"weight.{name}": weight for name, weight in run.weights.items()},
            **_training_params(run),
        }
        tags = {"mixlens.kind": "trial", "mixlens.sweep": parent.name}
        tracked = self._run(folder, run.name, tags, params, parent)
        tracked.log_json("run.json", run.model_dump(mode="json"))
        return tracked

    def model(self, spec: MeasureSpec, folder: Path) -> "TrackedRun":
        """The run of a model that is only measured."""
        params = {
            "model": spec.model,
            "digest": spec.digest(),
            "held_out_images": spec.evaluation.examples,
            "prompts": prompts_digest(),
            **data_params(spec.data),
        }
        tags = {"mixlens.kind": "model", "mixlens.sweep": spec.name}
        tracked = self._run(folder, f"{spec.name} {Path(spec.model).name}", tags, params)
        tracked.log_json("measure.json", spec.model_dump(mode="json"))
        tracked.log_text("prompts.yaml", prompts_text())
        log_data(tracked, spec.data)
        return tracked

    def _run(
        self,
        folder: Path,
        name: str,
        tags: Mapping[str, str],
        params: Mapping[str, Any],
        parent: "TrackedRun | None" = None,
    ) -> "TrackedRun":
        """Find the run of `folder`, or make it."""
        from mlflow.entities import Param

        folder.mkdir(parents=True, exist_ok=True)
        memory = _Memory.read(folder / "tracking.json", without_password(self.uri))
        with _explained(self.uri):
            run_id = self._existing(memory)
            if run_id is None:
                memory = memory.forget()  # a run that was deleted takes what it held with it
                memory.write()
                every = {**tags, _KEY_TAG: memory.key, "mlflow.source.name": "mixlens"}
                if parent is not None:
                    every["mlflow.parentRunId"] = parent.run_id
                run = self.client.create_run(self.experiment_id, tags=every, run_name=name)
                run_id = run.info.run_id
                tracked = TrackedRun(self, run_id, name, memory)
                text = [Param(key, str(value)[:_TEXT]) for key, value in params.items()]
                for start in range(0, len(text), _PARAMS):
                    self.client.log_batch(run_id, params=text[start : start + _PARAMS])
            else:
                tracked = TrackedRun(self, run_id, name, memory)
                self.client.update_run(run_id, status="RUNNING")
        return tracked

    def _existing(self, memory: "_Memory") -> str | None:
        """Id of the run with this key; None where there is none, or it was deleted."""
        found = self.client.search_runs(
            [self.experiment_id], f"tags.`{_KEY_TAG}` = '{memory.key}'", max_results=1
        )
        return found[0].info.run_id if found else None


class TrackedRun:
    """One MLflow run. Every `log_*` can be repeated: what is there already is not logged again."""

    def __init__(self, tracker: Tracker, run_id: str, name: str, memory: "_Memory") -> None:
        self.run_id = run_id
        self.name = name
        self._tracker = tracker
        self._memory = memory
        self.is_open = True
        tracker.runs.append(self)

    @property
    def client(self) -> "MlflowClient":
        return self._tracker.client

    def log_training(self, records: Iterable[Mapping[str, Any]]) -> int:
        """Log the records of steps that are not logged yet; step is the optimiser step.

        Every number of a record is a curve `training/<name>`, and the examples of each component
        so far are `mixture/<component>`. Call it as often as there is news.

        Returns:
            how many records were new.
        """
        new = [record for record in records if record["step"] > self._memory.step]
        if not new:
            return 0
        points = [
            (key, value, int(record["step"])) for record in new for key, value in _curves(record)
        ]
        self._log(points)
        self._memory.step = max(int(record["step"]) for record in new)
        self._memory.write()
        return len(new)

    def log_metrics(self, name: str, points: Points) -> None:
        """Log (key, value, step) points, once for each content of the set called `name`.

        NaN values are left out: MLflow has no missing value.
        """
        known = [point for point in points if point[1] == point[1]]
        with self._once(name, json.dumps(known).encode()) as is_new:
            if is_new:
                self._log(known)

    def log_json(self, name: str, content: Any) -> None:
        """Keep `content` as the artifact `name`."""
        self.log_text(name, json.dumps(content, indent=2) + "\n")

    def log_text(self, name: str, text: str) -> None:
        """Keep `text` as the artifact `name`."""
        with self._once(f"artifact {name}", text.encode()) as is_new:
            if is_new:
                self.client.log_text(self.run_id, text, name)

    def log_file(self, file: Path, folder: str = "") -> None:
        """Keep a file as an artifact, below `folder` of the run's artifacts."""
        with self._once(f"artifact {folder}/{file.name}", file.read_bytes()) as is_new:
            if is_new:
                self.client.log_artifact(self.run_id, str(file), folder or None)

    def tag(self, name: str, value: str) -> None:
        """Set a tag."""
        with self._once(f"tag {name}", value.encode()) as is_new:
            if is_new:
                self.client.set_tag(self.run_id, name, value)

    def finish(self, status: str = "FINISHED") -> None:
        """Close the run: FINISHED, FAILED or KILLED. A later `log_*` may follow."""
        with _explained(self._tracker.uri):
            self.client.set_terminated(self.run_id, status)
        self.is_open = False

    @contextmanager
    def _once(self, name: str, content: bytes) -> Iterator[bool]:
        """Whether this content of `name` is new; remembered when the block has not failed."""
        digest = hashlib.sha256(content).hexdigest()[:16]
        is_new = self._memory.logged.get(name) != digest
        with _explained(self._tracker.uri):
            yield is_new
        if is_new:
            self._memory.logged[name] = digest
            self._memory.write()

    def _log(self, points: list[tuple[str, float, int]]) -> None:
        from mlflow.entities import Metric

        now = int(1000 * time.time())
        metrics = [Metric(key, float(value), now, step) for key, value, step in points]
        with _explained(self._tracker.uri):
            for start in range(0, len(metrics), _BATCH):
                self.client.log_batch(self.run_id, metrics=metrics[start : start + _BATCH])


def default_uri(runs_dir: Path) -> str:
    """A SQLite file in the runs directory, by its absolute path: workers have other folders."""
    return f"sqlite:///{runs_dir.expanduser().absolute() / 'mlflow.db'}"


def without_password(uri: str) -> str:
    """The URI as it may be printed and stored: without user and password."""
    parts = urlsplit(uri)
    if "@" not in parts.netloc:
        return uri
    return urlunsplit(parts._replace(netloc=parts.netloc.rpartition("@")[2]))


def open_tracker(spec: SweepSpec | MeasureSpec, runs_dir: Path) -> Tracker:
    """Reach MLflow and find or make the experiment of the file there.

    Without `tracking.uri` in the file, runs are kept in `runs_dir/mlflow.db`. A server knows
    where its artifacts go; those of a database lie in `runs_dir/mlflow-artifacts`.

    Raises:
        ResourceError: the server does not answer within seconds, or cannot be used.
    """
    runs_dir = runs_dir.expanduser().absolute()
    uri = spec.tracking.uri or default_uri(runs_dir)
    artifacts = None
    if urlsplit(uri).scheme.partition("+")[0] in _DATABASES:
        runs_dir.mkdir(parents=True, exist_ok=True)
        artifacts = (runs_dir / "mlflow-artifacts").as_uri()
    with _explained(uri), _impatient():
        from mlflow import MlflowClient  # sets up its own logging, so what follows comes after

        for library in ("mlflow", "alembic"):
            logging.getLogger(library).setLevel(logging.WARNING)
        client = MlflowClient(tracking_uri=uri)
        name = spec.tracking.experiment
        experiment = client.get_experiment_by_name(name)
        if experiment is None:
            experiment_id = client.create_experiment(name, artifact_location=artifacts)
        elif experiment.lifecycle_stage == "deleted":
            raise ResourceError(
                explain(
                    "tracking.experiment",
                    name,
                    "this MLflow experiment was deleted",
                    "Restore it (mlflow experiments restore) or name another experiment.",
                )
            )
        else:
            experiment_id = experiment.experiment_id
    return Tracker(client, experiment_id, uri)


@dataclass
class _Memory:
    """What `tracking.json` remembers of one directory on one tracking server."""

    file: Path
    server: str
    key: str
    step: int
    logged: dict[str, str]

    @classmethod
    def read(cls, file: Path, server: str) -> "_Memory":
        own = _content(file).get(server, {})
        return cls(
            file,
            server,
            own.get("key", uuid.uuid4().hex),
            own.get("step", -1),
            own.get("logged", {}),
        )

    def forget(self) -> "_Memory":
        return _Memory(self.file, self.server, self.key, -1, {})

    def write(self) -> None:
        content = _content(self.file)
        content[self.server] = {"key": self.key, "step": self.step, "logged": self.logged}
        part = self.file.with_suffix(".part")
        part.write_text(json.dumps(content, indent=1) + "\n")
        part.replace(self.file)


def _content(file: Path) -> dict[str, Any]:
    return json.loads(file.read_text()) if file.is_file() else {}


def _axis(spec: SweepSpec) -> dict[str, str]:
    """What the trials of a sweep differ in."""
    if spec.arms is not None:
        return {"arms": " ".join(spec.arms)}
    return {"ratios": " ".join(f"{ratio:g}" for ratio in spec.ratios or ())}


def _training_params(spec: SweepSpec | RunSpec) -> dict[str, Any]:
    training = spec.training
    lora = training.lora
    return {
        "zero_stage": training.zero_stage,
        "precision": training.precision,
        "steps": training.steps,
        "global_batch": training.global_batch,
        "workers": spec.resources.workers,
        **{f"lr.{tower}": rate for tower, rate in training.learning_rates},
        "freeze": " ".join(training.freeze) or "none",
        "lora_rank": lora.rank if lora else "none",
        "held_out_images": spec.evaluation.examples,
        "prompts": prompts_digest(),
    }


def _curves(record: Mapping[str, Any]) -> Iterator[tuple[str, float]]:
    """Names and values of the numbers in a training record."""
    for name, value in record.items():
        if name != "step" and _is_number(value):
            group, _, component = name.partition("/")
            yield f"mixture/{component}" if group == "examples" else f"training/{name}", value


def _is_number(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool) and value == value


@contextmanager
def _explained(uri: str) -> Iterator[None]:
    """Turn whatever MLflow raises into one message."""
    try:
        yield
    except ResourceError:
        raise
    except Exception as error:  # MLflow passes on errors of drivers, sockets and file systems
        shown = (
            str(_cause(error))
            .replace(uri, without_password(uri))
            .strip()
            .split("\n")[0][:300]
            .rstrip(".")
        )
        raise ResourceError(
            explain(
                "tracking.uri",
                without_password(uri),
                f"MLflow cannot be used there: {shown}",
                "Start the server, correct tracking.uri, or leave it out to keep runs in files.",
            )
        ) from error


def _cause(error: BaseException) -> BaseException:
    """What the operating system said, if it did: clearer than what libraries make of it."""
    found, inner = error, error.__cause__ or error.__context__
    while inner is not None:
        if isinstance(inner, OSError):
            found = inner
        inner = inner.__cause__ or inner.__context__
    return found


@contextmanager
def _impatient() -> Iterator[None]:
    """MLflow's own retries of a server that is not there take minutes."""
    wanted = {"MLFLOW_HTTP_REQUEST_MAX_RETRIES": "1", "MLFLOW_HTTP_REQUEST_TIMEOUT": "10"}
    before = {name: os.environ.get(name) for name in wanted}
    os.environ.update({name: value for name, value in wanted.items() if before[name] is None})
    try:
        yield
    finally:
        for name, value in before.items():
            if value is None:
                os.environ.pop(name, None)
