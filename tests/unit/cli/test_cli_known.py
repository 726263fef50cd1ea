"""What the file alone tells to be wrong is said before a library of models is imported."""

import json
import subprocess
import sys
from pathlib import Path

import pytest
from mlflow.tracking._tracking_service.utils import _tracking_store_registry

from mixlens.spec.tracking import SCHEMES

ROOT = Path(__file__).resolve().parents[3]
QUICKSTART, MEASURE = "sweeps/quickstart.yaml", "sweeps/measure_tiny.yaml"
COCO, STUDY = "sweeps/coco_mix.yaml", "sweeps/qwen25_vl.yaml"
HEAVY = ("torch", "transformers", "ray", "pandas", "mlflow", "deepspeed")

# What is written behind `mixlens`; where the message says it is, and what it says of it.
MISTAKES = {
    "a scheme that MLflow does not know": (
        ["sweep", QUICKSTART, "tracking.uri=notascheme://x", "--dry-run"],
        "tracking.uri: got 'notascheme://x': MLflow knows no such scheme",
    ),
    "its password is not shown": (
        ["measure", MEASURE, "tracking.uri=htpp://me:secret@host/"],
        "tracking.uri: got 'htpp://host/': MLflow knows no such scheme",
    ),
    "a built-in model that there is not": (
        ["sweep", QUICKSTART, "model=builtin:huge"],
        "model: got 'builtin:huge': no such built-in model. There is builtin:tiny-vllm",
    ),
    "an attribute that scenes do not have": (
        ["sweep", QUICKSTART, "evaluation.probes.attributes=[object_count, mood]"],
        "evaluation.probes.attributes: got 'mood': images have no such attribute. They have "
        "background, blur,",
    ),
    "an attribute that photographs do not have": (
        ["measure", COCO, "evaluation.probes.attributes=[ink_fraction]"],
        "evaluation.probes.attributes: got 'ink_fraction': images have no such attribute. They "
        "have category_count,",
    ),
    "a stratum of nothing": (
        ["sweep", COCO, "components.photos.strata={mood: [0, 0.5]}"],
        "components.photos.strata: got 'mood': no such attribute. Use category_count,",
    ),
    "a stratum of a name": (
        ["sweep", COCO, "components.photos.strata={dominant_category: [0, 0.5]}"],
        "components.photos.strata: got 'dominant_category': is a name, not a number",
    ),
    "scenes that cannot be made": (
        ["sweep", QUICKSTART, "components.complex.scene.objects=[150, 200]"],
        "components.complex: scene.objects: got (150, 200)",
    ),
    "a GPU that nobody knows": (
        ["sweep", STUDY, "resources.gpu=A200"],
        "resources.gpu: got 'A200': no GPU whose peak is known",
    ),
    "vLLM without GPUs": (
        ["sweep", STUDY, "evaluation.engine=vllm", "resources.gpus_per_actor=0"],
        "resources.gpus_per_actor: got 0: evaluation.engine is vllm",
    ),
    "vLLM for the built-in model": (
        ["measure", MEASURE, "evaluation.engine=vllm", "resources.gpus_per_actor=1"],
        "evaluation.engine: got 'vllm': the model is builtin:tiny-vllm",
    ),
    "vLLM with adapters of an encoder": (
        ["sweep", STUDY, "evaluation.engine=vllm", "training.lora.towers=[vision]"],
        "evaluation.engine: got 'vllm': it takes adapters of the language model only",
    ),
    "a key of an earlier file": (
        ["sweep", QUICKSTART, "ratios=[0, 1]"], "ratios: got [0, 1]: this key has moved",
    ),
    "a file system that nobody knows": (
        ["sweep", COCO, "data.coco.root=s4://bucket/coco"],
        "data.coco.root: got 's4://bucket/coco': no file system",
    ),
}  # fmt: skip

SCRIPT = """
import contextlib, io, json, sys
from mixlens.cli import main
cases, heavy = json.loads(sys.stdin.read())
for name, words in cases.items():
    sys.argv = ["mixlens", *words]
    said, code = io.StringIO(), None
    with contextlib.redirect_stderr(said):
        try:
            main()
        except SystemExit as end:
            code = end.code
    print(json.dumps([name, code, said.getvalue(), sorted({*heavy} & {*sys.modules})]))
"""


@pytest.fixture(scope="module")
def told() -> dict[str, tuple[int, str, list[str]]]:
    """Exit code, message and loaded libraries of each mistake, made in one process."""
    cases = json.dumps([{name: words for name, (words, _) in MISTAKES.items()}, HEAVY])
    done = subprocess.run(
        [sys.executable, "-c", SCRIPT], cwd=ROOT, input=cases, capture_output=True, text=True,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    return {name: tuple(rest) for name, *rest in map(json.loads, done.stdout.splitlines())}


@pytest.mark.parametrize("name", MISTAKES)
def test_a_mistake_is_one_message_without_torch(name: str, told):
    words, expected = MISTAKES[name]
    code, message, loaded = told[name]
    assert code == 2, message
    assert message.startswith(f"error: {words[1]}: {expected}")
    assert message.count("\n") == 1
    assert loaded == []


def test_the_schemes_are_those_that_mlflow_registers():
    """MLflow has no public list of them. Unity Catalog it knows only to refuse it."""
    known = set(_tracking_store_registry._registry) - {"", "databricks-uc", "uc"}
    assert set(SCHEMES) == known
