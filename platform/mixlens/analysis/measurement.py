"""A measured model with its controls, here and on other images, as its folder holds them."""

from dataclasses import dataclass
from pathlib import Path

from mixlens.design.layout import check_layout
from mixlens.errors import DataError, damaged_file, explain
from mixlens.measurement import Measured, controls_of, load, model_of, other_of
from mixlens.spec import MeasureSpec


@dataclass(frozen=True)
class MeasuredModel:
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
    model: Measured
    controls: dict[str, Measured]
    transfer: Measured | None = None


def read_measure_file(folder: Path) -> MeasureSpec:
    """What was asked of the model in a folder.

    Raises:
        DataError: it holds no measured model of this version, or the file is damaged.
    """
    check_layout(folder)
    file = folder / "measure.json"
    if not file.is_file():
        raise DataError(
            explain(str(folder), "no measure.json", "this is no measured model",
                    "Name a folder that `mixlens measure` has made.")
        )  # fmt: skip
    try:
        return MeasureSpec.model_validate_json(file.read_text())
    except (OSError, ValueError) as error:
        raise damaged_file(file, error) from None


def load_measured(folder: Path) -> MeasuredModel:
    """Read the directory of one measured model.

    Raises:
        DataError: it holds no finished measurement, or a file of it is damaged.
    """
    spec = read_measure_file(folder)
    other = other_of(spec, folder)
    return MeasuredModel(
        folder,
        spec,
        load(model_of(spec, folder)),
        {name: load(one) for name, one in sorted(controls_of(spec, folder).items())},
        None if other is None else load(other),
    )
