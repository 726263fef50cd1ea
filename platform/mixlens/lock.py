"""One owner of a folder at a time: two jobs that write the same files would spoil them.

`lock.json` in the folder says whose it is. It is made in one step, by whoever comes first, and its
owner touches it every few seconds. A process on the same machine is looked up by its id; of one
elsewhere, only the touches tell that it lives. Nothing but plain files is used, so that it works
on network file systems, too.
"""

import json
import os
import shlex
import signal
import socket
import threading
import time
import uuid
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import asdict, dataclass
from pathlib import Path

from mixlens.errors import ResourceError, explain

LOCK = "lock.json"
BEAT_S = 5.0  # between two touches
SILENT_S = 60.0  # without a touch, an owner on another machine is taken for dead
_WRITING_S = 2.0  # at most, between a lock's creation and its content


@dataclass(frozen=True)
class Owner:
    """Who holds a folder.

    Attributes:
        id: of this one hold.
        machine: the running kernel and the space of process ids there; the same for processes that
            can look each other up.
        host: its name, for people.
        pid: of the process.
        started: when the process began, in the kernel's ticks, because process ids are used again.
        since: for people.
        command: the program and its arguments.
    """

    id: str
    machine: str
    host: str
    pid: int
    started: int
    since: str
    command: str

    @classmethod
    def here(cls, command: Sequence[str]) -> "Owner":
        pid = os.getpid()
        since, text = time.strftime("%F %T %z"), shlex.join(command)
        return cls(
            uuid.uuid4().hex, _machine(), socket.gethostname(), pid, _started(pid) or 0, since, text
        )

    def __str__(self) -> str:
        return f"process {self.pid} on {self.host} since {self.since} (`{self.command}`)"


@contextmanager
def held(folder: Path, command: Sequence[str], say: Callable[[str], None]) -> Iterator[None]:
    """Own `folder`, which is made, while the block runs.

    If another process takes it over meanwhile, because this one was silent for too long, the block
    is ended.

    Args:
        folder: of the results.
        command: what a person started.
        say: told when the folder is taken over from a process that is dead.

    Raises:
        ResourceError: somebody else owns it, or has taken it over.
    """
    made = [path for path in (folder, *folder.parents) if not path.exists()]
    folder.mkdir(parents=True, exist_ok=True)
    lock, own = folder / LOCK, Owner.here(command)
    while not _made(lock, own):
        _take_away(lock, say)
    ended = threading.Event()
    heart = threading.Thread(target=_beat, args=(lock, own, ended), daemon=True)
    heart.start()
    try:
        yield
    except KeyboardInterrupt:  # so SIGTERM ends it, which `_beat` sends
        if (other := _owner(lock)) is not None and other.id != own.id:
            remedy = "Let that one go on, or stop it and start this command again."
            problem = f"was taken over by {other}, because this process was silent for too long"
            raise ResourceError(explain(str(lock), own.pid, problem, remedy)) from None
        raise
    finally:
        ended.set()
        heart.join()
        if (owner := _owner(lock)) is not None and owner.id == own.id:
            lock.unlink(missing_ok=True)
        with suppress(OSError):  # something was written there
            for path in made:
                path.rmdir()


def _made(lock: Path, own: Owner) -> bool:
    """Whether the lock was made now, and not there before."""
    try:
        number = os.open(lock, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o644)
    except FileExistsError:
        return False
    try:
        with os.fdopen(number, "w") as file:
            json.dump(asdict(own), file, indent=1)
    except OSError:  # a full disk
        lock.unlink(missing_ok=True)
        raise
    return True


def _take_away(lock: Path, say: Callable[[str], None]) -> None:
    """Remove the lock of a dead owner.

    Raises:
        ResourceError: its owner lives, or may.
    """
    owner = _owner(lock)
    if owner is None and not lock.exists():
        return  # it has just been given back
    silent = _silent_s(lock)
    if owner is not None and owner.machine and owner.machine == _machine():
        is_dead, signs = _started(owner.pid) != owner.started, ""
    else:
        is_dead = silent > SILENT_S
        signs = f", whose last sign is {silent:.0f} s old"
    if not is_dead:
        raise ResourceError(
            explain(
                str(lock.parent), "a folder in use", f"it is held by {owner or 'somebody'}{signs}",
                "Wait until that has ended, or stop it there; or set another runs_dir or name. Of "
                f"a process that is gone, the folder is free {SILENT_S:g} s after its last sign.",
            )
        )  # fmt: skip
    # Of those who find it dead at once, one removes it, or the new lock of the first could go.
    guard = lock.with_name(f"{lock.name}.taken")
    try:
        os.close(os.open(guard, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o644))
    except FileExistsError:
        if _silent_s(guard) > SILENT_S:  # who made it died before the next line
            guard.unlink(missing_ok=True)
        time.sleep(0.05)
        return
    try:
        if _owner(lock) == owner and (owner is not None or _silent_s(lock) > SILENT_S):
            say(f"{lock.parent}: taken over from {owner or 'nobody known'}, which is dead")
            lock.unlink(missing_ok=True)
    finally:
        guard.unlink(missing_ok=True)


def _beat(lock: Path, own: Owner, ended: threading.Event) -> None:
    """Touch the lock until `ended`; end this process as SIGTERM does if it is somebody else's."""
    while not ended.wait(BEAT_S):
        owner = _owner(lock)
        if owner is not None and owner.id != own.id:
            os.kill(os.getpid(), signal.SIGTERM)
            return
        with suppress(OSError):  # its file system is away for a while
            if owner is None and not lock.exists() and lock.parent.is_dir():
                _made(lock, own)  # somebody has removed it
            else:
                os.utime(lock)


def _owner(lock: Path) -> Owner | None:
    """Who holds the lock; None where nobody does, or its content is damaged."""
    end = time.monotonic() + _WRITING_S
    while lock.exists():
        try:
            return Owner(**json.loads(lock.read_text()))
        except (OSError, ValueError, TypeError):
            if time.monotonic() > end:
                return None
            time.sleep(0.05)
    return None


def _silent_s(lock: Path) -> float:
    """Seconds since the last touch, by the clock of the file system: hosts may have other times."""
    probe = lock.with_name(f"{lock.name}.{uuid.uuid4().hex[:8]}")
    probe.touch()
    try:
        # Opening has a network file system look for news.
        with probe.open() as now, lock.open() as last:
            return os.fstat(now.fileno()).st_mtime - os.fstat(last.fileno()).st_mtime
    except FileNotFoundError:
        return 0.0
    finally:
        probe.unlink(missing_ok=True)


def _machine() -> str:
    """The running kernel and the space of process ids that this process sees; empty: unknown."""
    try:
        boot = Path("/proc/sys/kernel/random/boot_id").read_text().strip()
        return f"{boot} {Path('/proc/self/ns/pid').readlink()}"
    except OSError:
        return ""


def _started(pid: int) -> int | None:
    """When a process of this machine began; None if there is none of this id."""
    try:
        state, *fields = Path(f"/proc/{pid}/stat").read_text().rpartition(") ")[2].split()
    except OSError:
        return None
    return None if state in "ZX" else int(fields[18])
