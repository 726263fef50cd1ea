import io
import os
import subprocess
import sys
from pathlib import Path

import pytest

from mixlens.design import SweepSpec, Trial, asked_trials
from mixlens.spec import load_spec
from mixlens.sweep.quiet import chatter_to
from mixlens.sweep.records import start_trial
from mixlens.sweep.view import SweepView

ROOT = Path(__file__).resolve().parents[3]


@pytest.fixture(scope="module")
def runs() -> tuple[Trial, ...]:
    return asked_trials(load_spec(SweepSpec, ROOT / "sweeps" / "quickstart.yaml"))[:3]


def test_without_a_terminal_stages_are_told_in_lines(runs: tuple[Trial, ...]):
    out = io.StringIO()
    first, second, third = (trial.name for trial in runs)
    _, at_work, last = runs
    with SweepView(runs, frozenset([first]), out) as view:
        view.update(at_work, "training", {"step": 0})
        view.update(at_work, "training", {"step": 1, "loss": 2.5})  # too soon for another line
        view.update(at_work, "measuring")
        view.update(at_work, "done", {"accuracy/coarse": 0.875, "loss": 2.0})
        view.update(last, "failed")
    lines = out.getvalue().splitlines()
    assert [line.split()[:2] for line in lines] == [
        [second, "step"], [second, "measuring"], [second, "done"], [third, "failed"],
    ]  # fmt: skip
    assert "coarse 0.88" in lines[2]
    assert "loss" not in lines[2]
    assert "2/3 trials" in lines[3]


def test_in_a_narrow_terminal_names_are_whole_and_the_screen_is_the_views_alone(
    runs: tuple[Trial, ...], tmp_path: Path
):
    script = (
        "import sys; from pathlib import Path\n"
        "from mixlens.design import SweepSpec, asked_trials; from mixlens.spec import load_spec\n"
        "from mixlens.sweep.quiet import chatter_to; from mixlens.sweep.view import SweepView\n"
        "runs = asked_trials(load_spec(SweepSpec, Path('sweeps/quickstart.yaml')))[:3]\n"
        "with chatter_to(Path(sys.argv[1])) as out, SweepView(runs, frozenset(), out) as view:\n"
        "    print('a library says'); print('something', file=sys.stderr)\n"
        "    view.update(runs[0], 'training', {'step': 3, 'loss': 2.5})\n"
    )
    main_end, child_end = os.openpty()
    environment = os.environ | {"TERM": "xterm", "COLUMNS": "60"}
    subprocess.run(
        [sys.executable, "-c", script, tmp_path / "log"],
        cwd=ROOT, stdout=child_end, stderr=child_end, env=environment, check=True,
    )  # fmt: skip
    os.close(child_end)
    screen = os.read(main_end, 1 << 16).decode()
    assert "ratio=0,seed=0" in screen
    assert "ratio=0.25,seed=0" in screen
    assert f"step 3/{runs[0].run.training.steps}" in screen
    assert "says" not in screen
    assert "something" not in screen
    assert (tmp_path / "log").read_text().split("\n") == ["a library says", "something", ""]


def test_time_left_is_this_starts_pace_over_what_is_missing(
    runs: tuple[Trial, ...], monkeypatch: pytest.MonkeyPatch
):
    now = [100.0]
    monkeypatch.setattr("time.monotonic", lambda: now[0])
    view = SweepView(runs, frozenset([runs[0].name]), io.StringIO())
    now[0] += 60
    assert view.time_left() == "1:00 so far"
    view.update(runs[1], "done")
    # One trial took 60 s and one is missing; the one of an earlier start tells nothing.
    assert view.time_left() == "1:00 so far, about 1:00 left"


def test_everything_a_process_prints_goes_to_the_file(tmp_path: Path):
    script = (
        "import os, sys; sys.path.insert(0, sys.argv[2]);"
        "from mixlens.sweep.quiet import chatter_to; from pathlib import Path\n"
        "with chatter_to(Path(sys.argv[1])) as screen:\n"
        "    print('from python'); print('error', file=sys.stderr)\n"
        "    os.system('echo from a child'); print('for a person', file=screen)\n"
        "print('after')"
    )
    log = tmp_path / "logs" / "chatter.log"
    done = subprocess.run(
        [sys.executable, "-c", script, log, ROOT / "platform"], capture_output=True, text=True
    )
    assert done.stdout == "for a person\nafter\n"
    assert done.stderr == ""
    assert set(log.read_text().split("\n")) == {"from python", "error", "from a child", ""}


def test_output_comes_back_after_an_error(tmp_path: Path):
    before = os.fstat(1).st_ino
    with pytest.raises(ValueError, match="inside"), chatter_to(tmp_path / "log"):
        raise ValueError("inside")
    assert os.fstat(1).st_ino == before


def test_a_trials_folder_tells_what_runs_there(runs: tuple[Trial, ...], tmp_path: Path):
    start_trial(runs[0], tmp_path)
    assert Trial.model_validate_json((tmp_path / "trial.json").read_text()) == runs[0]
    assert not list(tmp_path.glob("*.part"))


@pytest.mark.case
def test_a_full_disk_below_the_log_silences_only_the_log(tmp_path: Path):
    """Libraries print on, and nothing of what they say comes to the screen later."""
    script = (
        "import os, sys; from mixlens.sweep.quiet import chatter_to; from pathlib import Path\n"
        "known = sys.stdout\n"
        "with chatter_to(Path('/dev/full')) as screen:\n"
        "    print('from python'); print('error', file=sys.stderr); sys.stdout.flush()\n"
        "    print('by an older stream', file=known); os.system('echo from a child 2>/dev/null')\n"
        "    print('for a person', file=screen)\n"
        "print('after')"
    )
    environment = {k: v for k, v in os.environ.items() if k != "PYTHONUNBUFFERED"}
    done = subprocess.run(
        [sys.executable, "-c", script], capture_output=True, text=True, env=environment
    )
    assert done.returncode == 0, done.stderr
    told, lacks, after = done.stdout.splitlines()
    assert (told, after) == ("for a person", "after")
    assert lacks == "/dev/full lacks 18 bytes: [Errno 28] No space left on device"
    assert done.stderr == ""


@pytest.mark.case
def test_what_a_library_found_in_place_of_the_screen_never_leads_elsewhere(tmp_path: Path):
    """Loggers that were made under a first log write to the second one, and then to the screen."""
    script = (
        "import logging, sys; from pathlib import Path\n"
        "from mixlens.sweep.quiet import chatter_to\n"
        "one, two = map(Path, sys.argv[1:])\n"
        "with chatter_to(one): logging.basicConfig(stream=sys.stderr)\n"
        "other = open(two.with_name('data'), 'w')\n"  # gets the number of what was closed
        "with chatter_to(two): logging.warning('to the second')\n"
        "logging.warning('to the screen')\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", script, tmp_path / "one", tmp_path / "two"],
        capture_output=True, text=True, check=True,
    )  # fmt: skip
    assert (done.stdout, done.stderr) == ("", "WARNING:root:to the screen\n")
    contents = {file.name: file.read_text() for file in tmp_path.iterdir()}
    assert contents == {"one": "", "two": "WARNING:root:to the second\n", "data": ""}
