"""A finished run directory with simulated measurements of a known effect, for tests of reports."""

import json
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pandas as pd
from fake_parts import write_parts

from mixlens.design import Layout, SweepSpec, asked_trials
from mixlens.measurement import Measurement, base_of, other_of, trial_of

HELD_OUT_START = 2**62
GROUPS = {
    # group: (kind, level, choices, simple-end logit, change over the ratio, questions an image)
    "coarse": ("main_colour", 1, 10, 3.0, -0.4, 2),
    "attribute": ("colour", 2, 10, 1.4, 0.1, 2),
    "relational": ("left_of", 3, 2, 0.6, 0.9, 3),
    "scene_graph": ("objects", 4, 0, -0.6, 1.9, 1),
    "count": ("count", 2, 10, 0.4, 0.6, 1),
}


@dataclass(frozen=True)
class FakeSweep:
    """Knobs of the simulation; the defaults have a clear effect that saturates at ratio 0.5."""

    ratios: tuple[float, ...] = (0.0, 0.25, 0.5, 0.75, 1.0)
    seeds: tuple[int, ...] = (0, 1)
    images: int = 192
    layers: int = 7
    steps: int = 120
    effect: float = 1.0
    redundancy_change: float = -0.05
    seed_noise: float = 0.15
    unfinished: int = 0
    groups: tuple[str, ...] = tuple(GROUPS)
    component: str = "complex"
    arms: tuple[tuple[str, float], ...] = ()  # name, and the ratio that has the same effect
    photos: dict | None = None  # a component of photographs that trends are held against
    coco: dict | None = None  # and its data set
    high: str = "complex"  # the component at the complex end of the ratio

    def spec(self, runs_dir: Path) -> SweepSpec:
        return SweepSpec.model_validate(
            {
                "name": "fake",
                "runs_dir": str(runs_dir),
                "components": {
                    "simple": {
                        "scene": {"image_size": 64, "objects": [1, 2]},
                        "tasks": {"coarse": 2, "attribute": 2},
                        "seed": 1,
                    },
                    "complex": {
                        "scene": {"image_size": 64, "objects": [3, 6]},
                        "tasks": {
                            "coarse": 2, "attribute": 2, "relational": 3, "scene_graph": 1,
                            "count": 1,
                        },
                        "seed": 2,
                    },
                    **self._data_of_arms(),
                    **({"photos": self.photos} if self.photos else {}),
                },
                "data": {"coco": self.coco} if self.coco else {},
                **self._axis(),
                "seeds": self.seeds,
                "training": {"steps": self.steps, "global_batch": 16, "micro_batch": 16},
                "evaluation": {
                    "component": self.component,
                    "transfer": "photos" if self.photos else None,
                    "examples": self.images,
                },
            }
        )  # fmt: skip

    def _axis(self) -> dict:
        if self.arms:
            arms = {arm: {f"{arm}_data": 1.0} for arm, _ in self.arms}
            return {"design": {"kind": "arms", "arms": arms}}
        sides = {"high": {self.high: 1.0}, "low": {"simple": 1.0}}
        return {"design": {"kind": "ratio", **sides, "ratios": self.ratios}}

    def _data_of_arms(self) -> dict:
        """The component of each arm asks the task groups in its name, such as coarse-count."""
        return {
            f"{arm}_data": {
                "scene": {"image_size": 64, "objects": [3, 6]},
                "tasks": dict.fromkeys(arm.split("-"), 1),
            }
            for arm, _ in self.arms
        }

    def write(self, runs_dir: Path) -> Path:
        """Write the whole run directory and return it."""
        spec = self.spec(runs_dir)
        layout = Layout.of(spec)
        folder = layout.root
        folder.mkdir(parents=True, exist_ok=True)
        (folder / "sweep.json").write_text(spec.model_dump_json(indent=1))
        world = np.random.default_rng(7)
        hardness = world.normal(0, 1.2, self.images)  # of an image, the same for every model
        crowd = world.normal(0, 0.03, self.images)
        self._measure(base_of(spec, folder), None, world, hardness, crowd)
        if other := other_of(spec, folder):
            write_parts(other, **self.tables(None, world, hardness, crowd))
        trials = asked_trials(spec)
        for trial in trials[: len(trials) - self.unfinished]:
            arms = [arm for arm, _ in self.arms]
            place = arms.index(trial.level.id) if arms else 0
            ratio = self.arms[place][1] if arms else trial.level.coordinates["ratio"]
            random = np.random.default_rng([11, trial.seed, round(1000 * ratio), place])
            self._measure(trial_of(spec, folder, trial), ratio, random, hardness, crowd)
            layout.trial(trial).mkdir(parents=True)
            self._train(layout.trial(trial), ratio, random)
            (layout.trial(trial) / "trial.json").write_text(trial.model_dump_json(indent=1))
            (layout.trial(trial) / "trained.json").write_text("{}\n")
        return folder

    def ids(self) -> list[str]:
        return [f"{self.component}/{HELD_OUT_START + i}" for i in range(self.images)]

    def _measure(self, measurement: Measurement, ratio, random, hardness, crowd) -> None:
        write_parts(measurement, **self.tables(ratio, random, hardness, crowd))

    def tables(self, ratio, random, hardness, crowd) -> dict[str, pd.DataFrame]:
        """The tables of a model trained at this ratio; of the base without one."""
        ids = self.ids()
        gain = 0.0 if ratio is None else self.effect * min(ratio, 0.5) / 0.5
        luck = 0.0 if ratio is None else random.normal(0, self.seed_noise)
        rows = []
        for image, name in enumerate(ids):
            for group in self.groups:
                kind, level, choices, start, change, count = GROUPS[group]
                logit = start + change * gain + luck - hardness[image]
                logit -= 1.0 if ratio is None else 0.0
                chance = 1 / choices if choices else 0.0
                right = chance + (1 - chance) / (1 + np.exp(-logit))
                for turn in range(count):
                    hit = float(random.random() < right)
                    graph = group == "scene_graph"
                    f1 = float(np.clip(random.normal(right, 0.1), 0, 1)) if graph else None
                    rows.append(
                        {
                            "example_id": name, "component": self.component, "group": group,
                            "kind": kind, "complexity": level, "prompt": f"{kind}.{turn % 3}",
                            "question": _question(group, turn),
                            "answer": _answer(group),
                            "response": _answer(group) if hit else _wrong(group),
                            "choices": choices,
                            "exact": hit * (random.random() < 0.3) if graph else hit,
                            "relaxed": hit,
                            "count_error": 1.0 - hit if group == "count" else None,
                            "parsed": 1.0 if graph else None,
                            "object_precision": f1, "object_recall": f1, "object_f1": f1,
                            "ged": 1 - f1 if graph else None,
                        }
                    )  # fmt: skip
        examples = pd.DataFrame(rows)
        for name in ("count_error", "parsed", "object_precision", "object_recall", "object_f1",
                     "ged"):  # fmt: skip
            examples[name] = examples[name].astype(float)
        facts = pd.DataFrame(
            {"example_id": ids, "object_count": np.tile([3, 4, 5, 6], self.images)[: self.images],
             "ink_fraction": 0.2 + crowd}
        )  # fmt: skip
        tokens = self._tokens(ratio, random, crowd, ids)
        return {"examples": examples, "attributes": facts, **tokens}

    def _tokens(self, ratio, random, crowd, ids) -> dict[str, pd.DataFrame]:
        share = 0.0 if ratio is None else ratio
        luck = 0.0 if ratio is None else random.normal(0, 0.004)
        parts, pooled = [], []

        def add(stream: str, layer: int, metric: str, values: np.ndarray) -> None:
            parts.append((stream, layer, metric, values))

        def redundancy(stream: str, layer: int, level: float, own: float) -> None:
            values = level + luck * own + crowd + random.normal(0, 0.012, self.images)
            add(stream, layer, "redundancy_score", values)
            error = values.std() / np.sqrt(self.images) * 1.96
            value = values.mean()
            pooled.append((stream, layer, "redundancy_score", value, value - error, value + error,
                           self.images))  # fmt: skip

        redundancy("pixels", -1, 0.22, 0.0)
        redundancy("vision", 0, 0.3, 1.0)
        for layer in range(self.layers):
            depth = layer / max(self.layers - 1, 1)
            hump = 0.35 + 0.28 * np.sin(np.pi * depth)
            moved = self.redundancy_change * share * (0.4 + 1.2 * depth)
            redundancy("visual", layer, hump + moved, 1.0)
            redundancy("text", layer, 0.5 - 0.2 * depth, 0.5)
            for stream in ("visual", "text"):
                noise = random.normal(0, 0.05, self.images)
                add(stream, layer, "gini", 0.2 + 0.1 * depth + 0.1 * noise)
                add(stream, layer, "participation_ratio", 12 - 6 * hump - 4 * moved + noise)
                add(stream, layer, "effective_rank", 30 - 9 * hump + 6 * noise)
                add(stream, layer, "stable_rank", 4 - 2 * hump + noise)
                add(stream, layer, "mean_cosine", 0.3 * hump + 0.2 * noise)
                add(stream, layer, "energy_entropy", 0.95 - 0.05 * depth + 0.1 * noise)
        streams, layers, metrics, values = zip(*parts, strict=True)
        named = {"stream": streams, "layer": layers, "metric": metrics}
        columns = ["stream", "layer", "metric", "value", "low", "high", "n"]
        return {
            "image_metrics": pd.DataFrame(
                {name: np.repeat(column, self.images) for name, column in named.items()}
                | {"example_id": np.tile(ids, len(parts)), "value": np.concatenate(values)}
            ),
            "pooled_metrics": pd.DataFrame(pooled, columns=columns),
        }

    def _train(self, trial, ratio, random) -> None:
        with (trial / "training.jsonl").open("w") as log:
            for step in range(5, self.steps + 1, 5):
                seen = 16 * step
                high = round(ratio * seen)
                loss = 0.25 + 0.35 * ratio + 1.8 * np.exp(-step / 25) + random.normal(0, 0.03)
                record = {
                    "step": step, "loss": loss, "images_per_s": 88 + random.normal(0, 3),
                    "tokens_per_s": 12000.0, "data_wait_share": 0.004, "step_s": 0.18,
                    "peak_memory_gb": 2.1,
                    "learning_rate/vision": 1e-4, "learning_rate/language": 1e-4,
                    "examples/complex": high, "examples/simple": seen - high,
                }  # fmt: skip
                log.write(json.dumps(record) + "\n")


def _question(group: str, turn: int) -> str:
    return {
        "coarse": "What colour are most of the objects?",
        "attribute": "What colour is the large striped star?",
        "relational": f"Is the red circle left of the {('blue', 'green', 'pink')[turn]} square?",
        "scene_graph": "List all objects with their attributes and relations.",
        "count": "How many objects are there?",
    }[group]


def _answer(group: str) -> str:
    return {
        "coarse": "red", "attribute": "blue", "relational": "yes", "count": "4",
        "scene_graph": "small red solid circle at 12,40; large blue striped star at 40,22; "
        "circle left of star",
    }[group]  # fmt: skip


def _wrong(group: str) -> str:
    return {
        "coarse": "blue", "attribute": "green", "relational": "no", "count": "5",
        "scene_graph": "small red solid circle at 14,40; medium blue dotted star at 44,20",
    }[group]  # fmt: skip
