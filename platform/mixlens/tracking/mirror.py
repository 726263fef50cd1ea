"""Bring a run directory to MLflow: what is on disk and not there, again and again."""

import threading
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from mixlens.design import SweepSpec
from mixlens.errors import MixlensError
from mixlens.spec import MeasureSpec
from mixlens.tracking.content import Member, Stamp, members_of
from mixlens.tracking.ledger import LEDGER, Ledger
from mixlens.tracking.notes import describe_experiment
from mixlens.tracking.server import Server, UnreachableError, locked
from mixlens.tracking.sink import Missing, Sender

_KEY = "mixlens.key"
_FOLDER = "mixlens.folder"
LOCK = "tracking.lock"
_ON_DISK = (MixlensError, OSError, ValueError, KeyError)  # what a damaged result raises


@dataclass(frozen=True)
class Backlog:
    """What MLflow does not have yet."""

    points: int = 0
    others: int = 0
    runs: int = 0

    def __bool__(self) -> bool:
        return bool(self.runs)

    def __str__(self) -> str:
        return f"{self.points:,} points and {self.others:,} files and tags of {self.runs} runs"


class Mirror:
    """MLflow's picture of one run directory.

    Args:
        server: where the picture is.
        spec: of the directory.
        root: the directory.
        is_live: whether the work in it goes on, so that what has not ended is RUNNING.
    """

    def __init__(
        self, server: Server, spec: SweepSpec | MeasureSpec, root: Path, is_live: bool
    ) -> None:
        self.server, self.root, self.is_live = server, root, is_live
        self.members = members_of(spec, root)
        self.refused: dict[str, None] = {}
        self.notes: list[str] = []
        self._experiment = spec.tracking.experiment
        self._ledgers: dict[Path, Ledger] = {}
        self._ledgers_lock = threading.Lock()
        self._senders: dict[Path, Sender] = {}
        self._seen: dict[tuple[Path, str], Stamp] = {}
        self._described = False

    @contextmanager
    def alone(self) -> Iterator[bool]:
        """Be the only one that brings this directory to MLflow; False if another process does."""
        self.root.mkdir(parents=True, exist_ok=True)
        with locked(self.root / LOCK) as is_held:
            yield is_held

    def send(self, told: Callable[[str], object] = lambda _: None) -> None:
        """Bring everything that is on disk and not there.

        Raises:
            UnreachableError: MLflow did not answer; the next call goes on where this one ended.
        """
        if not self._described:
            with self.server.explained():
                describe_experiment(self.server)
            self._described = True
        for member in self.members:
            if member.begins.exists():
                self._send(member, told)

    def _send(self, member: Member, told: Callable[[str], object]) -> None:
        sender = self._sender(member)
        ledger = sender.ledger
        is_finished = member.is_finished()
        sender.tag(_FOLDER, str(member.folder))
        for section in member.sections:
            stamp, place = section.stamp(), (member.folder, section.name)
            if stamp is not None and self._seen.get(place) != stamp:
                told(f"{member.name}: {section.name}")
                try:
                    section.write(sender)
                except UnreachableError:
                    raise
                except _ON_DISK as error:  # one damaged result; the others go on
                    self.refused[f"{member.name}, {section.name}: {error}"] = None
                self._seen[place] = stamp
        if not ledger.is_sure:
            ledger.is_sure = True
            ledger.write()
        status = self._status(member, ledger, is_finished)
        end = None if (at := member.finished_at()) is None else int(1000 * at)
        sender.set_status(status, end)

    def _status(self, member: Member, ledger: Ledger, is_finished: bool) -> str:
        """What the run is, by its results or, without them, by whoever worked on it."""
        if ledger.ended:
            return ledger.ended
        if member.kind in ("sweep", "model"):
            if self.is_live:
                return "RUNNING"
            rest = self.members[1:]
            return (
                "FINISHED" if is_finished and all(one.is_finished() for one in rest) else "KILLED"
            )
        if is_finished:
            return "FINISHED"
        return "RUNNING" if self.is_live else "KILLED"

    def end(self, statuses: Mapping[str, str]) -> None:
        """Note how the work on runs ended, by their names; it goes on where nothing is said.

        It only writes to the disk.
        """
        for member in self.members:
            if member.name in statuses and member.begins.exists():
                self._ledger(member).end(statuses[member.name])

    def begin(self) -> None:
        """Note that work on everything that is not finished goes on."""
        for member in self.members:
            if member.begins.exists() and (member.folder / LEDGER).is_file():
                self._ledger(member).end("")

    def missing(self) -> Backlog:
        """What MLflow does not have yet, by what is written here; no server is asked."""
        backlog = Backlog()
        for member in self.members:
            if not member.begins.exists():
                continue
            ledger = Ledger.read(member.folder / LEDGER, self.server.name)
            sink = Missing(ledger)
            for section in member.sections:
                stamp = section.stamp()
                if stamp is not None and self._seen.get((member.folder, section.name)) != stamp:
                    try:
                        section.write(sink)
                    except _ON_DISK:
                        sink.others += 1
            status = self._status(member, ledger, member.is_finished())
            others = sink.others + (status != ledger.status)
            if sink.points or others:
                backlog = Backlog(
                    backlog.points + sink.points, backlog.others + others, backlog.runs + 1
                )
        return backlog

    def _ledger(self, member: Member) -> Ledger:
        with self._ledgers_lock:
            if member.folder not in self._ledgers:
                self._ledgers[member.folder] = Ledger.read(member.folder / LEDGER, self.server.name)
            return self._ledgers[member.folder]

    def _sender(self, member: Member) -> Sender:
        """Of the MLflow run of `member`, which is looked for once and made where there is none."""
        if member.folder not in self._senders:
            ledger = self._ledger(member)
            with self.server.explained():
                run_id = self._existing(ledger, member) or self._make(ledger, member)

            def refused(line: str) -> None:
                self.refused[f"{member.name}, {line}"] = None

            self._senders[member.folder] = Sender(self.server, run_id, ledger, refused)
        return self._senders[member.folder]

    def _existing(self, ledger: Ledger, member: Member) -> str | None:
        """Id of the run with this key; None where there is none, or it was deleted."""
        client, experiments = self.server.client, [self.server.experiment_id]
        found = client.search_runs(experiments, f"tags.`{_KEY}` = '{ledger.key}'", max_results=1)
        if not found and ledger.is_damaged:
            # The key is lost. The folder is the next best: it is where the run was made.
            self.notes.append(
                f"{ledger.file} was damaged: MLflow is asked what it has of {member.name}"
            )
            candidates = client.search_runs(experiments, f"tags.`mixlens.kind` = '{member.kind}'")
            found = [run for run in candidates if run.data.tags.get(_FOLDER) == str(member.folder)][
                :1
            ]
            if found:
                ledger.adopt(found[0].data.tags[_KEY])
        return found[0].info.run_id if found else None

    def _make(self, ledger: Ledger, member: Member) -> str:
        ledger.forget()  # a run that was deleted takes what it held with it
        tags = {**member.tags, _KEY: ledger.key, _FOLDER: str(member.folder)}
        if member is not self.members[0]:
            tags["mlflow.parentRunId"] = self._sender(self.members[0]).run_id
        times = [member.begins.stat().st_mtime] if member.begins.exists() else []
        times += [at] if (at := member.finished_at()) is not None else []
        begun = int(1000 * min(times))
        run = self.server.client.create_run(
            self.server.experiment_id, start_time=begun, tags=tags, run_name=member.name
        )
        return run.info.run_id
