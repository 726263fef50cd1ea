"""The schema takes what Mixlens takes, and the reference is that of the specs as they are now."""

import json
import re
import subprocess
import sys
from pathlib import Path

import jsonschema
import pytest

from mixlens.cli.schema import FILES, reference, schema_of
from mixlens.design import SweepSpec
from mixlens.errors import SpecError
from mixlens.spec import MeasureSpec, load_spec
from mixlens.spec.load import keys_of
from mixlens.spec.reading import read_yaml

ROOT = Path(__file__).resolve().parents[3]
SWEEPS = sorted((ROOT / "sweeps").glob("*.yaml"))
SPECS = {"sweep": SweepSpec, "measure": MeasureSpec}
# Numbers that count nothing and are measured in nothing.
PURE = {
    "seed", "seeds", "coordinates", "vision", "projector", "language", "cross_attention", "rank",
    "alpha", "zero_stage", "weight_decay", "betas", "clip_norm",
}  # fmt: skip


def content(file: Path, *changes: tuple[str, object]) -> dict:
    """A file as editors see it, with some keys changed, or taken out."""
    found = read_yaml(file.read_text(), file.name)
    for path, value in changes:
        *parents, last = path.split(".")
        place = found
        for parent in parents:
            place = place.setdefault(parent, {})
        if value is None:
            del place[last]
        else:
            place[last] = value
    return found


def is_valid(file: str, found: dict) -> bool:
    return jsonschema.Draft202012Validator(schema_of(file)).is_valid(found)


@pytest.mark.parametrize("file", FILES)
def test_a_schema_is_one(file: str):
    jsonschema.Draft202012Validator.check_schema(schema_of(file))


@pytest.mark.parametrize("file", SWEEPS, ids=lambda file: file.name)
def test_shipped_files_are_valid(file: Path):
    kind = "sweep" if "training" in keys_of(file) else "measure"
    assert is_valid(kind, content(file))
    other = "measure" if kind == "sweep" else "sweep"
    assert not is_valid(other, content(file))


QUICKSTART, COCO = ROOT / "sweeps" / "quickstart.yaml", ROOT / "sweeps" / "coco_mix.yaml"
ARMS = {"kind": "arms", "arms": {"one": {"simple": 1.0}}}
POINT = {"weights": {"simple": 1.0}, "coordinates": {"objects": 1.5}}
WRONG = {
    "a key that there is not": (QUICKSTART, "training.stepz", 3),
    "text for a number": (QUICKSTART, "training.steps", "3"),
    "too small a number": (QUICKSTART, "training.steps", 0),
    "a key that is missing": (QUICKSTART, "training.steps", None),
    "no design": (QUICKSTART, "design", None),
    "a design that there is not": (QUICKSTART, "design", {**ARMS, "kind": "arm"}),
    "a key of another design": (QUICKSTART, "design.arms", {"one": {"simple": 1.0}}),
    "a key below an arm": (QUICKSTART, "design", {**ARMS, "ratios": [0, 1]}),
    "a weight that is text": (QUICKSTART, "design.high", {"complex": "all"}),
    "a point without weights": (
        QUICKSTART, "design", {"kind": "explicit", "points": {"one": {"coordinates": {}}}},
    ),
    "a range of three": (QUICKSTART, "components.simple.scene.objects", [1, 2, 3]),
    "a task group that there is not": (QUICKSTART, "components.simple.tasks", {"corse": 1}),
    "no tasks": (QUICKSTART, "components.simple.tasks", {}),
    "a scene of photographs": (COCO, "components.photos.scene", {"objects": 2}),
    "a data set that names no files": (COCO, "data.coco.train", None),
    "held-out images in words": (COCO, "data.coco.held_out", "a tenth"),
    "a precision that there is not": (QUICKSTART, "training.precision", "fp8"),
}  # fmt: skip
RIGHT = {
    "one number for a range": (QUICKSTART, "components.simple.scene.objects", 2),
    "a range": (QUICKSTART, "components.simple.scene.rotation", [0, 90]),
    "arms": (QUICKSTART, "design", ARMS),
    "points": (QUICKSTART, "design", {"kind": "explicit", "points": {"one": POINT}}),
    "a kind that is the default": (QUICKSTART, "components.simple.kind", "synthetic"),
    "a share of held-out images": (COCO, "data.coco.held_out", 0.2),
    "files of held-out images": (COCO, "data.coco.held_out", {"annotations": "val.json"}),
}  # fmt: skip


@pytest.mark.parametrize("name", [*WRONG, *RIGHT])
def test_the_schema_and_mixlens_take_the_same(name: str, tmp_path: Path):
    file, path, value = {**WRONG, **RIGHT}[name]
    found = content(file, (path, value))
    assert is_valid("sweep", found) == (name in RIGHT)
    changed = tmp_path / "changed.yaml"
    changed.write_text(json.dumps(found))
    if name in RIGHT:
        load_spec(SweepSpec, changed)
    else:
        with pytest.raises(SpecError):
            load_spec(SweepSpec, changed)


def parts(file: str) -> list[dict]:
    schema = SPECS[file].model_json_schema()
    return [schema, *schema["$defs"].values()]


@pytest.mark.parametrize("file", FILES)
def test_every_key_is_described_and_every_number_has_a_unit(file: str):
    for part in parts(file):
        assert part["description"]
        for key, field in part["properties"].items():
            assert field.get("description"), key
            types = re.findall(r'"type": "(integer|number)"', json.dumps(field))
            assert bool(types) == ("unit" in field or key in PURE), key


@pytest.mark.parametrize("file", FILES)
def test_an_editor_shows_the_unit(file: str):
    size = schema_of(file)["$defs"]["SceneSpec"]["properties"]["image_size"]
    assert size["description"] == "side of the square image [pixels]"
    assert size["default"] == 224


def test_the_reference_is_fresh():
    there = (ROOT / "docs" / "reference.md").read_text()
    assert there == reference(), "docs/reference.md is not that of the specs: run `make reference`"


def test_the_reference_holds_every_key_once_and_its_links_lead_somewhere():
    text = reference()
    titles = re.findall(r"^## (.*)$", text, re.MULTILINE)
    assert len(titles) == len(set(titles))
    # GitHub's rule: lower case, no signs but hyphens and underscores, hyphens for spaces.
    places = {re.sub(r"[^\w -]", "", title.lower()).replace(" ", "-") for title in titles}
    links = re.findall(r"\]\(#(.*?)\)", text)
    assert links
    assert set(links) <= places
    rows = [line for line in text.splitlines() if line.startswith("| `")]
    assert all(row.count(" | ") == 4 for row in rows)
    named = {part["title"]: list(part["properties"]) for f in FILES for part in parts(f)}
    every = [key for keys in named.values() for key in keys]
    assert sorted(row.split("`")[1] for row in rows) == sorted(every)


@pytest.mark.parametrize("file", FILES)
def test_the_command_prints_it_and_loads_no_model_library(file: str):
    script = (
        "import sys; from mixlens.cli import main; main(); "
        "print(*({'torch', 'ray'} & set(sys.modules)), file=sys.stderr)"
    )
    done = subprocess.run(
        [sys.executable, "-c", script, "schema", file], capture_output=True, text=True
    )
    assert (done.returncode, done.stderr.strip()) == (0, "")
    assert json.loads(done.stdout) == schema_of(file)
