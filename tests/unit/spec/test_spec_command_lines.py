"""Every job takes flags and `key=value` in any order."""

import itertools
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[3]
SWEEP = ["sweeps/quickstart.yaml", "--dry-run"]
PRETRAIN = ["--keep-installed"]


def told(job: str, *words: str) -> str:
    done = subprocess.run(
        [sys.executable, f"jobs/{job}.py", *words],
        cwd=ROOT, capture_output=True, text=True, check=False, timeout=60,
    )  # fmt: skip
    assert done.returncode == 2, done.stderr
    return done.stderr


@pytest.mark.case
@pytest.mark.parametrize(
    ("job", "words"), [("sweep", SWEEP), ("pretrain", ["jobs/pretrain.yaml", *PRETRAIN])]
)
def test_flags_and_overrides_come_in_any_order(job: str, words: list[str]):
    """A key that does not exist shows that the override was read, and that nothing starts."""
    for order in itertools.permutations([*words, "nam=x"]):
        if order.index("nam=x") < order.index(words[0]):
            continue  # the file comes before what is said of it
        assert "unknown key. Did you mean 'name'" in told(job, *order), order


def test_the_recipe_of_the_base_need_not_be_named():
    for words in (["nam=x"], ["nam=x", *PRETRAIN], [*PRETRAIN, "nam=x"]):
        assert "jobs/pretrain.yaml: nam: got 'x': unknown key" in told("pretrain", *words)
    assert "no such file" in told("pretrain", "nothing.yaml", *PRETRAIN)
