"""Train the built-in base model from random weights, and put it where the package finds it.

    python jobs/pretrain.py [jobs/pretrain.yaml] [key=value ...] [--keep-installed]

About an hour and a half on two CPU cores. Started again, it continues where it stopped.
"""

import argparse
import json
import sys
from pathlib import Path

import _path  # noqa: F401  makes mixlens importable
from mixlens.errors import exit_clearly
from mixlens.lock import held
from mixlens.spec import PretrainSpec, load_spec


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n\n")[0])
    default = Path(__file__).with_name("pretrain.yaml")
    parser.add_argument(
        "given", nargs="*", metavar="file, key=value", help=f"the recipe (default: {default})"
    )
    parser.add_argument("--keep-installed", action="store_true", help="do not replace the base")
    arguments = parser.parse_intermixed_args()
    overrides = arguments.given
    file = default if not overrides or "=" in overrides[0] else Path(overrides.pop(0))
    spec = load_spec(PretrainSpec, file, overrides)
    folder = Path(spec.runs_dir).expanduser().absolute() / spec.name
    with held(folder, ["python", *sys.argv], print):
        train(spec, folder, arguments.keep_installed)


def train(spec: PretrainSpec, folder: Path, keep_installed: bool) -> None:
    """Do what is missing of all stages, and install the result."""
    from mixlens.models.folder import BUILTIN
    from mixlens.training.pretrain import install, pretrain
    from mixlens.training.records import read_journal

    stages = []
    for number, model in pretrain(spec, folder):
        journal = read_journal(model.parent / "training.jsonl")
        steps, loss = journal[-1]["step"], journal[-1]["loss"]
        done = [0, *(record["step"] for record in journal)]
        seconds = sum(
            record["step_s"] * (record["step"] - before)
            for before, record in zip(done, journal, strict=False)
        )
        stages.append({"steps": steps, "loss": loss, "seconds": round(seconds)})
        print(f"stage {number}: {steps} steps in {seconds:.0f} s, loss {loss:.3f}", flush=True)
    scores = held_out_accuracy(spec, model)
    record = {
        "command": "python " + " ".join(["jobs/pretrain.py", *sys.argv[1:]]),
        "recipe": spec.model_dump(mode="json", exclude={"runs_dir", "resources"}),
        "stages": stages,
        "held_out_exact_match": scores,
    }
    (model / "mixlens.json").write_text(json.dumps(record, indent=1) + "\n")
    for group, score in scores.items():
        print(f"{group:12} {score['exact_match']:.3f} of {score['questions']} questions")
    if not keep_installed:
        install(model, BUILTIN["builtin:tiny-vllm"])


def held_out_accuracy(spec: PretrainSpec, model: Path) -> dict[str, dict[str, float]]:
    """Exact match of each task group on the recipe's held-out images."""
    from mixlens.evaluation import answer
    from mixlens.mixture.order import held_out_indices
    from mixlens.models import load_vlm
    from mixlens.sources import open_source

    evaluation = spec.evaluation
    source = open_source(evaluation.component, spec.components[evaluation.component])
    examples = [source.example(index) for index in held_out_indices(evaluation.examples)]
    answers = answer(load_vlm(str(model)), examples, max_new_tokens=evaluation.max_new_tokens)
    groups = answers.group_by("group").aggregate([("exact", "mean"), ("exact", "count")])
    return {
        row["group"]: {"exact_match": row["exact_mean"], "questions": row["exact_count"]}
        for row in groups.sort_by("group").to_pylist()
    }


if __name__ == "__main__":
    exit_clearly(main)
