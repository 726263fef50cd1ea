"""The files a person edits are right as they are shipped. `make check` runs these too."""

import json
import re
import subprocess
import sys
from pathlib import Path

import jsonschema
import pytest
import ray.autoscaler
import yaml

from mixlens.design import SweepSpec, load_measure
from mixlens.sources import open_source
from mixlens.spec import MeasureSpec, PretrainSpec, load_spec

ROOT = Path(__file__).resolve().parents[2]
SWEEPS = sorted((ROOT / "sweeps").glob("*.yaml"))


@pytest.mark.parametrize("file", SWEEPS, ids=lambda file: file.name)
def test_every_sweep_file_parses_and_its_scenes_can_be_made(file: Path):
    measured = load_measure(file)  # which any sweep file can be read as
    kind = SweepSpec if "training" in yaml.safe_load(file.read_text()) else MeasureSpec
    spec = load_spec(kind, file)
    assert spec.name == measured.name == file.stem
    for name, component in spec.components.items():
        if component.kind == "synthetic":  # photographs are not shipped
            assert open_source(name, component).example(0).turns


def test_the_recipe_of_the_base_parses():
    spec = load_spec(PretrainSpec, ROOT / "jobs" / "pretrain.yaml")
    for name, component in spec.components.items():
        assert open_source(name, component).example(0).turns


@pytest.mark.parametrize(
    ("module", "heavy"),
    [
        ("mixlens.sweep.driver", {"transformers", "scipy", "matplotlib"}),
        ("mixlens.mixture.render", {"torch", "scipy", "networkx"}),
    ],
)
def test_processes_that_wait_or_render_import_nothing_heavy(module: str, heavy: set[str]):
    # A sweep has a dozen of them, and each would pay for it in memory.
    script = f"import sys, {module}; print(*sys.modules)"
    loaded = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True).stdout
    assert module in loaded.split()
    assert not heavy & set(loaded.split())


def test_cluster_file_follows_rays_schema():
    schema = json.loads((Path(ray.autoscaler.__file__).parent / "ray-schema.json").read_text())
    cluster = yaml.safe_load((ROOT / "cluster.yaml").read_text())
    jsonschema.validate(cluster, schema)
    groups = cluster["available_node_types"]
    assert cluster["head_node_type"] in groups
    assert any("InstanceMarketOptions" in group["node_config"] for group in groups.values())


def test_the_source_root_does_not_shadow_the_standard_librarys_platform():
    # `ray job submit --working-dir .` puts the repository root first on the path.
    script = (
        f"import sys; sys.path.insert(0, {str(ROOT)!r}); import platform;"
        "print(platform.__file__, platform.system())"
    )
    there = subprocess.run([sys.executable, "-I", "-c", script], capture_output=True, text=True)
    file, system = there.stdout.split()
    assert str(ROOT) not in file
    assert system
    assert not list((ROOT / "platform").glob("*.py"))


def docker_stages() -> dict[str, tuple[str, str]]:
    """What each stage of the Dockerfile is made from, and its steps."""
    text = "\n" + (ROOT / "docker" / "Dockerfile").read_text()
    stages = {}
    for part in text.split("\nFROM ")[1:]:
        first, _, steps = part.partition("\n")
        source, _, name = first.partition(" AS ")
        stages[name] = source, re.sub(r"(?m)^#.*\n?", "", steps)
    return stages


def test_both_images_install_as_the_makefile_does():
    steps = docker_stages()["environment"][1]
    install = "pip install --constraint constraints.txt"
    assert f"{install} torch" in steps
    assert f"{install} ." in steps


def test_both_images_have_the_same_python():
    """Ray refuses nodes whose Python differs from the head's, in the patch version too."""
    stages = docker_stages()
    assert stages.keys() == {"environment", "cpu", "gpu"}
    assert stages["environment"][0] == "python:${PYTHON_VERSION}-slim-bookworm"
    for target in ("cpu", "gpu"):
        source, steps = stages[target]
        assert source == "environment"
        # Variables alone: nothing that could bring another Python or other packages.
        assert {line.split()[0] for line in steps.splitlines() if line} == {"ENV"}
        assert not re.search(r"\b(PATH|PYTHON\w*)=", steps)
    # A tag without a patch version would be another one in an image that is built later.
    text = (ROOT / "docker" / "Dockerfile").read_text()
    assert re.findall(r"PYTHON_VERSION=(.*)", text)[0].count(".") == 2
    assert len(re.findall(r"ARG ", text)) == 1
    assert "python3" not in text
