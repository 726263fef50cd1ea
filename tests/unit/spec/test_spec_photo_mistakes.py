"""Mistakes with data sets and components of photographs: each is one message that names its key."""

from pathlib import Path

import pytest

from mixlens.design import SweepSpec
from mixlens.errors import SpecError
from mixlens.spec import load_spec

FILE = Path(__file__).resolve().parents[3] / "sweeps/coco_mix.yaml"


@pytest.mark.parametrize(
    ("override", "message"),
    [
        # Names of data sets and components may be those of kinds.
        ("data.coco.rooot=a", r"data\.coco\.rooot: .*unknown key. Did you mean 'root'"),
        ("data.coco.train.image=a", r"data\.coco\.train\.image: .*Did you mean 'images'"),
        ("components.coco={kind: coco, data: coco, task: {coarse: 1}}", r"coco\.task: .*'tasks'"),
        ("data.coco.held_out={annotation: a}", r"held_out\.annotation: .*'annotations'"),
        ("data.coco.held_out={}", r"data\.coco\.held_out\.annotations: this key is missing"),
        ("data.coco.held_out=null", r"data\.coco\.held_out: got None: .*number"),
        ("data.coco.held_out=lots", r"data\.coco\.held_out: got 'lots': .*number"),
        ("data.coco.held_out=1", r"data\.coco\.held_out: .* is 1\. Give a number between 0 and 1"),
        ("components.x={data: coco, tasks: {coarse: 1}}", r"components\.x\.kind: .*missing"),
        ("components.x=7", r"components\.x: got 7: .*keys and values"),
        ("data.coco.kind=imagenet", r"data\.coco: got .*kinds are 'coco'"),
        ("data.coco=7", r"data\.coco: got 7: .*keys and values"),
        ("evaluation.transfer=held_out_photos", r"evaluation\.transfer: .*evaluation\.component"),
        ("data.a/b={root: x, train: {annotations: a}}", r"data\.a/b: got 'a/b': .*letters"),
        ("data={'..': {root: x, train: {annotations: a}}}", r"data\.\.\.: got '\.\.': .*letters"),
    ],
)
def test_the_message_names_the_key_once(override, message):
    with pytest.raises(SpecError, match=message) as caught:
        load_spec(SweepSpec, FILE, [override])
    for inner in ("CocoFiles", "float:", ".share", ".files", "tagged"):
        assert inner not in str(caught.value)


def test_a_share_is_no_text():
    with pytest.raises(SpecError, match=r"held_out: got '0\.2': .*without quotes"):
        load_spec(SweepSpec, FILE, ["data.coco.held_out='0.2'"])
