"""Takers of a run's content: `Sender` brings to MLflow what is not there, `Missing` counts it.

Both can be given the same content as often as one likes.
"""

import json
import re
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterable, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from mixlens.tracking.ledger import Ledger, digest_of, now_ms
from mixlens.tracking.server import RefusedError, Server

if TYPE_CHECKING:
    from mlflow.entities import DatasetInput

Point = tuple[str, float, int]  # key, value, step
Record = Mapping[str, Any]  # of a logged training step
_BATCH = 1000  # metrics in a log_batch call, MLflow's cap
_PARAMS = 100  # params in a log_batch call
_TEXT = 6000  # longest value of a param
_LARGEST = 1.7976931348623157e308  # stands for infinity in MLflow's databases


class Sink(ABC):
    """Takes what MLflow is to hold of one run."""

    def __init__(self, ledger: Ledger) -> None:
        self.ledger = ledger

    @abstractmethod
    def log_training(self, records: Sequence[Record]) -> None:
        """Take the journal of a training.

        Every number of a record is a curve `training/<name>`, and the examples of each component
        so far are `mixture/<component>`. A step is logged once: of steps that a resumed training
        has repeated, MLflow keeps what it was told first, and the journal, kept as an artifact, the
        last.
        """

    @abstractmethod
    def log_metrics(self, name: str, points: Iterable[Point]) -> None:
        """Take the set of points called `name`; of a set that has changed, what is new in it.

        NaN values are left out: MLflow has no missing value.
        """

    @abstractmethod
    def log_params(self, params: Mapping[str, Any]) -> None:
        """Take params; those of the first time stay, because MLflow's cannot change."""

    @abstractmethod
    def log_text(self, name: str, text: str) -> None:
        """Keep `text` as the artifact `name`."""

    @abstractmethod
    def log_file(self, file: Path, folder: str = "") -> None:
        """Keep a file as an artifact, below `folder` of the run's artifacts."""

    @abstractmethod
    def tag(self, name: str, value: str) -> None:
        """Set a tag."""

    @abstractmethod
    def log_inputs(self, inputs: "Sequence[DatasetInput]") -> None:
        """Name the data sets that the run uses."""

    @abstractmethod
    def log_outcome(self, name: str, params: Mapping[str, str]) -> None:
        """Say which model the run has made or measured."""

    def log_json(self, name: str, content: Any) -> None:
        """Keep `content` as the artifact `name`."""
        self.log_text(name, json.dumps(content, indent=2) + "\n")


class Missing(Sink):
    """Counts what the ledger does not name; asks no server."""

    def __init__(self, ledger: Ledger) -> None:
        super().__init__(ledger)
        self.points = self.others = 0

    def log_training(self, records: Sequence[Record]) -> None:
        new = [record for record in records if record["step"] not in self.ledger.steps]
        self.points += sum(len(list(curves(record))) for record in new)

    def log_metrics(self, name: str, points: Iterable[Point]) -> None:
        known = _known(points)
        if self._lacks(name, _as_bytes(known)):
            self.points += len(known)

    def log_params(self, params: Mapping[str, Any]) -> None:
        self.others += "params" not in self.ledger.logged

    def log_text(self, name: str, text: str) -> None:
        self.others += self._lacks(f"artifact {name}", text.encode())

    def log_file(self, file: Path, folder: str = "") -> None:
        self.others += self._lacks(f"artifact {folder}/{file.name}", file.read_bytes())

    def tag(self, name: str, value: str) -> None:
        self.others += self._lacks(f"tag {name}", value.encode())

    def log_inputs(self, inputs: "Sequence[DatasetInput]") -> None:
        self.others += self._lacks("inputs", _inputs_as_bytes(inputs))

    def log_outcome(self, name: str, params: Mapping[str, str]) -> None:
        self.others += self._lacks("outcome", _as_bytes([name, dict(params)]))

    def _lacks(self, name: str, content: bytes) -> bool:
        return self.ledger.logged.get(name) != digest_of(content)


