"""MLflow that hangs, dies, locks or loses answers: work never waits, each point is there once."""

import json
import re
import shlex
import shutil
import sqlite3
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

import pytest
from fake_parts import table_file
from fake_sweep import FakeSweep
from mlflow import MlflowClient
from servers import Relay, free_port, mlflow_server

import mixlens
from mixlens.design import SweepSpec, asked_trials
from mixlens.errors import ResourceError
from mixlens.lock import held
from mixlens.measurement import trial_of
from mixlens.spec import TrackingSpec
from mixlens.tracking import server as server_module
from mixlens.tracking import writer as writer_module
from mixlens.tracking.content import Steps
from mixlens.tracking.mirror import Mirror
from mixlens.tracking.send import send_runs
from mixlens.tracking.server import UnreachableError, default_uri, how_to_look, open_server
from mixlens.tracking.sink import curves
from mixlens.tracking.writer import open_writer

TINY = FakeSweep(ratios=(0.0, 1.0), seeds=(0,), images=8, layers=2, steps=20, groups=("coarse",))
TOKENS = "measurements/*seed=*/tokens-*"  # of the trials, not of the base


@pytest.fixture(autouse=True)
def _quick(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(writer_module, "EVERY_S", 0.1)
    monkeypatch.setattr(writer_module, "LONGEST_S", 0.5)
    monkeypatch.setenv("MLFLOW_HTTP_REQUEST_TIMEOUT", "5")
    monkeypatch.setenv("MLFLOW_HTTP_REQUEST_MAX_RETRIES", "0")


@pytest.fixture(scope="module")
def real(tmp_path_factory: pytest.TempPathFactory) -> Iterator[int]:
    port = free_port()
    with mlflow_server(tmp_path_factory.mktemp("server"), port):
        yield port


@pytest.fixture(scope="module")
def database(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A migrated, empty one: making it takes seconds."""
    folder = tmp_path_factory.mktemp("database")
    open_server(TrackingSpec(), folder)
    return folder / "mlflow.db"


@pytest.fixture
def runs_dir(database: Path, tmp_path: Path) -> Path:
    folder = tmp_path / "runs"
    folder.mkdir()
    shutil.copy(database, folder / "mlflow.db")
    return folder


def _sweep(runs_dir: Path, uri: str | None, name: str = "mixlens") -> tuple[SweepSpec, Path]:
    """A sweep whose trials have not logged a step."""
    folder = TINY.write(runs_dir)
    spec = TINY.spec(runs_dir).model_copy(
        update={"tracking": TrackingSpec(uri=uri, experiment=name)}
    )
    (folder / "sweep.json").write_text(spec.model_dump_json())
    for trial in (folder / "trials").iterdir():
        (trial / "training.jsonl").write_text("")
    for part in folder.glob(TOKENS):
        (part / "record.json").unlink()
    return spec, folder


def _finish(folder: Path) -> None:
    """Leave the records of both trials, which say that they are measured."""
    for part in folder.glob(TOKENS):
        (part / "record.json").write_text("{}")


def _train(folder: Path, steps: range, change: float = 0.0, keep: int | None = None) -> None:
    """Log steps to the journals of both trials; with `keep`, after a resume from that step."""
    for trial in (folder / "trials").iterdir():
        journal = trial / "training.jsonl"
        if keep is not None:
            lines = [json.dumps(one) for one in Steps(journal).read() if one["step"] <= keep]
            part = journal.with_suffix(".part")
            part.write_text("".join(f"{line}\n" for line in lines))
            part.rename(journal)
        with journal.open("a") as file:
            for step in steps:
                record = {"step": step, "loss": 1 / step + change, "step_s": 0.1}
                file.write(json.dumps({**record, "examples/simple": 8 * step}) + "\n")


def _points(client: MlflowClient, experiment_id: str) -> dict[str, Counter[tuple[str, int]]]:
    """How often MLflow has each (curve, step), of every trial."""
    found = {}
    for run in client.search_runs([experiment_id], "tags.`mixlens.kind` = 'trial'"):
        found[run.info.run_name] = Counter(
            (key, point.step)
            for key in run.data.metrics
            if key.startswith(("training/", "mixture/"))
            for point in client.get_metric_history(run.info.run_id, key)
        )
    return found


def _expected(last: int) -> Counter[tuple[str, int]]:
    names = ("training/loss", "training/step_s", "mixture/simple")
    return Counter((name, step) for name in names for step in range(1, last + 1))


def _assert_once(client: MlflowClient, experiment_id: str, last: int) -> None:
    found = _points(client, experiment_id)
    assert len(found) == 2
    assert all(counts == _expected(last) for counts in found.values())


def _wait_for(condition) -> None:
    until = time.monotonic() + 60
    while not condition():
        assert time.monotonic() < until
        time.sleep(0.05)


@pytest.mark.parametrize("fault", ["hang", "refuse", "lose"])
def test_a_server_that_misbehaves_holds_up_nothing_and_lacks_nothing_later(
    real: int, tmp_path: Path, fault: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    relay = Relay(real)
    spec, folder = _sweep(tmp_path, f"http://127.0.0.1:{relay.port}", fault)
    said: list[str] = []
    monkeypatch.setattr(writer_module, "STOP_S", 1.0)
    monkeypatch.setattr(writer_module, "END_S", 1.0)
    with open_writer(spec, folder, tmp_path) as writer:
        client, experiment = writer._mirror.server.client, writer._mirror.server.experiment_id
        writer.start(said.append)
        _train(folder, range(1, 6))
        _wait_for(lambda: len(list(folder.glob("trials/*/tracking.json"))) == 2)
        _wait_for(lambda: all('"begun": {}' in file.read_text()
                              for file in folder.glob("trials/*/tracking.json")))  # fmt: skip
        relay.mode, before = fault, relay.seen
        start = time.monotonic()
        _train(folder, range(6, 11))
        assert time.monotonic() - start < 1
        _wait_for(lambda: relay.seen > before)
        _wait_for(lambda: said)
        start = time.monotonic()
        behind = writer.finish()
        assert time.monotonic() - start < 5
    assert "The work goes on" in said[0]
    assert re.search(r"MLflow has not got everything within 1 s .* are missing", behind)
    assert f"track {folder}" in behind
    relay.mode = "pass"
    _wait_for(lambda: not writer._thread.is_alive())
    Mirror(open_server(spec.tracking, tmp_path), spec, folder, is_live=False).send()
    client = MlflowClient(f"http://127.0.0.1:{real}")
    _assert_once(client, experiment, 10)
    relay.close()


def _track(folder: Path) -> subprocess.CompletedProcess:
    command = [sys.executable, "-m", "mixlens", "track", str(folder)]
    environment = {"PYTHONPATH": str(Path(mixlens.__file__).parents[1]), "PATH": "/usr/bin:/bin"}
    return subprocess.run(command, capture_output=True, text=True, env=environment)


def test_the_command_sends_what_is_missing_to_a_real_server(real: int, tmp_path: Path) -> None:
    spec, folder = _sweep(tmp_path, f"http://127.0.0.1:{real}", "command")
    _train(folder, range(1, 4))
    done = _track(folder)
    assert (done.returncode, done.stderr) == (0, "")
    assert re.search(r"to send: [\d,]+ points and [\d,]+ files and tags of 4 runs", done.stdout)
    assert "ratio=0,seed=0: training" in done.stdout
    client = MlflowClient(f"http://127.0.0.1:{real}")
    experiment = client.get_experiment_by_name("command").experiment_id
    _assert_once(client, experiment, 3)
    # Nobody works there any more, and nothing says how it ended.
    runs = client.search_runs([experiment])
    assert {run.info.run_name: run.info.status for run in runs} == {
        "fake": "KILLED", "base": "FINISHED",
        "ratio=0,seed=0": "KILLED", "ratio=1,seed=0": "KILLED",
    }  # fmt: skip
    assert not Mirror(open_server(spec.tracking, tmp_path), spec, folder, is_live=False).missing()


def test_the_command_leaves_a_folder_alone_in_which_a_job_works(runs_dir: Path) -> None:
    _, folder = _sweep(runs_dir, None)
    works = held(folder, ["python", "jobs/sweep.py"], print)
    with works, pytest.raises(ResourceError, match=r"python jobs/sweep\.py"):
        send_runs(folder, print)
    assert not (folder / "tracking.json").exists()
    send_runs(folder, print)
    assert (folder / "tracking.json").exists()


def test_the_command_says_what_is_no_run(tmp_path: Path) -> None:
    done = _track(tmp_path)
    assert done.returncode == 2
    (line,) = done.stderr.splitlines()
    assert re.match(r"error: .*neither sweep\.json nor measure\.json", line)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.case
def test_a_locked_database_holds_up_nothing(runs_dir: Path) -> None:
    spec, folder = _sweep(runs_dir, None)
    said: list[str] = []
    with open_writer(spec, folder, runs_dir) as writer:
        server = writer._mirror.server
        writer.start(said.append)
        _train(folder, range(1, 6))
        _wait_for(lambda: len(list(folder.glob("trials/*/tracking.json"))) == 2)
        other = sqlite3.connect(runs_dir / "mlflow.db", isolation_level=None)
        other.execute("BEGIN EXCLUSIVE")
        start = time.monotonic()
        _train(folder, range(6, 11))
        assert time.monotonic() - start < 1
        time.sleep(2)
        other.execute("COMMIT")
        other.close()
        _finish(folder)
        assert writer.finish() == ""
    _assert_once(server.client, server.experiment_id, 10)


@pytest.mark.case
def test_a_point_that_once_failed_is_sent_later(
    runs_dir: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Steps after it are there, it is not: the highest step says nothing."""
    spec, folder = _sweep(runs_dir, None)
    server = open_server(spec.tracking, runs_dir)
    mirror = Mirror(server, spec, folder, is_live=True)
    _train(folder, range(1, 4))
    mirror.send()
    _train(folder, range(4, 7))
    with monkeypatch.context() as patch:
        patch.setattr(server.client, "log_batch", _gone)
        with pytest.raises(ResourceError, match="gone"):
            mirror.send()
    # A new process, for which steps 7 to 9 are new and 4 to 6 in doubt.
    _train(folder, range(7, 10))
    Mirror(server, spec, folder, is_live=True).send()
    _assert_once(server.client, server.experiment_id, 9)


def _gone(*_: object, **__: object) -> None:
    raise ConnectionError("gone")


@pytest.mark.case
def test_what_came_after_a_lost_answer_is_not_doubled(
    runs_dir: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    spec, folder = _sweep(runs_dir, None)
    server = open_server(spec.tracking, runs_dir)
    sent = server.client.log_batch

    def and_then_gone(*arguments: object, **named: object) -> None:
        sent(*arguments, **named)
        raise ConnectionError("the answer was lost")

    _train(folder, range(1, 6))
    mirror = Mirror(server, spec, folder, is_live=True)
    for _ in range(12):  # each try loses the answer of one more batch
        with monkeypatch.context() as patch:
            patch.setattr(server.client, "log_batch", and_then_gone)
            with suppress(UnreachableError):
                mirror.send()
    mirror.send()
    _assert_once(server.client, server.experiment_id, 5)


@pytest.mark.case
def test_a_resumed_training_is_there_once_with_what_came_first(runs_dir: Path) -> None:
    spec, folder = _sweep(runs_dir, None)
    server = open_server(spec.tracking, runs_dir)
    mirror = Mirror(server, spec, folder, is_live=True)
    _train(folder, range(1, 9))
    mirror.send()
    _train(folder, range(6, 12), change=0.5, keep=5)
    mirror.send()
    _assert_once(server.client, server.experiment_id, 11)
    (run, _) = server.client.search_runs([server.experiment_id], "tags.`mixlens.kind` = 'trial'")
    losses = {
        point.step: point.value
        for point in server.client.get_metric_history(run.info.run_id, "training/loss")
    }
    assert losses[8] == pytest.approx(1 / 8)
    assert losses[9] == pytest.approx(1 / 9 + 0.5)


@pytest.mark.case
@pytest.mark.parametrize("damage", ["", "{", '{"mlflow.db": {"key": 1', "[]", '{"mlflow.db": 3}'])
def test_a_damaged_ledger_is_asked_for_and_doubles_nothing(runs_dir: Path, damage: str) -> None:
    spec, folder = _sweep(runs_dir, None)
    server = open_server(spec.tracking, runs_dir)
    _train(folder, range(1, 6))
    Mirror(server, spec, folder, is_live=True).send()
    runs = {run.info.run_id for run in server.client.search_runs([server.experiment_id])}
    for file in (folder / "tracking.json", *folder.glob("measurements/*/tracking.json"),
                 *folder.glob("trials/*/tracking.json")):  # fmt: skip
        file.write_text(damage)
    _train(folder, range(6, 8))
    again = Mirror(server, spec, folder, is_live=True)
    again.send()
    assert {run.info.run_id for run in server.client.search_runs([server.experiment_id])} == runs
    assert len(again.notes) == 4
    assert "was damaged" in again.notes[0]
    _assert_once(server.client, server.experiment_id, 7)


def test_a_journal_is_read_on_from_where_it_was(tmp_path: Path) -> None:
    journal = tmp_path / "training.jsonl"
    steps = Steps(journal)

    def told() -> list[int]:
        return [record["step"] for record in steps.read()]

    journal.write_text('{"step": 1}\n{"step": 2}\n{"st')
    assert told() == [1, 2]
    with journal.open("a") as file:
        file.write('ep": 3}\n')
    assert told() == [1, 2, 3]
    assert told() == [1, 2, 3]
    part = tmp_path / "part"
    part.write_text('{"step": 1}\n{"step": 2, "loss": 7}\n')
    part.rename(journal)
    assert steps.read() == [{"step": 1}, {"step": 2, "loss": 7}]


@pytest.mark.case
def test_numbers_of_a_journal_are_curves_and_nothing_else_is() -> None:
    record = {"step": 3, "loss": 0.5, "note": "text", "ok": True, "bad": float("nan"),
              "examples/simple": 8}  # fmt: skip
    assert curves(record) == [("training/loss", 0.5), ("mixture/simple", 8)]


def test_ends_close_the_runs(runs_dir: Path) -> None:
    spec, folder = _sweep(runs_dir, None)
    for ended_by, status in ((RuntimeError, "FAILED"), (KeyboardInterrupt, "KILLED")):
        _end_by(ended_by, spec, folder, runs_dir)
        server = open_server(spec.tracking, runs_dir)
        runs = server.client.search_runs([server.experiment_id])
        states = {run.info.run_name: run.info.status for run in runs}
        assert states.pop("base") == "FINISHED"
        assert set(states.values()) == {status}
    # The next start opens the same runs again.
    with open_writer(spec, folder, runs_dir) as writer:
        writer.start(lambda _: None)
        _wait_for(lambda: {
            run.info.status
            for run in server.client.search_runs([server.experiment_id])
        } == {"RUNNING", "FINISHED"})  # fmt: skip
        assert writer.finish(["ratio=1,seed=0"]) == ""
    runs = server.client.search_runs([server.experiment_id])
    states = {run.info.run_name: run.info.status for run in runs}
    assert (states["fake"], states["ratio=1,seed=0"]) == ("FAILED", "FAILED")


def _end_by(error: type[BaseException], spec: SweepSpec, folder: Path, runs_dir: Path) -> None:
    def interrupted() -> None:
        with open_writer(spec, folder, runs_dir) as writer:
            writer.start(lambda _: None)
            raise error("stopped")

    with pytest.raises(error, match="stopped"):
        interrupted()


def test_three_first_starts_at_once(tmp_path: Path) -> None:
    program = (
        "import sys; from pathlib import Path; from mixlens.spec import TrackingSpec; "
        "from mixlens.tracking.server import open_server; "
        "print(open_server(TrackingSpec(), Path(sys.argv[1])).experiment_id)"
    )
    environment = {"PYTHONPATH": str(Path(mixlens.__file__).parents[1]), "PATH": "/usr/bin:/bin"}
    processes = [
        subprocess.Popen([sys.executable, "-c", program, str(tmp_path / "new")], text=True,
                         stdout=subprocess.PIPE, stderr=subprocess.PIPE, env=environment)
        for _ in range(3)
    ]  # fmt: skip
    ended = [(*process.communicate(), process.returncode) for process in processes]
    assert [code for *_, code in ended] == [0, 0, 0], ended
    assert len({out for out, *_ in ended}) == 1


@pytest.mark.case
def test_half_a_database_is_said(tmp_path: Path) -> None:
    with sqlite3.connect(tmp_path / "mlflow.db") as half:
        half.execute("CREATE TABLE _alembic_tmp_tags (key TEXT)")
        half.execute("CREATE TABLE experiments (artifact_location TEXT)")
    with pytest.raises(ResourceError) as caught:
        open_server(TrackingSpec(), tmp_path)
    assert re.match(r"runs_dir: got '.*mlflow\.db': MLflow cannot use its database: .*"
                    r"Delete .*/mlflow\.db and start again: everything is logged again",
                    str(caught.value))  # fmt: skip


@pytest.mark.case
def test_a_moved_runs_dir_takes_its_artifacts_along(runs_dir: Path, tmp_path: Path) -> None:
    spec, folder = _sweep(runs_dir, None)
    assert _track(folder).returncode == 0  # a process of its own: MLflow remembers places in it
    moved = tmp_path / "other"
    runs_dir.rename(moved)
    _finish(moved / "fake")
    server = open_server(spec.tracking, moved)
    mirror = Mirror(server, spec, moved / "fake", is_live=False)
    mirror.send()
    assert not mirror.refused
    assert not runs_dir.exists()
    runs = server.client.search_runs([server.experiment_id])
    assert len(runs) == 4
    for run in runs:
        assert run.info.artifact_uri.startswith((moved / "mlflow-artifacts").as_uri())
    (trial, _) = [run for run in runs if run.data.tags["mixlens.kind"] == "trial"]
    names = {item.path for item in server.client.list_artifacts(trial.info.run_id)}
    assert {"trial.json", "training.jsonl"} <= names  # from before and from after


@pytest.mark.case
@pytest.mark.parametrize("name", ["a%20b", "a?b", "a#b", "50%", "a b;c@d&e=f", "q'q", "ü", "$x"])
def test_odd_characters_in_runs_dir(tmp_path: Path, database: Path, name: str) -> None:
    runs = tmp_path / name
    runs.mkdir()
    shutil.copy(database, runs / "mlflow.db")
    server = open_server(TrackingSpec(experiment="odd"), runs)
    run = server.client.create_run(server.experiment_id)
    server.client.log_text(run.info.run_id, "text", "a.txt")
    assert [path.name for path in tmp_path.iterdir()] == [name]
    assert list((runs / "mlflow-artifacts").rglob("a.txt"))
    with sqlite3.connect(runs / "mlflow.db") as there:
        assert there.execute("SELECT name FROM experiments WHERE name = 'odd'").fetchall()
    # As a shell reads it, it is one argument, and MLflow finds the database by it.
    uri = shlex.split(how_to_look(server).splitlines()[0])[-1]
    assert uri == default_uri(runs)
    assert MlflowClient(uri).get_experiment_by_name("odd")


def _with_uri(uri: str) -> TrackingSpec:
    return TrackingSpec(uri=uri)


@pytest.mark.parametrize(
    "uri", ["http://127.0.0.1:9", "http://name.invalid:5000", "postgresql://h/db"]
)
def test_an_unreachable_server_is_one_message(tmp_path: Path, uri: str) -> None:
    start = time.monotonic()
    problem = r"tracking\.uri: got .*MLflow cannot be used there: .*Start the server"
    with pytest.raises(ResourceError, match=problem) as caught:
        open_server(_with_uri(uri), tmp_path)
    assert "Pool(" not in str(caught.value)
    assert time.monotonic() - start < 15
    assert list(tmp_path.iterdir()) in ([], [tmp_path / "mlflow-artifacts"])


def test_a_password_is_never_shown(tmp_path: Path) -> None:
    with pytest.raises(ResourceError) as caught:
        open_server(_with_uri("http://ann:secret@127.0.0.1:9"), tmp_path)
    assert "secret" not in str(caught.value)
    assert "127.0.0.1:9" in str(caught.value)


def test_a_deleted_experiment_is_said(runs_dir: Path) -> None:
    server = open_server(TrackingSpec(experiment="gone"), runs_dir)
    server.client.delete_experiment(server.experiment_id)
    with pytest.raises(ResourceError, match="this MLflow experiment was deleted"):
        open_server(TrackingSpec(experiment="gone"), runs_dir)


@pytest.mark.case
def test_what_mlflow_does_not_take_is_listed_and_blames_no_address(
    runs_dir: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    spec, folder = _sweep(runs_dir, None)
    for trial in (folder / "trials").iterdir():
        (trial / "training.jsonl").write_text('{"step": 1, "loss (nats)": 0.5}\n')
    mirror = Mirror(open_server(spec.tracking, runs_dir), spec, folder, is_live=False)
    mirror.send()
    assert len(mirror.refused) == 2
    first = next(iter(mirror.refused))
    assert first.startswith("ratio=0,seed=0, training: MLflow does not take it: ")
    assert "tracking.uri" not in first


@pytest.mark.case
def test_damaged_results_are_listed_and_the_others_are_logged(runs_dir: Path) -> None:
    spec, folder = _sweep(runs_dir, None)
    _finish(folder)
    broken = table_file(trial_of(spec, folder, asked_trials(spec)[0]), "examples")
    broken.write_bytes(broken.read_bytes()[:2000])
    server = open_server(spec.tracking, runs_dir)
    mirror = Mirror(server, spec, folder, is_live=False)
    mirror.send()
    assert len(mirror.refused) == 1
    assert "examples.parquet" in next(iter(mirror.refused))
    (other,) = server.client.search_runs(
        [server.experiment_id], "attributes.run_name = 'ratio=1,seed=0'"
    )
    assert "accuracy/coarse" in other.data.metrics


@pytest.mark.case
def test_two_at_once_do_not_send_the_same(runs_dir: Path) -> None:
    spec, folder = _sweep(runs_dir, None)
    server = open_server(spec.tracking, runs_dir)
    one, two = (Mirror(server, spec, folder, is_live=True) for _ in range(2))
    with one.alone() as is_first, two.alone() as is_second:
        assert (is_first, is_second) == (True, False)
    with two.alone() as is_alone:
        assert is_alone
    assert server.name == server_module.DATABASE
