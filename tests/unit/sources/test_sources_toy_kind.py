"""A data set kind of one's own, in one file: a folder of shaded PNGs and a JSON file of labels.

A kind of the product has the classes of `ShadeSet` and `ShadeComponent` in a file under spec/, the
rest in a folder under sources/, and a line in each of spec/kinds.py and sources/kinds.py, which the
fixture `shades` stands for.
"""

import hashlib
import json
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Annotated, Any, ClassVar, Literal, get_args, get_origin

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import yaml
from here import Here
from PIL import Image
from pydantic import Discriminator, Field, Tag

from mixlens.analysis.transfer_build import sides_of
from mixlens.design import SweepSpec, Trial, asked_trials
from mixlens.errors import DataError, SpecError, explain
from mixlens.measurement import Asked, Measurement, Subject, load, measure
from mixlens.measurement.measure import held_out_examples
from mixlens.measurement.request import Answers
from mixlens.mixture.decoding import Decoder
from mixlens.mixture.local import LocalStream
from mixlens.mixture.order import order_of
from mixlens.mixture.render import render_units, stream_units
from mixlens.models.tiny import build_tiny_vlm
from mixlens.report.components import about_images, content
from mixlens.report.data import data_section, left_out_table
from mixlens.report.transfer import transfer_title
from mixlens.sources import RECORD, Contents, Example, from_row, kinds, open_source
from mixlens.sources.example import Attributes
from mixlens.spec import HELD_OUT_START, Spec, load_spec, transfer_of
from mixlens.spec import kinds as unions
from mixlens.spec.component import BaseComponent, Tasks
from mixlens.spec.data_set import BaseDataSet
from mixlens.sweep.indexing import index_data
from mixlens.sweep.known import check_file
from mixlens.tasks.turn import Turn
from mixlens.tracking.data import data_params, data_points

IMAGES, SIDE = 20, 16


# --- the two classes of spec/shades.py


class ShadeSet(BaseDataSet):
    """PNGs in one folder; the labels say which side is bright, and which images are held out."""

    kind: Literal["shades"] = Field("shades", description="shaded PNGs")
    labels: str = Field("labels.json", description="file -> bright side and split")


class ShadeComponent(BaseComponent):
    images: ClassVar[str] = "shades"
    is_generated: ClassVar[bool] = False

    kind: Literal["shades"] = Field(description="shaded PNGs")
    data: str = Field(description="the name of its data set")
    tasks: Tasks = Field(description="as everywhere; coarse alone is asked")
    seed: int = Field(0, description="of its questions")

    @property
    def data_set(self) -> str:
        return self.data


# --- the folder sources/shades/


def index(name: str, data: ShadeSet, indexes: Path, progress: Any) -> ShadeSet:
    text = (Path(data.root) / data.labels).read_text()
    fingerprint = hashlib.sha256(text.encode()).hexdigest()[:16]
    folder = indexes / f"{name}-{fingerprint}"
    labels = json.loads(text)
    gone = [file for file in labels if not (Path(data.root) / file).is_file()]
    if len(gone) > data.max_left_out * len(labels):
        raise DataError(explain(f"data.{name}.root", data.root, f"lacks {gone}", "Restore them."))
    folder.mkdir(parents=True, exist_ok=True)
    rows = [
        {"split": labels[file]["split"], "what": "image", "outcome": "left_out",
         "reason": "missing_file", "image_id": -1, "id": -1, "file_name": file, "detail": ""}
        for file in gone
    ]  # fmt: skip
    pq.write_table(pa.Table.from_pylist(rows), folder / "left_out.parquet")
    there = {file: label for file, label in labels.items() if file not in gone}
    (folder / RECORD).write_text(json.dumps(there))
    return data.model_copy(update={"index": str(folder), "fingerprint": fingerprint})


