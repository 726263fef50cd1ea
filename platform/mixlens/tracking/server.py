"""Reach MLflow: a server, or a database beside the runs, which is made once and whole.

Only `MlflowClient` is used: it has no global active run and no implied tracking URI. It is imported
when a server is opened, because that takes a second.
"""

import fcntl
import logging
import os
import shlex
import sqlite3
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING
from urllib.parse import unquote, urlsplit

from mixlens.errors import ResourceError, explain
from mixlens.spec import TrackingSpec
from mixlens.spec.tracking import DATABASES, without_password

if TYPE_CHECKING:
    from mlflow import MlflowClient

DATABASE = "mlflow.db"
ARTIFACTS = "mlflow-artifacts"
VIEW = "mixlens"  # the name of the view of an experiment's runs, with the columns that answer
RUNS = f"runs?workflowType=machine_learning&viewStateShareKey={VIEW}"
_LOCK_S = 120.0  # for as long another process may be making the database
# MLflow's own retries of a server that is not there take minutes; whoever calls here tries again
# later. Nobody waits for what is sent, but for the first answer of a server somebody does.
_PATIENCE = {"MLFLOW_HTTP_REQUEST_MAX_RETRIES": "1", "MLFLOW_HTTP_REQUEST_BACKOFF_FACTOR": "1"}
_TIMEOUT, _FIRST_S, _LATER_S = "MLFLOW_HTTP_REQUEST_TIMEOUT", "10", "60"
_REFUSALS = (
    "INVALID_PARAMETER_VALUE", "BAD_REQUEST", "INVALID_STATE", "RESOURCE_DOES_NOT_EXIST",
    "RESOURCE_ALREADY_EXISTS",
)  # fmt: skip


class UnreachableError(ResourceError):
    """MLflow cannot be used now; later the same may work."""


class RefusedError(ResourceError):
    """MLflow answers and does not take this content; trying again is of no use."""


@dataclass(frozen=True)
class Server:
    """An MLflow experiment that can be reached; made by `open_server`.

    Attributes:
        client: never used by two threads at once.
        experiment_id: of the experiment of the sweep file.
        uri: as MLflow takes it.
        name: of the server in `tracking.json`. A database beside the runs has the same name
            wherever the folder is moved.
    """

    client: "MlflowClient"
    experiment_id: str
    uri: str
    name: str

    @contextmanager
    def explained(self) -> Iterator[None]:
        """Turn whatever MLflow raises into `UnreachableError` or `RefusedError`."""
        with _explained(self.uri, self.name == DATABASE):
            yield


def default_uri(runs_dir: Path) -> str:
    """A SQLite file in the runs directory, by its absolute path: workers have other folders."""
    from sqlalchemy.engine import URL, make_url

    path = str(runs_dir.expanduser().absolute() / DATABASE)
    plain = f"sqlite:///{path}"
    if make_url(plain).database == path:
        return plain
    # Quoted as SQLAlchemy reads it. MLflow takes what follows sqlite:/// for a plain path whose
    # folders it makes; behind the driver's name it does not look.
    quoted = URL.create("sqlite+pysqlite", database=path).render_as_string()
    if make_url(quoted).database != path:
        raise ResourceError(
            explain("runs_dir", str(runs_dir), "the address of a database cannot hold this path",
                    "Name a folder without ? and %.")
        )  # fmt: skip
    return quoted


def how_to_look(server: Server) -> str:
    """The address of the runs, below the shell command that shows a database."""
    pages = f"/#/experiments/{server.experiment_id}/{RUNS}"
    uri = without_password(server.uri)
    if uri.startswith("http"):
        return uri.rstrip("/") + pages
    mlflow = Path(sys.executable).parent / "mlflow"
    command = shlex.join([str(mlflow), "ui", "--backend-store-uri", uri])
    return f"{command}\n         http://127.0.0.1:5000{pages}"


