"""The thread that brings a run directory to MLflow while work goes on in it.

Nothing ever waits for it but the end, and that for a stated time: what is not there by then stays
on disk, and `mixlens track RUN` sends it.
"""

import shlex
import sys
import threading
from collections.abc import Callable, Iterable
from pathlib import Path
from types import TracebackType

import mixlens
from mixlens.design import SweepSpec
from mixlens.spec import MeasureSpec
from mixlens.tracking.mirror import Mirror
from mixlens.tracking.server import how_to_look, open_server

EVERY_S = 3.0  # between two looks at the disk
LONGEST_S = 60.0  # between two tries of a server that does not answer
END_S = 30.0  # the end of a job waits so long for MLflow
STOP_S = 10.0  # and one that is stopped or fails, so long

Say = Callable[[str], object]


class Writer:
    """Sends from a thread of its own, from `start` on; made by `open_writer`.

    Use it as a context: whatever ends the block early closes the MLflow runs as KILLED when it was
    stopped from outside, such as by Ctrl-C, else as FAILED.
    """

    def __init__(self, mirror: Mirror) -> None:
        self._mirror = mirror
        self._say: Say = lambda _: None
        self._wake, self._closing = threading.Event(), threading.Event()
        self._is_done = threading.Event()
        self._thread = threading.Thread(target=self._work, name="mlflow", daemon=True)
        self._problem = ""

    @property
    def how_to_look(self) -> str:
        """The address of the server, or the command that shows the database."""
        return how_to_look(self._mirror.server)

    def start(self, say: Say) -> None:
        """Begin to send; `say` gets a line when MLflow stops and when it begins to answer."""
        self._say = say
        self._mirror.begin()
        self._thread.start()

    def finish(self, failed: Iterable[str] = ()) -> str:
        """Say that the work is done, and wait for at most `END_S` seconds until all is sent.

        Args:
            failed: names of the trials that failed.

        Returns:
            what is not there yet, and what to do; empty if all is there.
        """
        failed = list(failed)
        statuses = dict.fromkeys(failed, "FAILED")
        statuses[self._mirror.members[0].name] = "FAILED" if failed else "FINISHED"
        self._mirror.end(statuses)
        return self._close(END_S)

    def __enter__(self) -> "Writer":
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        if error is None or not self._thread.is_alive():
            return
        status = "FAILED" if isinstance(error, Exception) else "KILLED"
        members = self._mirror.members
        unfinished = [one.name for one in members[1:] if not one.is_finished()]
        self._mirror.end(dict.fromkeys([members[0].name, *unfinished], status))
        if behind := self._close(STOP_S):
            self._say(behind)

    def _close(self, seconds: float) -> str:
        self._closing.set()
        self._wake.set()
        is_done = self._is_done.wait(seconds)
        refused = list(self._mirror.refused)
        lines = (
            [f"MLflow was not given {refused[0]}" + _others(len(refused) - 1)] if refused else []
        )
        if not is_done and (backlog := self._mirror.missing()):
            why = f" ({self._problem})" if self._problem else ""
            lines.append(
                f"MLflow has not got everything within {seconds:g} s{why}: {backlog} are missing. "
                f"Nothing is lost; send them with\n  {track_command(self._mirror.root)}"
            )
        return "\n".join(lines)

    def _work(self) -> None:
        pause = EVERY_S
        while True:
            is_last = self._closing.is_set()  # before the look, which so sees all there is
            try:
                with self._mirror.alone() as is_alone:
                    if is_alone:
                        self._mirror.send()
                    self._answers("" if is_alone else "another process sends this folder's runs")
            except Exception as error:  # whatever it is, the job goes on
                self._answers(str(error) or type(error).__name__)
            if self._problem:
                pause = min(2 * pause, LONGEST_S)
            else:
                pause = EVERY_S
                if is_last:
                    self._is_done.set()
                    return
            self._wake.wait(1.0 if is_last else pause)
            self._wake.clear()

    def _answers(self, problem: str) -> None:
        """Tell when MLflow stops to answer, and when it does again."""
        for note in self._mirror.notes:
            self._say(note)
        self._mirror.notes.clear()
        if problem and not self._problem:
            self._say(f"MLflow: {problem} The work goes on; what is missing is sent later.")
        elif self._problem and not problem:
            self._say("MLflow: it answers again, and what was missing is sent.")
        self._problem = problem


def open_writer(spec: SweepSpec | MeasureSpec, root: Path, runs_dir: Path) -> Writer:
    """Reach MLflow; the writer of the run directory `root`, which does not send yet.

    Raises:
        ResourceError: the server does not answer within seconds, or cannot be used.
    """
    return Writer(Mirror(open_server(spec.tracking, runs_dir), spec, root, is_live=True))


def track_command(root: Path) -> str:
    """The shell command that sends what is missing of a run directory."""
    python = Path(sys.executable)
    script = python.parent / "mixlens"
    if script.is_file():
        return shlex.join([str(script), "track", str(root)])
    # From a checkout that is not installed.
    command = shlex.join([str(python), "-m", "mixlens", "track", str(root)])
    return f"PYTHONPATH={shlex.quote(str(Path(mixlens.__file__).parents[1]))} {command}"


def _others(count: int) -> str:
    return f" ({count} more like it)" if count else ""
