"""What a page says of data sets: everything that was left out, and what each component holds."""

from collections import Counter
from pathlib import Path

import pandas as pd
import pytest
from coco_set import CocoSet
from fake_measured import COCO, PHOTOS, FakeMeasured
from fake_sweep import FakeSweep

from mixlens.analysis import build_tables, load_sweep
from mixlens.design import SweepSpec
from mixlens.report import write_report
from mixlens.report.captions import caveats
from mixlens.report.components import about_images, content, turns
from mixlens.report.data import data_section, left_out_table, replaced_table
from mixlens.report.measured import report_model
from mixlens.sources.coco.build import build_index
from mixlens.spec import CocoSpec, MeasureSpec

FAKE = FakeMeasured(images=24, layers=2, parts=(), controls=False, groups=("coarse",), transfer=1.0)


def _indexed(coco: CocoSet, runs_dir: Path) -> MeasureSpec:
    """The spec of a measurement over a data set that has been indexed."""
    data = build_index(
        "coco", CocoSpec.model_validate(coco.data), runs_dir / "indexes", lambda *_: None
    )
    return FAKE.spec(runs_dir).model_copy(update={"data": {"coco": data}})


@pytest.fixture(scope="module")
def spec(coco_set: CocoSet, tmp_path_factory: pytest.TempPathFactory) -> MeasureSpec:
    return _indexed(coco_set, tmp_path_factory.mktemp("runs"))


def test_everything_left_out_is_counted_by_reason(spec: MeasureSpec, coco_set: CocoSet) -> None:
    table = left_out_table(spec)
    expected = Counter(row[:4] for row in coco_set.expected)
    keys = ["split", "what", "outcome", "reason"]
    assert Counter(table[keys].itertuples(index=False, name=None)) == expected
    assert set(table["data"]) == {"coco"}
    section = data_section(spec, table)
    assert section is not None
    (shown,) = section.tables
    splits = {"training": "train", "held out": "held_out"}
    found = {
        (splits[row[4]], row[2].removesuffix("s"), row[1].replace(" ", "_"),
         row[0].replace(" ", "_")): int(row[5])
        for row in shown.grid.rows
    }  # fmt: skip
    assert found == expected
    ids = {(row[0], row[2]): row[6] for row in shown.grid.rows}
    missing = table[table["reason"] == "missing_file"]["image_id"].tolist()
    assert ids["missing file", "images"].startswith(", ".join(map(str, missing[:5])))


def test_data_sets_and_components_say_how_many_images_they_have(
    spec: MeasureSpec, coco_set: CocoSet
) -> None:
    section = data_section(spec, left_out_table(spec))
    assert section is not None
    facts = dict(section.facts)
    used = Counter(split for split, _ in coco_set.truth)
    lost = Counter(row[2] for row in coco_set.expected if row[1] == "image")
    assert (
        f"{used['train']} images to train on and {used['held_out']} held out; {lost['left_out']} "
        f"left out and {lost['repaired']} repaired"
    ) in facts["Data set coco"]
    assert str(coco_set.root) in facts["Data set coco"]
    assert "images to train on: without end" in facts["Component complex"]
    assert "models are measured on it" in facts["Component complex"]
    photos = facts["Component photos"]
    assert "object count between quantiles 0.5 and 1" in photos
    assert "trends are compared on it" in photos
    # The upper half of each split, give or take those that share a count.
    train = int(photos.split("images to train on: ")[1].split(",")[0])
    assert 0.2 * used["train"] < train < 0.8 * used["train"]


def test_a_sound_data_set_says_so(clean_coco_set: CocoSet, tmp_path: Path) -> None:
    spec = _indexed(clean_coco_set, tmp_path)
    section = data_section(spec, left_out_table(spec), pd.DataFrame({"run": []}))
    assert section is not None
    (table,) = section.tables  # crowd regions are no damage, but are told
    assert {row[:2] for row in table.grid.rows} == {("iscrowd", "region")}
    assert section.sentences == [
        "Nothing was left out and nothing had to be repaired.",
        "In training every image that was drawn could be decoded.",
    ]