def open_server(tracking: TrackingSpec, runs_dir: Path) -> Server:
    """Reach MLflow and find or make the experiment of the file there.

    Without `tracking.uri` in the file, runs are kept in `runs_dir/mlflow.db`. A server knows
    where its artifacts go; those of a database lie in `runs_dir/mlflow-artifacts`.

    Raises:
        ResourceError: the server does not answer within seconds, or cannot be used.
    """
    runs_dir = runs_dir.expanduser().absolute()
    is_own = tracking.uri is None
    uri = default_uri(runs_dir) if tracking.uri is None else tracking.uri
    artifacts = None
    if urlsplit(uri).scheme.partition("+")[0] in DATABASES:
        runs_dir.mkdir(parents=True, exist_ok=True)
        artifacts = runs_dir / ARTIFACTS
    with _explained(uri, is_own, can_refuse=False), _patient():
        from mlflow import MlflowClient  # sets up its own logging, so what follows comes after

        for library in ("mlflow", "alembic"):
            logging.getLogger(library).setLevel(logging.WARNING)
        if is_own:
            _own_database(runs_dir)
        client = MlflowClient(tracking_uri=uri)
        client.search_experiments(max_results=1)
    try:
        with _explained(uri, is_own), _patient():
            experiment_id = _experiment(client, tracking.experiment, artifacts)
    except RefusedError as error:
        raise ResourceError(
            explain("tracking.experiment", tracking.experiment, str(error).rstrip("."),
                    "Name another experiment.")
        ) from error  # fmt: skip
    return Server(client, experiment_id, uri, DATABASE if is_own else without_password(uri))


@contextmanager
def _patient() -> Iterator[None]:
    """How long MLflow waits: little inside the block, more behind it, or as its variables say."""
    for name, value in _PATIENCE.items():
        os.environ.setdefault(name, value)
    if os.environ.get(_TIMEOUT) == _LATER_S:  # set here, by an earlier call
        del os.environ[_TIMEOUT]
    is_ours = _TIMEOUT not in os.environ
    if is_ours:
        os.environ[_TIMEOUT] = _FIRST_S
    try:
        yield
    finally:
        if is_ours:
            os.environ[_TIMEOUT] = _LATER_S


def _experiment(client: "MlflowClient", name: str, artifacts: Path | None) -> str:
    """The id of the experiment, which another process may be making at the same moment."""
    from mlflow.exceptions import MlflowException

    experiment = client.get_experiment_by_name(name)
    if experiment is None:
        try:
            if artifacts is not None:
                artifacts.mkdir(exist_ok=True)
            return client.create_experiment(
                name, artifact_location=None if artifacts is None else artifacts.as_uri()
            )
        except MlflowException as error:
            if error.error_code != "RESOURCE_ALREADY_EXISTS":
                raise
            experiment = client.get_experiment_by_name(name)
            if experiment is None:
                raise
    if experiment.lifecycle_stage == "deleted":
        raise ResourceError(
            explain(
                "tracking.experiment",
                name,
                "this MLflow experiment was deleted",
                "Restore it (mlflow experiments restore) or name another experiment.",
            )
        )
    there = _local(experiment.artifact_location)
    if artifacts is not None and there is not None and not there.is_dir():
        if there == artifacts:
            there.mkdir(exist_ok=True)
        else:
            raise ResourceError(
                explain(
                    "tracking.experiment",
                    name,
                    f"the database keeps its files in {there}, and that folder is not there; it "
                    "was moved or deleted",
                    "Put it back, or name another experiment.",
                )
            )
    return experiment.experiment_id


def _local(location: str) -> Path | None:
    """The folder of an artifact location; None if it is no local one."""
    parts = urlsplit(location)
    if parts.scheme == "file":
        return Path(unquote(parts.path))
    return None if parts.scheme else Path(location)


