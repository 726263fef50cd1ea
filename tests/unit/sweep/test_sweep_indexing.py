"""Data sets before a job starts, and photographs that were sound when they were indexed."""

import io
import json
import re
import shutil
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from mixlens.design import SweepSpec, asked_trials
from mixlens.errors import DataError, SpecError
from mixlens.measurement.measure import held_out_examples
from mixlens.models.tiny import build_tiny_vlm
from mixlens.sources import open_source
from mixlens.spec import HELD_OUT_START, held_out_of, load_spec
from mixlens.sweep import progress
from mixlens.sweep.indexing import index_data
from mixlens.sweep.plan import check_evaluation, plan_sweep

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
    assert [one.run.digest() for one in asked_trials(indexed)] == [
        one.run.digest() for one in asked_trials(plain)
    ]


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
    build_tiny_vlm(tmp_path / "model", ["red"], size="test")
    spec = SweepSpec.model_validate(
        {
            "name": "photographs",
            "model": str(tmp_path / "model"),
            "runs_dir": str(tmp_path / "runs"),
            "data": {"photos": {**clean_coco_set.data, "root": str(root)}},
            "components": {
                "all": {"kind": "coco", "data": "photos", "tasks": {"coarse": 1, "locate": 1}}
            },
            "design": {"kind": "arms", "arms": {"all": {"all": 1.0}}},
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


def test_it_is_told_what_there_is_and_whether_the_index_is_new(photographs, capsys, monkeypatch):
    root = Path(photographs.data["photos"].root)
    monkeypatch.chdir(root.parent)
    # A URL may be relative as well; workers have other working directories.
    for place in (f"file://{root.name}", f"file://{root}"):
        data = photographs.data["photos"].model_copy(update={"root": place})
        again = index_data(photographs.model_copy(update={"data": {"photos": data}}))
        assert again.data == photographs.data
        told = capsys.readouterr().out
        assert re.search(r"data\.photos: \d+ images to train on, \d+ held out; left out: 0", told)
        assert f"data.photos: index used again: {again.data['photos'].index}" in told
    shutil.rmtree(again.data["photos"].index)
    index_data(photographs)
    told = capsys.readouterr().out
    assert "data.photos: index made: " in told
    assert re.search(r"data\.photos: inspect: \d+ to do", told)


def test_a_component_that_draws_nothing_is_refused_with_its_reason(photographs):
    def with_all(**changes) -> SweepSpec:
        components = {"all": photographs.components["all"].model_copy(update=changes)}
        return photographs.model_copy(update={"components": components})

    nothing = with_all(strata={"object_count": (0.5, 0.500001), "crowding": (0.0, 0.01)})
    with pytest.raises(
        SpecError, match=r"^components\.all: .*no training image can carry .*object count between"
    ):
        plan_sweep(nothing, time_a_step=False)
    unknown = with_all(strata={"objectcount": (0.5, 1.0)})
    with pytest.raises(SpecError, match=r"^components\.all\.strata: got 'objectcount': no such"):
        plan_sweep(unknown, time_a_step=False)
    with pytest.raises(SpecError, match=r"examples: .* \d+ held-out images that carry its tasks"):
        check_evaluation(
            photographs.model_copy(
                update={"evaluation": photographs.evaluation.model_copy(update={"examples": 900})}
            )
        )


def test_a_log_gets_a_line_a_stage_and_then_one_now_and_then(monkeypatch):
    out = io.StringIO()
    clock = [0.0]
    monkeypatch.setattr(progress.time, "monotonic", lambda: clock[0])
    tell = progress.StageView(out).stage("data.photos")
    for done in (64, 128, 5000):  # a stage need not begin at 0
        tell("inspect", done, 6000)
        clock[0] += progress.LINE_EVERY_S * 0.8
    tell("inspect", 6000, 6000)
    assert out.getvalue().splitlines() == [
        "data.photos: inspect: 6,000 to do",
        "data.photos: inspect: 5,000 of 6,000 done",
    ]


@pytest.mark.case
def test_a_job_prints_how_many_photographs_hang_on_a_guess_of_exif(tmp_path, capsys):
    exif = Image.Exif()
    exif[0x0112] = 3
    (tmp_path / "images").mkdir()
    images, annotations = [], []
    for number in range(24):
        pixels = np.full((90, 120, 3), 9 * number, np.uint8)
        Image.fromarray(pixels).save(
            tmp_path / "images" / f"{number}.png", exif=exif if number < 3 else None
        )
        record = {"id": number, "file_name": f"{number}.png", "width": 120, "height": 90}
        images.append(record)
        annotations.append(
            {"id": number, "image_id": number, "category_id": 1, "bbox": [5, 5, 40, 30]}
        )
    categories = [{"id": 1, "name": "dog"}]
    content = {"images": images, "annotations": annotations, "categories": categories}
    (tmp_path / "a.json").write_text(json.dumps(content))
    train = {"annotations": "a.json", "images": "images"}
    changes = {
        "runs_dir": str(tmp_path / "runs"),
        "data": {"phone": {"root": str(tmp_path), "train": train, "held_out": 0.4}},
        "components": {"all": {"kind": "coco", "data": "phone", "tasks": {"locate": 1}}},
        "design": {"kind": "arms", "arms": {"all": {"all": 1.0}}},
        "evaluation": {"component": "all", "examples": 8},
        "name": "phone",
        "training": {"steps": 2, "global_batch": 8, "micro_batch": 8},
    }
    index_data(SweepSpec.model_validate(changes))
    said = capsys.readouterr().out
    assert "data.phone.train: EXIF turns 3 images and nothing tells how" in said
    assert "set data.phone.exif to upright or stored" in said
    assert "assumed: 3" in said
    changes["data"]["phone"]["exif"] = "stored"
    index_data(SweepSpec.model_validate(changes))
    said = capsys.readouterr().out
    assert "taken as the file is stored, before EXIF turns it, as data.phone.exif says" in said
    assert "assumed" not in said