def contents(name: str, data: ShadeSet) -> Contents | None:
    file = Path(data.index) / RECORD
    if not data.index or not file.is_file():
        return None
    images = Counter(label["split"] for label in json.loads(file.read_text()).values())
    told = f"data.{name}: {images['train']} shades to train on, {images['held_out']} held out"
    return Contents(images, (told,), (), file.with_name("left_out.parquet"))


class ShadeSource:
    is_remote = False
    is_replaceable = True

    def __init__(self, name: str, spec: ShadeComponent, data: ShadeSet) -> None:
        self.name, self.spec, self.data = name, spec, data

    def _files(self, split: int) -> list[tuple[str, str]]:
        labels = json.loads((Path(self.data.index) / RECORD).read_text())
        named = ("train", "held_out")[split]
        return [(file, one["bright"]) for file, one in labels.items() if one["split"] == named]

    @property
    def size(self) -> int:
        return len(self._files(0))

    @property
    def held_out_size(self) -> int:
        return len(self._files(1))

    def _of(self, index: int) -> tuple[str, str]:
        split, place = divmod(index, HELD_OUT_START)
        return self._files(split)[place]

    def example(self, index: int) -> Example:
        file, bright = self._of(index)
        turn = Turn("Which side is bright?", bright, "coarse", "bright_side", 1, "bright_side.0",
                    ("left", "right"))  # fmt: skip
        image = (Path(self.data.root) / file).read_bytes()
        return Example(f"{self.name}/{index}", self.name, image, (turn,), self.attributes(index))

    def attributes(self, index: int) -> Attributes:
        return {"bright_side": self._of(index)[1]}

    def attribute_names(self) -> list[str]:
        return ["bright_side"]

    def sizes(self, held_out: bool) -> np.ndarray:
        return np.full((len(self._files(held_out)), 2), SIDE)

    def file_name(self, index: int) -> str:
        return self._of(index)[0]

    def describe(self) -> str:
        return f"shades of {self.spec.data}"

    def caveats(self) -> list[str]:
        return ["Shades are toys."]


# --- what a line in spec/kinds.py and one in sources/kinds.py do


COMPONENTS = Annotated[
    get_args(unions.ComponentSpec)[0] | Annotated[ShadeComponent, Tag("shades")],
    Discriminator(unions.component_kind),
]
SETS = Annotated[
    Annotated[get_args(unions.DataSet)[0], Tag("coco")] | Annotated[ShadeSet, Tag("shades")],
    Discriminator(unions.data_set_kind),
]


def widened(annotation: Any) -> Any:
    """The annotation with `COMPONENTS` and `SETS` in place of the unions of the product."""
    if annotation == unions.DataSet:
        return SETS
    if annotation == unions.ComponentSpec:
        return COMPONENTS
    if annotation == get_args(unions.ComponentSpec)[0]:  # a field of its own has the tags beside it
        return get_args(COMPONENTS)[0]
    if get_origin(annotation) is dict:
        key, value = get_args(annotation)
        return dict[key, widened(value)]
    return annotation


def specs(above: type[Spec] = Spec) -> Iterator[type[Spec]]:
    for one in above.__subclasses__():
        yield one
        yield from specs(one)


@pytest.fixture(scope="module")
def shades() -> Iterator[None]:
    holders = [
        (one, name, field.annotation)
        for one in specs()
        for name, field in one.model_fields.items()
        if widened(field.annotation) != field.annotation
    ]

    def rebuild() -> None:
        for one in dict.fromkeys([*(one for one, _, _ in holders), Trial]):  # which has a run
            one.model_rebuild(force=True)

    with pytest.MonkeyPatch.context() as patch:
        patch.setitem(kinds.SOURCES, "shades", ShadeSource)
        patch.setitem(kinds.DATA_SETS, "shades", kinds.DataSetKind(index, contents))
        for one, name, annotation in holders:
            one.model_fields[name].annotation = widened(annotation)
        rebuild()
        yield
        for one, name, annotation in holders:
            one.model_fields[name].annotation = annotation
        rebuild()


# --- a sweep over it


