"""`tracking.json` beside the results of a run: what MLflow has of it, on each server.

Something is noted before it is sent (`begun`) and again when MLflow has answered. What was begun
and has no answer may be there or not: only then the server is asked what it has. A ledger that was
cut short says nothing, so everything is asked for.
"""

import hashlib
import json
import os
import threading
import time
import uuid
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field
from functools import wraps
from pathlib import Path
from typing import Any

LEDGER = "tracking.json"
STEPS = "steps"


def _alone(change: Callable[..., Any]) -> Callable[..., Any]:
    """One change at a time: one thread sends, another says how the work ended."""

    @wraps(change)
    def one(ledger: "Ledger", *arguments: Any) -> Any:
        with ledger.lock:
            return change(ledger, *arguments)

    return one


@dataclass
class Ledger:
    """What MLflow has of one run; every change is on disk when the call returns.

    Attributes:
        file: the `tracking.json` of the run's directory.
        server: the name of the server that this is about.
        key: tag of the MLflow run, drawn before it is made. A process that dies between the two
            finds the run by it.
        is_sure: whether everything that was sent is written here. If not, ask the server.
        is_damaged: whether the file could not be read, so that the key is lost as well.
        status: of the MLflow run, as it was last sent.
        ended: how the work on the run ended, where its results do not say so.
        steps: the training steps that are logged.
        logged: digest of the content of each named set.
        begun: what has no answer yet: for a set its digest and time stamp; under `STEPS` steps.
    """

    file: Path
    server: str
    key: str = field(default_factory=lambda: uuid.uuid4().hex)
    is_sure: bool = True
    is_damaged: bool = False
    status: str = ""
    ended: str = ""
    steps: set[int] = field(default_factory=set)
    logged: dict[str, str] = field(default_factory=dict)
    begun: dict[str, dict[str, Any]] = field(default_factory=dict)
    lock: Any = field(default_factory=threading.RLock, repr=False)

    @classmethod
    def read(cls, file: Path, server: str) -> "Ledger":
        try:
            everything = _content(file)
            own = everything.get(server)
            if own is None or "is_sure" not in own:
                return cls(file, server, **_of_before(everything, server))
            return cls(
                file, server, str(own["key"]), bool(own["is_sure"]), False, str(own["status"]),
                str(own["ended"]), set(_unfold(own["steps"])), dict(own["logged"]),
                dict(own["begun"]),
            )  # fmt: skip
        except (ValueError, KeyError, TypeError, AttributeError):
            return cls(file, server, is_sure=False, is_damaged=True)

    @_alone
    def forget(self) -> None:
        """Start from nothing, because the MLflow run is gone, with a new key."""
        self.key, self.is_sure, self.is_damaged = uuid.uuid4().hex, True, False
        self.status, self.steps, self.logged, self.begun = "", set(), {}, {}
        self.write()

    @_alone
    def adopt(self, key: str) -> None:
        """Belong to an MLflow run that is there already, of which nothing is known."""
        self.key, self.is_damaged = key, False
        self.write()

    @_alone
    def begin(self, name: str, digest: str) -> tuple[int, bool]:
        """Note that the set `name` is about to be sent.

        Returns:
            its time stamp, ms, the same at every try, so that MLflow knows a point that comes
            twice; and whether MLflow can have any of it already.
        """
        before = self.begun.get(name)
        may_be_there = before is not None or name in self.logged or not self.is_sure
        if before is None or before["digest"] != digest:
            before = self.begun[name] = {"digest": digest, "time": now_ms()}
            self.write()
        return int(before["time"]), may_be_there

    @_alone
    def done(self, name: str, digest: str) -> None:
        """Note that the set is there."""
        self.begun.pop(name, None)
        self.logged[name] = digest
        self.write()

    @_alone
    def begin_steps(self, steps: Iterable[int], end_ms: int) -> None:
        """Note that these training steps are about to be sent; the last was done at `end_ms`."""
        waiting, _ = self.begun_steps()
        self.begun[STEPS] = {"steps": _fold(waiting.union(steps)), "time": end_ms}
        self.write()

    def begun_steps(self) -> tuple[set[int], int]:
        """The steps that were sent and have no answer, and the time of the last one, ms."""
        begun = self.begun.get(STEPS, {"steps": [], "time": now_ms()})
        return set(_unfold(begun["steps"])), int(begun["time"])

    @_alone
    def done_steps(self, steps: Iterable[int]) -> None:
        """Note that these steps are there."""
        self.steps.update(steps)
        waiting, end_ms = self.begun_steps()
        self.begun.pop(STEPS, None)
        # A resumed training may not have come to them again.
        if waiting - self.steps:
            self.begun[STEPS] = {"steps": _fold(waiting - self.steps), "time": end_ms}
        self.write()

    @_alone
    def end(self, status: str) -> None:
        """Note how the work on the run ended; nothing: it goes on."""
        if status != self.ended:
            self.ended = status
            self.write()

    @_alone
    def sent_status(self, status: str) -> None:
        """Note the status that MLflow has."""
        self.status = status
        self.write()

    @_alone
    def write(self) -> None:
        own = {
            "key": self.key, "is_sure": self.is_sure, "status": self.status, "ended": self.ended,
            "steps": _fold(self.steps), "logged": self.logged, "begun": self.begun,
        }  # fmt: skip
        try:
            everything = _content(self.file)
        except ValueError:
            everything = {}
        everything[self.server] = own
        self.file.parent.mkdir(parents=True, exist_ok=True)
        part = self.file.with_suffix(".part")
        with part.open("w") as file:
            file.write(json.dumps(everything, indent=1) + "\n")
            file.flush()
            os.fsync(file.fileno())
        part.replace(self.file)


def digest_of(content: bytes) -> str:
    """What a set's content is remembered by."""
    return hashlib.sha256(content).hexdigest()[:16]


def now_ms() -> int:
    return int(1000 * time.time())


def _content(file: Path) -> dict[str, Any]:
    if not file.is_file():
        return {}
    content = json.loads(file.read_text())
    if not isinstance(content, dict):
        raise ValueError("no object")
    return content


def _of_before(everything: dict[str, Any], server: str) -> dict[str, Any]:
    """What an earlier version kept: the key, under the absolute path of a database."""
    for name, own in everything.items():
        is_database = name.startswith("sqlite:") and name.endswith(f"/{server}")
        if "is_sure" not in own and (name == server or is_database):
            return {"key": str(own["key"]), "is_sure": False}
    return {}


def _fold(steps: Iterable[int]) -> list[list[int]]:
    """Steps as [first, last, distance], ascending: few, because steps are logged regularly."""
    folded: list[list[int]] = []
    for step in sorted(set(steps)):
        if folded:
            run = folded[-1]
            if run[0] == run[1]:
                run[1], run[2] = step, step - run[0]
                continue
            if step - run[1] == run[2]:
                run[1] = step
                continue
        folded.append([step, step, 1])
    return folded


def _unfold(folded: Iterable[Sequence[int]]) -> list[int]:
    return [step for first, last, by in folded for step in range(first, last + 1, by)]