class Sender(Sink):
    """Brings to one MLflow run what it does not have.

    Args:
        server: which has the run.
        run_id: of the run.
        ledger: of the run.
        refused: gets a line for everything that MLflow does not take.
    """

    def __init__(
        self, server: Server, run_id: str, ledger: Ledger, refused: Callable[[str], None]
    ) -> None:
        super().__init__(ledger)
        self._server, self.run_id, self._refused = server, run_id, refused
        self.client = server.client

    def log_training(self, records: Sequence[Record]) -> None:
        waiting, end = self.ledger.begun_steps()
        due = [record for record in records if record["step"] not in self.ledger.steps]
        asked = [record for record in due if not self.ledger.is_sure or record["step"] in waiting]
        if asked:
            points = self._absent(_training_points(asked, end), whatever_value=True)
            if not self._take("training", points):
                return
            self.ledger.done_steps(record["step"] for record in asked)
        new = [record for record in due if record["step"] not in self.ledger.steps]
        if new:
            end = now_ms()
            self.ledger.begin_steps([int(record["step"]) for record in new], end)
            if self._take("training", _training_points(new, end)):
                self.ledger.done_steps(record["step"] for record in new)

    def log_metrics(self, name: str, points: Iterable[Point]) -> None:
        known = _known(points)
        digest = digest_of(_as_bytes(known))
        if self.ledger.logged.get(name) == digest:
            return
        time_ms, may_be_there = self.ledger.begin(name, digest)
        timed = [(*point, time_ms) for point in known]
        if self._take(name, self._absent(timed) if may_be_there else timed):
            self.ledger.done(name, digest)

    def log_params(self, params: Mapping[str, Any]) -> None:
        if "params" in self.ledger.logged:
            return
        from mlflow.entities import Param

        there: Mapping[str, str] = {}
        _, may_be_there = self.ledger.begin("params", "")
        if may_be_there:
            with self._server.explained():
                there = self.client.get_run(self.run_id).data.params
        text = [Param(key, str(value)[:_TEXT]) for key, value in params.items() if key not in there]
        is_taken = all(
            self._call("params", partial(self.client.log_batch, self.run_id, params=part))
            for part in _parts(text, _PARAMS)
        )
        if is_taken:
            self.ledger.done("params", "")

    def log_text(self, name: str, text: str) -> None:
        self._once(
            f"artifact {name}",
            text.encode(),
            lambda: self.client.log_text(self.run_id, text, name),
        )

    def log_file(self, file: Path, folder: str = "") -> None:
        self._once(
            f"artifact {folder}/{file.name}",
            file.read_bytes(),
            lambda: self.client.log_artifact(self.run_id, str(file), folder or None),
        )

    def tag(self, name: str, value: str) -> None:
        self._once(
            f"tag {name}", value.encode(), lambda: self.client.set_tag(self.run_id, name, value)
        )

    def log_inputs(self, inputs: "Sequence[DatasetInput]") -> None:
        self._once(
            "inputs",
            _inputs_as_bytes(inputs),
            lambda: self.client.log_inputs(self.run_id, datasets=list(inputs)),
        )

    def log_outcome(self, name: str, params: Mapping[str, str]) -> None:
        self._once(
            "outcome", _as_bytes([name, dict(params)]), lambda: self._make_model(name, params)
        )

    def _make_model(self, name: str, params: Mapping[str, str]) -> None:
        """Make the model of this run, once: it is looked for first."""
        from mlflow.entities import LoggedModelOutput, LoggedModelStatus

        experiment = self._server.experiment_id
        found = self.client.search_logged_models(
            [experiment], f"source_run_id = '{self.run_id}'", max_results=1
        )
        if found:
            model = found[0]
        else:
            model = self.client.create_logged_model(
                experiment,
                re.sub(r"[/:.%\"']", "_", name),  # MLflow takes none of these in such a name
                source_run_id=self.run_id,
                params=dict(params),
            )
        self.client.finalize_logged_model(model.model_id, LoggedModelStatus.READY)
        outputs = self.client.get_run(self.run_id).outputs
        if model.model_id not in [one.model_id for one in outputs.model_outputs]:
            self.client.log_outputs(self.run_id, [LoggedModelOutput(model.model_id, 0)])

    def set_status(self, status: str, end_ms: int | None) -> None:
        """RUNNING, FINISHED, FAILED or KILLED; `end_ms` is when it ended, now if not given."""
        if status == self.ledger.status:
            return
        with self._server.explained():
            if status == "RUNNING":
                self.client.update_run(self.run_id, status=status)
            else:
                self.client.set_terminated(self.run_id, status, end_ms)
        self.ledger.sent_status(status)

    def _once(self, name: str, content: bytes, send: Callable[[], object]) -> None:
        """Send what MLflow may be sent twice, unless it has this content."""
        digest = digest_of(content)
        if self.ledger.logged.get(name) != digest and self._call(name, send):
            self.ledger.done(name, digest)

    def _take(self, name: str, points: Sequence[tuple[str, float, int, int]]) -> bool:
        """Log points with their time stamps; returns whether MLflow took all of them."""
        from mlflow.entities import Metric

        metrics = [Metric(key, float(value), ms, step) for key, value, step, ms in points]
        return all(
            self._call(name, partial(self.client.log_batch, self.run_id, metrics=part))
            for part in _parts(metrics, _BATCH)
        )

    def _call(self, name: str, send: Callable[[], object]) -> bool:
        """Whether MLflow took it.

        Raises:
            UnreachableError: MLflow did not answer.
        """
        try:
            with self._server.explained():
                send()
        except RefusedError as error:
            self._refused(f"{name}: {error}")
            return False
        return True

    def _absent(
        self, points: list[tuple[str, float, int, int]], whatever_value: bool = False
    ) -> list[tuple[str, float, int, int]]:
        """Those of the points that MLflow does not have, by asking it for every key.

        Args:
            points: with their time stamps.
            whatever_value: a point is there if its step is; else the latest value must be its own.
        """
        with self._server.explained():
            keys = self.client.get_run(self.run_id).data.metrics.keys()
            there: dict[str, dict[int, float]] = {}
            for key in {point[0] for point in points} & keys:
                history = self.client.get_metric_history(self.run_id, key)
                history.sort(key=lambda point: (point.timestamp, point.value))
                there[key] = {point.step: point.value for point in history}

        def is_there(key: str, value: float, step: int) -> bool:
            found = there.get(key, {}).get(step)
            return found is not None and (whatever_value or found == _stored(value))

        return [point for point in points if not is_there(*point[:3])]