def _own_database(runs_dir: Path) -> None:
    """Make `mlflow.db` if it is not there, and mend it if its folder was moved.

    It is made under another name and then renamed, so that a process that dies meanwhile leaves no
    half of one.
    """
    from mlflow import MlflowClient

    database = runs_dir / DATABASE
    with locked(runs_dir / f".{DATABASE}.lock", _LOCK_S):
        if not database.exists():
            part = runs_dir / f"{DATABASE}.part"
            part.unlink(missing_ok=True)
            made = default_uri(runs_dir).removesuffix(DATABASE) + part.name
            MlflowClient(tracking_uri=made).search_experiments(max_results=1)
            part.rename(database)
        else:
            _mend_artifacts(database, (runs_dir / ARTIFACTS).as_uri())


def _mend_artifacts(database: Path, location: str) -> None:
    """Write the place of the artifacts into a database whose folder was moved.

    MLflow stores it absolutely in every experiment, run and model, and would go on writing to where
    the folder was. It has no call for that.
    """
    with sqlite3.connect(database, timeout=20) as connection:
        rows = connection.execute("SELECT DISTINCT artifact_location FROM experiments").fetchall()
        for (place,) in rows:
            is_ours = place.startswith("file:") and place.endswith(f"/{ARTIFACTS}")
            if place == location or not is_ours:
                continue
            for table, column in (
                ("experiments", "artifact_location"),
                ("runs", "artifact_uri"),
                ("logged_models", "artifact_location"),
            ):
                connection.execute(
                    f"UPDATE {table} SET {column} = ? || substr({column}, ?) "
                    f"WHERE substr({column}, 1, ?) = ?",
                    (location, len(place) + 1, len(place), place),
                )
    connection.close()


@contextmanager
def locked(file: Path, wait_s: float = 0.0) -> Iterator[bool]:
    """Hold the lock of a file; yields False if another process still holds it after `wait_s`.

    The lock goes with the process that holds it. Where the file system has no locks, it is held by
    whoever asks.
    """
    until = time.monotonic() + wait_s
    with file.open("a") as handle:
        is_held = False
        while not is_held:
            try:
                fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
                is_held = True
            except BlockingIOError:
                if time.monotonic() >= until:
                    break
                time.sleep(0.1)
            except OSError:
                is_held = True
        yield is_held


@contextmanager
def _explained(uri: str, is_own: bool, can_refuse: bool = True) -> Iterator[None]:
    """Turn whatever MLflow raises into one message."""
    try:
        yield
    except ResourceError:
        raise
    except Exception as error:  # MLflow passes on errors of drivers, sockets and file systems
        place = without_password(uri)
        shown = str(_cause(error)).replace(uri, place).strip().split("\n")[0][:300].rstrip(".")
        if can_refuse and getattr(error, "error_code", "") in _REFUSALS:
            raise RefusedError(f"MLflow does not take it: {shown}") from error
        if not is_own:
            raise UnreachableError(
                explain(
                    "tracking.uri", place, f"MLflow cannot be used there: {shown}",
                    "Start the server, correct tracking.uri, or leave it out to keep runs in "
                    "files.",
                )
            ) from error  # fmt: skip
        raise UnreachableError(_about_own(uri, shown)) from error


def _about_own(uri: str, shown: str) -> str:
    """What to do about the database in runs_dir, which nobody named."""
    from sqlalchemy.engine import make_url

    database = str(make_url(uri).database)
    if "locked" in shown:
        remedy = "Wait until the process that works on it has ended."
    elif "out-of-date" in shown:
        remedy = f"Run {shlex.join(['mlflow', 'db', 'upgrade', uri])}."
    elif "disk" in shown or "space" in shown or "ermission" in shown or "readonly" in shown:
        remedy = "Free the disk or make the file writable."
    else:
        remedy = (
            f"Delete {shlex.quote(database)} and start again: everything is logged again from the "
            "results."
        )
    return explain("runs_dir", database, f"MLflow cannot use its database: {shown}", remedy)


def _cause(error: BaseException) -> BaseException:
    """What the operating system said, if it did: clearer than what libraries make of it."""
    found, inner = error, error.__cause__ or error.__context__
    while inner is not None:
        if isinstance(inner, OSError):
            found = inner
        inner = inner.__cause__ or inner.__context__
    return found
