"""The part of a page on its data sets: what was used, what was left out or repaired, and why."""

from collections.abc import Sequence
from pathlib import Path

import pandas as pd

from mixlens.design import SweepSpec
from mixlens.measurement.measurement import read_table
from mixlens.mixture.decoding import REPLACED
from mixlens.report.components import content, turns
from mixlens.report.grids import Grid
from mixlens.report.page import Section, Table
from mixlens.sources import Contents, contents_of, open_source
from mixlens.spec import DataSet, MeasureSpec
from mixlens.spec.held_out import used_data

_SPLITS = {"train": "training", "held_out": "held out"}
_NAMED = 5
_INDEX_AGAIN = "Delete its folder; the sweep's command indexes the data set again."
_COUNTED = ["data", "split", "what", "outcome", "reason"]


def left_out_table(spec: SweepSpec | MeasureSpec) -> pd.DataFrame:
    """Table `left_out`: every thing that indexing left out or repaired, a row each.

    data, split, what, outcome, reason, image_id, id, file_name, detail; no rows where no component
    takes images from a data set, or where its index is not there any more.
    """
    parts = [
        read_table(contents.left_out, _INDEX_AGAIN).assign(data=name)
        for name, contents in _contents(spec).items()
        if contents and contents.left_out.is_file()
    ]
    columns = [*_COUNTED, "image_id", "id", "file_name", "detail"]
    return pd.concat(parts, ignore_index=True)[columns] if parts else pd.DataFrame(columns=columns)


def replaced_table(runs: Sequence[tuple[str, Path]]) -> pd.DataFrame:
    """Table `replaced`: positions whose image did not decode in training, and what took its place.

    Args:
        runs: name and folder of each.
    """
    parts = [
        read_table(file).assign(run=name)
        for name, folder in runs
        if (file := folder / REPLACED).is_file()
    ]
    return pd.concat(parts, ignore_index=True) if parts else pd.DataFrame({"run": []})


def data_section(
    spec: SweepSpec | MeasureSpec, left_out: pd.DataFrame, replaced: pd.DataFrame | None = None
) -> Section | None:
    """The section; None where no component takes images from a data set.

    Args:
        spec: with the index of each data set.
        left_out: see `left_out_table`.
        replaced: see `replaced_table`; None where nothing was trained on photographs.
    """
    contents = _contents(spec)
    if not contents:
        return None
    facts = [
        (f"Data set {name}", _described(name, spec.data[name], one, left_out))
        for name, one in contents.items()
    ]
    facts += [
        (f"Component {name}", _sized(spec, name, contents.get(component.data_set or "")))
        for name, component in spec.components.items()
    ]
    sentences = []
    if replaced is not None:
        runs = replaced["run"].nunique()
        sentences.append(
            f"In training, {len(replaced):,} positions of {runs} run{'s' * (runs != 1)} had an "
            "image that could not be used and took another of its component (tables/replaced)."
            if len(replaced)
            else "In training every image that was drawn could be decoded."
        )
    sentences += [
        f"Data set {name}: {note}." for name, one in contents.items() if one for note in one.notes
    ]
    tables = []
    if len(left_out):
        caption = (
            "What indexing left out, repaired, or took for a region of many objects, with the ids "
            "of the first few of each kind."
        )
        tables.append(Table(_reasons(left_out), caption))
    if not (left_out["outcome"] != "region").any() and all(contents.values()):
        sentences.insert(0, "Nothing was left out and nothing had to be repaired.")
    return Section("Data", facts=facts, sentences=sentences, tables=tables)


def _contents(spec: SweepSpec | MeasureSpec) -> dict[str, Contents | None]:
    """What the data sets hold that components use; None where an index is not there any more."""
    used = used_data(spec, list(spec.components))
    return {name: contents_of(name, data) for name, data in used.items()}


def _described(name: str, data: DataSet, contents: Contents | None, left_out: pd.DataFrame) -> str:
    """Where a data set is, how many of its images are used, and how many are not."""
    if contents is None:
        return f"{data.root}; its index ({data.index}) is gone, so its images are not counted"
    used = contents.images
    images = left_out[(left_out["data"] == name) & (left_out["what"] == "image")]
    outcomes = images["outcome"].value_counts()
    return (
        f"{data.root}; {used['train']:,} images to train on and {used['held_out']:,} held out; "
        f"{outcomes.get('left_out', 0):,} left out and "
        f"{outcomes.get('repaired', 0):,} repaired. Fingerprint {data.fingerprint}."
    )


def _sized(spec: SweepSpec | MeasureSpec, name: str, contents: Contents | None) -> str:
    """What a component holds, how many images that are, and what it is for."""
    component = spec.components[name]
    asked = spec.evaluation
    uses = {
        asked.component: "; models are measured on it",
        asked.transfer: "; trends are compared on it",
    }
    if component.data_set is not None and contents is None:
        images = "images not counted"
    else:
        source = open_source(name, component, spec.data)
        sizes = [
            "without end" if size is None else f"{size:,}"
            for size in (source.size, source.held_out_size)
        ]
        images = f"images to train on: {sizes[0]}, held out: {sizes[1]}"
    use = uses.get(name, "")
    return f"{content(spec, name)}; {images}; turns an image: {turns(component)}{use}"


def _reasons(left_out: pd.DataFrame) -> Grid:
    """A row a reason, with how many there are and the first few of them."""
    rows = []
    for key, some in left_out.groupby(_COUNTED, sort=True):
        data, split, what, outcome, reason = map(str, key)
        ids = some["image_id" if what == "image" else "id"].head(_NAMED)
        names = [str(one) for one in ids if one >= 0]
        shown = names or [str(name) for name in some["file_name"].head(_NAMED) if name]
        rows.append(
            (f"{reason.replace('_', ' ')}", outcome.replace("_", " "), f"{what}s", data,
             _SPLITS.get(split, split), f"{len(some):,}",
             ", ".join(shown) + (" …" if len(some) > len(shown) else ""))
        )  # fmt: skip
    head = ("reason", "outcome", "of", "data set", "split", "number", "ids")
    return Grid(head, tuple(rows))