def test_an_index_that_is_gone_is_no_sound_data_set(tmp_path: Path) -> None:
    path, _, _ = report_model(FAKE.write(tmp_path))
    text = " ".join(path.read_text().split())
    assert "is gone, so its images are not counted" in text
    assert "images not counted" in text
    assert "Nothing was left out" not in text
    assert pd.read_parquet(path.parent / "tables" / "left_out.parquet").empty


def test_scenes_alone_have_no_section(tmp_path: Path) -> None:
    spec = FakeMeasured(images=24).spec(tmp_path)
    assert data_section(spec, left_out_table(spec)) is None
    assert about_images(spec) == []


def test_what_training_replaced_is_counted(spec: MeasureSpec, tmp_path: Path) -> None:
    for name, rows in (("one", 3), ("two", 1)):
        folder = tmp_path / name
        folder.mkdir()
        pd.DataFrame({"data": ["coco"] * rows, "position": range(rows)}).to_parquet(
            folder / "replaced.parquet"
        )
    (tmp_path / "three").mkdir()
    runs = [(name, tmp_path / name) for name in ("one", "two", "three")]
    table = replaced_table(runs)
    assert table["run"].tolist() == ["one"] * 3 + ["two"]
    section = data_section(spec, left_out_table(spec), table)
    assert section is not None
    assert section.sentences[0].startswith("In training, 4 positions of 2 runs had an image")
    assert replaced_table([("three", tmp_path / "three")]).empty


def test_components_in_words() -> None:
    spec = FAKE.spec(Path("/tmp"))
    assert content(spec, "complex") == "scenes of 3 to 6 objects"
    assert content(spec, "photos") == (
        "photographs of coco with object count between quantiles 0.5 and 1"
    )
    assert turns(spec.components["photos"]) == "1 coarse"
    (words,) = about_images(spec)
    assert "occlusion is an estimate" in words


@pytest.mark.parametrize(
    ("strata", "words"),
    [
        ({}, "All arms draw from the same photographs"),
        ({"occlusion": [0.5, 1.0]}, "different images as well as on different questions"),
    ],
)
def test_arms_of_photographs_are_not_said_to_share_all_images(
    strata: dict, words: str, tmp_path: Path
) -> None:
    fake = FakeSweep(
        arms=(("coarse", 0.0), ("count", 1.0)), seeds=(0,), images=24, layers=2, steps=10,
        photos=PHOTOS, coco=COCO,
    )  # fmt: skip
    sweep = load_sweep(fake.write(tmp_path))
    content = sweep.spec.model_dump(mode="json")
    for arm, some in (("coarse", {}), ("count", strata)):
        content["components"][f"{arm}_data"] = {**PHOTOS, "tasks": {arm: 1}, "strata": some}
    sweep = type(sweep)(**{**vars(sweep), "spec": SweepSpec.model_validate(content)})
    notes = " ".join(caveats(sweep, build_tables(sweep)))
    assert words in notes
    assert "same images in the same order" not in notes
    assert "occlusion is an estimate" in notes


def test_a_sweep_that_trains_on_photographs_says_what_was_replaced(
    coco_set: CocoSet, tmp_path: Path
) -> None:
    data = _indexed(coco_set, tmp_path).data["coco"].model_dump(mode="json")
    fake = FakeSweep(ratios=(1.0,), seeds=(0,), images=24, layers=2, steps=10, photos=PHOTOS,
                     coco=data, high="photos")  # fmt: skip
    folder = fake.write(tmp_path)
    (trial,) = load_sweep(folder).trials
    rows = pd.DataFrame({"data": ["coco"] * 3, "position": [4, 9, 11]})
    rows.to_parquet(trial.folder / "replaced.parquet")
    text = " ".join(write_report(folder)[0].read_text().split())
    assert "In training, 3 positions of 1 run had an image that could not be used" in text
    assert "Complex data" in text
    assert "photos: photographs of coco with object count between quantiles 0.5 and 1" in text
    kept = pd.read_parquet(folder / "tables" / "replaced.parquet")
    assert kept["run"].tolist() == [trial.name] * 3