def curves(record: Record) -> list[tuple[str, float]]:
    """Names and values of the numbers in a training record."""
    found = []
    for name, value in record.items():
        if name != "step" and _is_number(value):
            group, _, component = name.partition("/")
            found.append(
                (f"mixture/{component}" if group == "examples" else f"training/{name}", value)
            )
    return found


def _training_points(records: Sequence[Record], end_ms: int) -> list[tuple[str, float, int, int]]:
    """The points of consecutive records, the last of which was written at `end_ms`.

    Each one's time is told by the seconds a step that the later ones took.
    """
    points: list[tuple[str, float, int, int]] = []
    at = float(end_ms)
    for place in range(len(records) - 1, -1, -1):
        record, step = records[place], int(records[place]["step"])
        points += [(key, value, step, int(at)) for key, value in curves(record)]
        before = int(records[place - 1]["step"]) if place else step
        seconds = record.get("step_s", 0.0)
        at -= 1000 * (step - before) * (seconds if _is_number(seconds) else 0.0)
    points.reverse()
    return points


def _is_number(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool) and value == value


def _known(points: Iterable[Point]) -> list[Point]:
    return [point for point in points if point[1] == point[1]]


def _stored(value: float) -> float:
    return min(max(float(value), -_LARGEST), _LARGEST)


def _as_bytes(content: Any) -> bytes:
    return json.dumps(content).encode()


def _inputs_as_bytes(inputs: "Sequence[DatasetInput]") -> bytes:
    return json.dumps([one.to_dictionary() for one in inputs], sort_keys=True).encode()


def _parts(items: list[Any], size: int) -> list[list[Any]]:
    return [items[start : start + size] for start in range(0, len(items), size)]
