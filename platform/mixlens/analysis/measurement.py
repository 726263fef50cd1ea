"""What a measurement has left on disk: of a model and its controls, here and on other images."""

from dataclasses import dataclass
from pathlib import Path

import pandas as pd

from mixlens.analysis.results import read_table
from mixlens.errors import DataError, damaged_file, explain
from mixlens.spec import MeasureSpec

_NEEDED = ("examples", "image_metrics", "pooled_metrics", "attributes")
_OPTIONAL = ("nulls", "probes", "deletion", "embeddings")


@dataclass(frozen=True)
class ModelResults:
    """What one measurement left on disk; what was not asked for is None.

    Attributes:
        examples: one row a question, with answer and scores.
        image_metrics: stream, layer, metric, example_id, value.
        pooled_metrics: stream, layer, metric, value, low, high, n.
        attributes: example_id and the facts about each held-out image.
        nulls: stream, layer, metric, null, value, low, high, n.
        probes: see `mixlens.probing.probes`.
        deletion: see `mixlens.probing.deletion`.
        embeddings: stream, layer, example_id, vector: the mean token of each image.
    """

    examples: pd.DataFrame
    image_metrics: pd.DataFrame
    pooled_metrics: pd.DataFrame
    attributes: pd.DataFrame
    nulls: pd.DataFrame | None = None
    probes: pd.DataFrame | None = None
    deletion: pd.DataFrame | None = None
    embeddings: pd.DataFrame | None = None


def load_model(folder: Path) -> ModelResults:
    """Read the measurement in `folder`.

    Raises:
        DataError: a table that every measurement has is not there, or one is damaged.
    """
    for name in _NEEDED:
        if not (folder / f"{name}.parquet").is_file():
            raise DataError(
                explain(str(folder), f"no {name}.parquet", "the measurement is not finished",
                        "Start its command again.")
            )  # fmt: skip
    there = [name for name in (*_NEEDED, *_OPTIONAL) if (folder / f"{name}.parquet").is_file()]
    return ModelResults(**{name: read_table(folder / f"{name}.parquet") for name in there})


@dataclass(frozen=True)
class Measured:
    """A measured model with its controls, as `jobs/measure.py` leaves them.

    Attributes:
        folder: their directory.
        spec: what was asked for.
        model: the model's results.
        controls: those of random weights and of images without content, by name.
        transfer: the model's results on the images of `evaluation.transfer`; None without it.
    """

    folder: Path
    spec: MeasureSpec
    model: ModelResults
    controls: dict[str, ModelResults]
    transfer: ModelResults | None = None


def load_measured(folder: Path) -> Measured:
    """Read the directory of one measured model.

    Raises:
        DataError: it holds no finished measurement, or a file of it is damaged.
    """
    file = folder / "measure.json"
    if not file.is_file():
        raise DataError(
            explain(str(folder), "no measure.json", "this is no measured model",
                    "Name a folder that `mixlens measure` has made.")
        )  # fmt: skip
    controls = {
        record.parent.name.replace("-", " "): load_model(record.parent)
        for record in sorted((folder / "controls").glob("*/measured.json"))
    }
    try:
        spec = MeasureSpec.model_validate_json(file.read_text())
    except (OSError, ValueError) as error:
        raise damaged_file(file, error) from None
    return Measured(folder, spec, load_model(folder / "measure"), controls, load_transfer(folder))


def load_transfer(folder: Path) -> ModelResults | None:
    """What was measured on the second component, below a model's folder; None if nothing was."""
    there = folder / "transfer"
    return load_model(there) if (there / "measured.json").is_file() else None
