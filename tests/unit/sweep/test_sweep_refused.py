"""Photographs that a model cannot be given, from a data set on disk to the measured model."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from here import Here
from PIL import Image
from tiny_families import build

from mixlens.design import SweepSpec
from mixlens.errors import SpecError
from mixlens.measurement import load, measure, model_of
from mixlens.measurement.measure import held_out_examples
from mixlens.models import load_vlm
from mixlens.sources import open_source
from mixlens.spec import HELD_OUT_START, MeasureSpec, held_out_of
from mixlens.sweep.indexing import index_data
from mixlens.sweep.plan import check_evaluation, plan_sweep, refused_photographs

pytestmark = pytest.mark.case

TASKS = {"coarse": 1, "count": 1, "locate": 1}
IMAGES = 16  # of each split, two of which are strips


def write_split(root: Path, name: str) -> None:
    """Pictures with one to three objects; numbers 2 and 5 are 2500 x 10."""
    (root / name).mkdir(parents=True)
    random = np.random.default_rng(len(name))
    images: list[dict[str, Any]] = []
    annotations: list[dict[str, Any]] = []
    for number in range(IMAGES):
        width, height = (2500, 10) if number in (2, 5) else (96, 64)
        pixels = random.integers(0, 255, (height, width, 3), np.uint8)
        for category in 1 + random.permutation(4)[: 1 + number % 3]:
            x = 20 * int(category) - 18
            pixels[1:9, x : x + 18] = 60 * category
            annotations.append(
                {
                    "id": len(annotations) + 1, "image_id": number, "category_id": int(category),
                    "bbox": [x, 1, 18, 8], "area": 144, "iscrowd": 0,
                    "segmentation": [[x, 1, x + 18, 1, x + 18, 9, x, 9]],
                }
            )  # fmt: skip
        file_name = f"{number:02d}.png"
        Image.fromarray(pixels).save(root / name / file_name)
        images.append({"id": number, "file_name": file_name, "width": width, "height": height})
    categories = [
        {"id": place + 1, "name": word, "supercategory": "thing"}
        for place, word in enumerate(("dog", "cat", "car", "bus"))
    ]
    text = json.dumps({"images": images, "annotations": annotations, "categories": categories})
    (root / f"{name}.json").write_text(text)


@pytest.fixture(scope="module")
def folder(tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("refused")
    for name in ("train", "val"):
        write_split(folder / "photos", name)
    for family in ("qwen2_5_vl", "llava"):
        build(family, folder / family)
    return folder


def spec_of(folder: Path, family: str, examples: int = 8, **more: Any) -> dict[str, Any]:
    files = {name: {"annotations": f"{name}.json", "images": name} for name in ("train", "val")}
    data = {"root": str(folder / "photos"), "train": files["train"], "held_out": files["val"]}
    return {
        "name": "refused",
        "model": str(folder / family),
        "runs_dir": str(folder / "runs"),
        "data": {"photos": {**data, **more.pop("photos", {})}},
        "components": {"all": {"kind": "coco", "data": "photos", "tasks": TASKS}},
        "evaluation": {"component": "all", "examples": examples, "batch_size": 4},
        **more,
    }


def sweep_of(folder: Path, family: str, steps: int, **more: Any) -> SweepSpec:
    training = {"steps": steps, "global_batch": 8, "micro_batch": 8}
    design = {"kind": "arms", "arms": {"all": {"all": 1.0}}}
    spec = spec_of(folder, family, training=training, design=design, seeds=[0], **more)
    return index_data(SweepSpec.model_validate(spec))


def test_held_out_ones_are_left_out_and_listed_before_and_after(folder, tmp_path):
    spec = index_data(MeasureSpec.model_validate(spec_of(folder, "qwen2_5_vl")))
    check_evaluation(spec)
    ((name, told),) = refused_photographs(spec)
    assert name == "all"
    assert told.startswith(f"2 held-out images are left out, because {spec.model} cannot be given")
    strip = "(2500 x 10: absolute aspect ratio must be smaller than 200, got 250.0)"
    assert all(f"{file} {strip}" in told for file in ("02.png", "05.png"))
    measured = model_of(spec, tmp_path)
    measure(Here(), measured)
    assert sorted(measured.left_out()) == [f"02.png {strip}", f"05.png {strip}"]
    assert len(load(measured).attributes) == 8


def test_a_model_that_takes_them_is_given_them(folder):
    spec = index_data(MeasureSpec.model_validate(spec_of(folder, "llava", examples=IMAGES)))
    check_evaluation(spec)
    assert refused_photographs(spec) == []


def test_too_few_that_the_model_takes_are_refused_with_the_names_of_the_others(folder):
    spec = spec_of(folder, "qwen2_5_vl", examples=IMAGES - 1)
    with pytest.raises(SpecError, match=rf"has {IMAGES - 2} held-out images .* takes \(not .*png"):
        check_evaluation(index_data(MeasureSpec.model_validate(spec)))


def test_of_those_to_train_on_it_is_told_that_others_come_in_their_place(folder):
    spec = sweep_of(folder, "qwen2_5_vl", steps=2)
    lines = refused_photographs(spec)
    assert [text.split(",")[0] for _, text in lines] == [
        "2 held-out images are left out",
        "in place of 2 images others are trained on",
    ]
    plan_sweep(spec, time_a_step=True)  # which trains a step, strips in it


def test_so_many_that_a_trial_would_stop_are_refused_before_it_starts(folder):
    """2 of 16 are more than 2 %, and are drawn 8 times in 64."""
    with pytest.raises(SpecError, match=r"data\.photos\.max_left_out: got 0\.02: .* 2 of the 16 "
                       r"images of component 'all' \(12\.5%\): .*02\.png"):  # fmt: skip
        refused_photographs(sweep_of(folder, "qwen2_5_vl", steps=8))
    assert refused_photographs(
        sweep_of(folder, "qwen2_5_vl", steps=8, photos={"max_left_out": 0.13})
    )


def test_indices_stay_those_of_the_data_set(folder):
    """So that models are compared by image, whichever of them they take."""
    spec = index_data(MeasureSpec.model_validate(spec_of(folder, "qwen2_5_vl", examples=14)))
    source = open_source("all", spec.components["all"], spec.data)
    vlm = load_vlm(spec.model)
    taken = held_out_examples(held_out_of(spec), range(14), vlm.adapter.refuses)
    strips = {i for i in range(IMAGES) if source.file_name(HELD_OUT_START + i)[:2] in ("02", "05")}
    assert [one.example_id for one in taken] == [
        f"all/{HELD_OUT_START + i}" for i in range(IMAGES) if i not in strips
    ]
