"""Data sets before a job starts, and photographs that were sound when they were indexed."""

import shutil
from pathlib import Path

import pytest

from mixlens.errors import DataError, SpecError
from mixlens.models.tiny import build_tiny_vllm
from mixlens.sources import open_source
from mixlens.spec import HELD_OUT_START, SweepSpec, held_out_of, load_spec
from mixlens.sweep.indexing import index_data
from mixlens.sweep.measuring import held_out_examples
from mixlens.sweep.plan import plan_sweep

ROOT = Path(__file__).resolve().parents[3]


def test_a_data_set_that_no_component_uses_is_not_opened(tmp_path):
    absent = f"data.unused={{root: {tmp_path / 'absent'}, train: {{annotations: a.json}}}}"
    spec = load_spec(
        SweepSpec, ROOT / "sweeps/quickstart.yaml", [absent, f"runs_dir={tmp_path / 'runs'}"]
    )
    assert spec.data
    indexed = index_data(spec)
    assert indexed.data == {}
    assert not (tmp_path / "runs").exists()
    plain = load_spec(SweepSpec, ROOT / "sweeps/quickstart.yaml")
    assert [run.digest() for run in indexed.runs()] == [run.digest() for run in plain.runs()]


def test_a_data_set_that_is_not_there_is_named(tmp_path):
    overrides = [f"data.coco.root={tmp_path / 'absent'}", f"runs_dir={tmp_path / 'runs'}"]
    spec = load_spec(SweepSpec, ROOT / "sweeps/coco_mix.yaml", overrides)
    with pytest.raises((DataError, SpecError), match=r"data\.coco\.root.*no such folder"):
        index_data(spec)


@pytest.fixture
def photographs(clean_coco_set, tmp_path) -> SweepSpec:
    """A sweep over photographs only, in files of its own."""
    root = tmp_path / "photos"
    shutil.copytree(clean_coco_set.root, root)
    build_tiny_vllm(tmp_path / "model", ["red"], size="test")
    spec = SweepSpec.model_validate(
        {
            "name": "photographs",
            "model": str(tmp_path / "model"),
            "runs_dir": str(tmp_path / "runs"),
            "data": {"photos": {**clean_coco_set.data, "root": str(root)}},
            "components": {
                "all": {"kind": "coco", "data": "photos", "tasks": {"coarse": 1, "locate": 1}}
            },
            "arms": {"all": {"all": 1.0}},
            "seeds": [0],
            "training": {"steps": 2, "global_batch": 8, "micro_batch": 8},
            "evaluation": {"component": "all", "examples": 8},
        }
    )
    return index_data(spec)


def _cut(spec: SweepSpec, index: int) -> None:
    """Cut the file of an image short, after it was indexed."""
    source = open_source("all", spec.components["all"], spec.data)
    (file,) = Path(spec.data["photos"].root).rglob(source.file_name(index))
    file.write_bytes(file.read_bytes()[:-200])


def test_a_damaged_photograph_does_not_stop_the_plan(photographs):
    source = open_source("all", photographs.components["all"], photographs.data)
    for index in range(0, source.size, 2):
        _cut(photographs, index)
    assert plan_sweep(photographs, time_a_step=True).seconds_a_step > 0


def test_a_held_out_photograph_that_was_damaged_since_is_named(photographs):
    held_out = held_out_of(photographs)
    assert all(one.image.ndim == 3 for one in held_out_examples(held_out, range(8)))
    _cut(photographs, HELD_OUT_START + 3)
    with pytest.raises(DataError, match=rf"all/{HELD_OUT_START + 3}: .*truncated.*Restore it"):
        held_out_examples(held_out, range(8))