def gradient(bright: str, number: int) -> np.ndarray:
    ramp = np.linspace(number, 255 - number, SIDE).round().astype(np.uint8)
    row = ramp if bright == "right" else ramp[::-1]
    return np.broadcast_to(row[None, :, None], (SIDE, SIDE, 3)).copy()


@pytest.fixture(scope="module")
def file(shades: None, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The sweep file; half of its images are held out, and one of the others is gone."""
    folder = tmp_path_factory.mktemp("shades")
    labels = {}
    for number in range(IMAGES):
        name, bright = f"{number:02d}.png", ("left", "right")[number % 2]
        split = ("train", "train", "held_out", "held_out")[number % 4]
        labels[name] = {"bright": bright, "split": split}
        if number:
            Image.fromarray(gradient(bright, number)).save(folder / name)
    (folder / "labels.json").write_text(json.dumps(labels))
    build_tiny_vlm(folder / "model", ["left", "right", "bright"], size="test")
    sweep = {
        "name": "toy",
        "model": str(folder / "model"),
        "runs_dir": str(folder / "runs"),
        "data": {"walls": {"kind": "shades", "root": str(folder), "max_left_out": 0.1}},
        "components": {
            "scenes": {"tasks": {"coarse": 1}, "scene": {"image_size": 64, "objects": [1, 2]}},
            "shaded": {"kind": "shades", "data": "walls", "tasks": {"coarse": 1}},
        },
        "design": {"kind": "ratio", "low": {"scenes": 1.0}, "high": {"shaded": 1.0},
                   "ratios": [0.0, 0.5]},
        "training": {"steps": 5, "global_batch": 8, "micro_batch": 4},
        "evaluation": {"component": "scenes", "transfer": "shaded", "examples": 10},
    }  # fmt: skip
    path = folder / "toy.yaml"
    path.write_text(yaml.safe_dump(sweep))
    return path


@pytest.fixture(scope="module")
def sweep(file: Path) -> SweepSpec:
    spec = load_spec(SweepSpec, file)
    check_file(spec)
    return index_data(spec)


def bright_side(pixels: np.ndarray) -> str:
    left, right = pixels[:, : SIDE // 2].mean(), pixels[:, SIDE // 2 :].mean()
    return "left" if left > right else "right"


@pytest.mark.parametrize(
    ("override", "message"),
    [
        ("data.walls.label=a", r"data\.walls\.label: .*Did you mean 'labels'"),
        ("data.walls.kind=walls", r"data\.walls: .*kinds are 'coco', 'shades'"),
        ("components.shaded.data=wall", r"shaded\.data: got 'wall': no such data set"),
        ("components.shaded.kind=coco", r"shaded\.kind: got 'coco': .*of kind 'shades'"),
    ],
)
def test_mistakes_are_named_as_those_of_any_kind(file: Path, override: str, message: str):
    with pytest.raises(SpecError, match=message):
        load_spec(SweepSpec, file, [override])


def test_attributes_that_it_does_not_have_are_refused_before_it_is_indexed(file: Path):
    overrides = ["evaluation.component=shaded", "evaluation.transfer=scenes"]
    spec = load_spec(SweepSpec, file, [*overrides, "evaluation.probes={attributes: [colour]}"])
    with pytest.raises(
        SpecError, match=r"probes\.attributes: got 'colour': .*They have bright_side"
    ):
        check_file(spec)


def test_it_is_indexed_before_a_job_and_only_its_fingerprint_counts(
    file: Path, sweep: SweepSpec, capsys: pytest.CaptureFixture[str]
):
    again = index_data(load_spec(SweepSpec, file))
    told = capsys.readouterr().out
    assert "data.walls: 9 shades to train on, 10 held out" in told
    assert "index used again" in told
    mixed = asked_trials(sweep)[1].run
    assert asked_trials(again)[1].run.digest() == mixed.digest()
    moved = sweep.data["walls"].model_copy(update={"root": "/elsewhere"})
    assert mixed.model_copy(update={"data": {"walls": moved}}).digest() == mixed.digest()
    other = sweep.data["walls"].model_copy(update={"fingerprint": "0" * 16})
    assert mixed.model_copy(update={"data": {"walls": other}}).digest() != mixed.digest()


def test_it_is_ordered_streamed_and_decoded(sweep: SweepSpec):
    scenes_alone, mixed = (trial.run for trial in asked_trials(sweep))
    assert scenes_alone.data == {}
    order = order_of(mixed)
    assert order.counts(40) == {"scenes": 20, "shaded": 20}
    epoch = [index for name, index in map(order.at, range(18)) if name == "shaded"]
    assert sorted(epoch) == list(range(9))

    units = stream_units(mixed, 0, 5, world_size=2)
    rows = render_units(units, mixed.model_dump_json()).to_pylist()
    assert sorted(row["position"] for row in rows) == list(range(40))
    decoded, replaced = Decoder(mixed)([row["position"] for row in rows], list(map(from_row, rows)))
    assert replaced == ()
    for example in decoded:
        if example.component == "shaded":
            assert bright_side(example.image) == example.turns[0].answer


def test_a_damaged_file_is_replaced(sweep: SweepSpec):
    run = asked_trials(sweep)[1].run
    position = next(p for p in range(8) if order_of(run).at(p)[0] == "shaded")
    source = open_source("shaded", run.components["shaded"], run.data)
    damaged = Path(run.data["walls"].root) / source.file_name(order_of(run).at(position)[1])
    whole = damaged.read_bytes()
    try:
        damaged.write_bytes(whole[:40])
        stream = LocalStream(run, 0, 1, lambda examples: {})
        replaced = [one for step in stream.steps(0, 1) for micro in step for one in micro.replaced]
        assert [(one.position, one.data, one.file_name) for one in replaced] == [
            (position, "walls", damaged.name)
        ]
    finally:
        damaged.write_bytes(whole)


def test_held_out_images_are_asked_scored_and_measured(sweep: SweepSpec, tmp_path: Path):
    held_out = transfer_of(sweep)
    images = held_out_examples(held_out, range(10))
    assert [bright_side(one.image) for one in images] == [one.turns[0].answer for one in images]
    asked = Asked(Answers(engine="transformers", max_new_tokens=4))
    measurement = Measurement(tmp_path, Subject("toy", sweep.model, "0123"), held_out, asked)
    measure(Here(), measurement, 5)
    found = load(measurement)
    answers = found.examples
    assert answers["example_id"].tolist() == [f"shaded/{HELD_OUT_START + i}" for i in range(10)]
    assert answers["exact"].tolist() == (answers["response"] == answers["answer"]).tolist()
    assert set(answers["answer"]) == {"left", "right"}
    assert found.attributes["bright_side"].tolist() == answers["answer"].tolist()
    scores = found.image_metrics
    assert scores["example_id"].nunique() == 10


def test_pages_and_mlflow_speak_of_it(sweep: SweepSpec):
    assert content(sweep, "shaded") == "shades of walls"
    assert about_images(sweep) == ["Shades are toys."]
    assert transfer_title(sweep) == "On scenes and shades"
    sides = sides_of(sweep)
    assert (sides.own, sides.other) == ("scenes (scenes)", "shaded (shades)")
    section = data_section(sweep, left_out_table(sweep))
    facts = dict(section.facts)
    assert "9 images to train on and 10 held out; 1 left out" in facts["Data set walls"]
    assert facts["Component shaded"].startswith("shades of walls; images to train on: 9, held")
    assert data_params(sweep.data)["data.walls.fingerprint"] == sweep.data["walls"].fingerprint
    found = contents("walls", sweep.data["walls"])
    points = {key: value for key, value, _ in data_points("walls", found)}
    assert points["data/walls/images/train"] == 9
    assert points["data/walls/left_out_image/missing_file"] == 1
