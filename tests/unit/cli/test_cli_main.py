"""One program for all commands: quick to say what it can do, and quick to refuse."""

import subprocess
import sys
from pathlib import Path

import pytest

import mixlens
from mixlens.cli.main import COMMANDS, EXIT_CODES, main

ROOT = Path(__file__).resolve().parents[3]
QUICKSTART = "sweeps/quickstart.yaml"
HEAVY = {"torch", "ray", "pandas", "transformers", "mlflow", "matplotlib", "scipy", "deepspeed"}
SCRIPT = f"""
import sys
from mixlens.cli import main
try:
    main()
finally:
    print("loaded:", *sorted({HEAVY!r} & set(sys.modules)))
"""


def started(*words: str) -> subprocess.CompletedProcess[str]:
    """A process of its own, whose last line says which heavy libraries it loaded."""
    return subprocess.run(
        [sys.executable, "-c", SCRIPT, *words], cwd=ROOT, capture_output=True, text=True,
    )  # fmt: skip


def test_help_names_every_command_and_exit_code_and_loads_nothing():
    done = started("--help")
    assert done.returncode == 0, done.stderr
    for name in COMMANDS:
        assert f"\n  {name} " in done.stdout
    assert EXIT_CODES in done.stdout
    assert done.stdout.splitlines()[-1] == "loaded:"


@pytest.mark.parametrize("name", COMMANDS)
def test_every_command_explains_itself(
    name: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
):
    monkeypatch.setattr(sys, "argv", ["mixlens", name, "--help"])
    with pytest.raises(SystemExit) as ended:
        main()
    assert ended.value.code == 0
    told = capsys.readouterr().out
    assert told.startswith(f"usage: mixlens {name} ")
    assert f"  mixlens {name}" in told.partition("\n\n")[2]  # an example


def test_a_wrong_file_is_refused_before_anything_heavy_is_loaded():
    done = started("sweep", QUICKSTART, "training.stepz=3", "--dry-run")
    assert done.returncode == 2
    assert done.stdout == "loaded:\n"
    (message,) = done.stderr.splitlines()
    assert message.startswith(f"error: {QUICKSTART}: training.stepz: got 3: unknown key.")


@pytest.mark.parametrize("words", [[], ["swep"], ["sweep"], ["report", "a", "b"], ["--no-such"]])
def test_words_that_are_no_command_end_with_two(
    words: list[str], monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
):
    monkeypatch.setattr(sys, "argv", ["mixlens", *words])
    with pytest.raises(SystemExit) as ended:
        main()
    assert ended.value.code == 2
    assert capsys.readouterr().err.startswith("usage: mixlens")


@pytest.mark.parametrize("start", [["-m", "mixlens"], ["jobs/sweep.py"]])
def test_python_m_and_a_job_are_the_same_program(start: list[str]):
    words = [] if start[0] == "jobs/sweep.py" else ["sweep"]
    done = subprocess.run(
        [sys.executable, *start, *words, "no_such.yaml"], cwd=ROOT, capture_output=True, text=True,
    )  # fmt: skip
    assert done.returncode == 2
    assert done.stderr.startswith("error: sweep file: got 'no_such.yaml': no such file.")


def test_every_job_but_the_training_of_the_base_is_a_command():
    scripts = {file.stem for file in (ROOT / "jobs").glob("[a-z]*.py")}
    assert scripts - {"pretrain"} <= set(COMMANDS)
    for name in scripts - {"pretrain"}:
        assert f'main("{name}")' in (ROOT / "jobs" / f"{name}.py").read_text()


def test_the_version(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]):
    monkeypatch.setattr(sys, "argv", ["mixlens", "--version"])
    with pytest.raises(SystemExit) as ended:
        main()
    assert ended.value.code == 0
    assert capsys.readouterr().out == f"mixlens {mixlens.__version__}\n"
