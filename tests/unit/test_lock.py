"""A folder has one owner at a time, whoever comes, dies or falls silent."""

import json
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from mixlens import lock
from mixlens.errors import ResourceError
from mixlens.lock import LOCK, held

pytestmark = pytest.mark.case

HOLD = """
import sys, time
from pathlib import Path
from mixlens.errors import exit_clearly
from mixlens.lock import held
def main():
    with held(Path(sys.argv[1]), ["python", "jobs/sweep.py", "a file.yaml"], print):
        print("held", flush=True)
        time.sleep(60)
exit_clearly(main)
"""


@pytest.fixture
def holder(tmp_path: Path) -> Iterator[subprocess.Popen[str]]:
    """Another process that owns `tmp_path`."""
    with subprocess.Popen(
        [sys.executable, "-c", HOLD, tmp_path],
        stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
    ) as process:  # fmt: skip
        assert process.stdout is not None
        assert process.stdout.readline() == "held\n"
        yield process
        process.kill()


def silence(folder: Path, machine: str | None = None, seconds: float = 100) -> None:
    """Make the lock that of another machine, last touched so long ago."""
    file = folder / LOCK
    if machine is not None:
        file.write_text(json.dumps(json.loads(file.read_text()) | {"machine": machine}))
    then = time.time() - seconds
    os.utime(file, (then, then))


def take(folder: Path) -> list[str]:
    """Own the folder once; what was said."""
    said: list[str] = []
    with held(folder, ["second"], said.append):
        assert json.loads((folder / LOCK).read_text())["command"] == "second"
    return said


def test_the_second_is_told_who_holds_it_and_since_when(
    tmp_path: Path, holder: subprocess.Popen[str]
) -> None:
    since = json.loads((tmp_path / LOCK).read_text())["since"]
    silence(tmp_path)  # it is seen to live, so its silence means nothing
    with pytest.raises(ResourceError) as refused:
        take(tmp_path)
    told = str(refused.value)
    for part in (str(tmp_path), f"process {holder.pid} on ", since, "sweep.py 'a file.yaml'"):
        assert part in told
    # It ends as it should, and gives back what it held.
    holder.send_signal(signal.SIGTERM)
    assert holder.wait(30) == 143
    assert list(tmp_path.iterdir()) == []
    assert take(tmp_path) == []


def test_of_a_killed_process_it_is_taken_over_at_once(
    tmp_path: Path, holder: subprocess.Popen[str]
) -> None:
    holder.kill()
    holder.wait()
    (said,) = take(tmp_path)
    assert f"taken over from process {holder.pid}" in said
    assert list(tmp_path.iterdir()) == []


def test_of_another_machine_only_silence_tells(tmp_path: Path) -> None:
    with held(tmp_path, ["first"], print):
        content = (tmp_path / LOCK).read_text()
    (tmp_path / LOCK).write_text(content)
    silence(tmp_path, "another kernel pid:[1]", seconds=lock.SILENT_S / 2)
    with pytest.raises(ResourceError, match=r"last sign is 3\d s old"):
        take(tmp_path)
    silence(tmp_path, seconds=lock.SILENT_S + 5)
    assert len(take(tmp_path)) == 1


def test_a_process_of_the_same_id_is_not_the_owner(tmp_path: Path) -> None:
    """Process ids are used again, above all in containers: here it is this test's own."""
    with held(tmp_path, ["first"], print):
        content = json.loads((tmp_path / LOCK).read_text())
    (tmp_path / LOCK).write_text(json.dumps(content | {"started": content["started"] - 1}))
    assert len(take(tmp_path)) == 1


def test_a_damaged_lock_is_free_when_it_is_silent(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(lock, "_WRITING_S", 0.2)
    (tmp_path / LOCK).write_text('{"id": "a')
    with pytest.raises(ResourceError, match="held by somebody, whose last sign"):
        take(tmp_path)
    silence(tmp_path)
    assert len(take(tmp_path)) == 1


def test_the_owner_shows_that_it_lives_and_ends_when_it_was_taken_for_dead(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(lock, "BEAT_S", 0.05)
    from mixlens.errors import ending_on_sigterm

    def work() -> None:
        with ending_on_sigterm(), held(tmp_path, ["first"], print):
            silence(tmp_path)
            time.sleep(0.5)
            assert time.time() - (tmp_path / LOCK).stat().st_mtime < 5, "no beat"
            content = json.loads((tmp_path / LOCK).read_text())
            other = content | {"id": "other", "command": "second"}
            part = tmp_path / "part"
            part.write_text(json.dumps(other))
            part.rename(tmp_path / LOCK)
            time.sleep(10)
            raise AssertionError("it went on")

    with pytest.raises(ResourceError, match=r"was taken over by .*`second`"):
        work()
    assert json.loads((tmp_path / LOCK).read_text())["id"] == "other", "not ours to remove"


def test_of_many_who_take_over_at_once_one_gets_it(tmp_path: Path) -> None:
    with held(tmp_path, ["dead"], print):
        content = json.loads((tmp_path / LOCK).read_text())
    for _ in range(20):
        (tmp_path / LOCK).write_text(json.dumps(content | {"started": 1}))
        owners, together, ended = [], threading.Barrier(8), threading.Event()

        def start(
            owners: list[int], together: threading.Barrier, ended: threading.Event, number: int
        ) -> None:
            together.wait()
            try:
                with held(tmp_path, [str(number)], lambda _: None):
                    owners.append(number)
                    ended.wait()
            except ResourceError:
                pass

        threads = [
            threading.Thread(target=start, args=(owners, together, ended, number))
            for number in range(8)
        ]
        for thread in threads:
            thread.start()
        end = time.monotonic() + 10
        while sum(thread.is_alive() for thread in threads) > 1 and time.monotonic() < end:
            time.sleep(0.01)
        ended.set()
        for thread in threads:
            thread.join()
        assert len(owners) == 1


def test_a_folder_that_was_made_for_nothing_goes_again(tmp_path: Path) -> None:
    with pytest.raises(ValueError), held(tmp_path / "runs" / "name", ["a"], print):
        raise ValueError
    assert list(tmp_path.iterdir()) == []
