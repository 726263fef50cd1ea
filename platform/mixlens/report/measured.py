"""The page of one measured model."""

from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

import matplotlib as mpl
import pandas as pd
import yaml
from matplotlib.figure import Figure

from mixlens.analysis.diagnosis import diagnose
from mixlens.analysis.measured import MODEL, Measured, ModelTables, load_measured, model_tables
from mixlens.analysis.provenance import Provenance, collect_provenance, read_provenance
from mixlens.analysis.tables import EXCESS, REDUNDANCY
from mixlens.analysis.words import GROUP_NAMES, number
from mixlens.report.deletion_figures import deletion_curves
from mixlens.report.embedding import AGREEMENT, embedding_of
from mixlens.report.grids import Grid
from mixlens.report.heatmap import HELD_FIXED, correlation_heatmap
from mixlens.report.model_figures import control_profiles, count_curves, energy_profile
from mixlens.report.page import data_uri, style, template
from mixlens.report.probe_figures import probe_curves, probe_maps
from mixlens.report.style import STYLE, svg


@dataclass(frozen=True)
class Section:
    """A part of the page: its figures, then its tables."""

    title: str
    figures: list[dict[str, object]] = field(default_factory=list)
    grids: list[dict[str, object]] = field(default_factory=list)


def report_model(folder: Path) -> tuple[Path, ModelTables, list[str]]:
    """Tables, figures and page from what was measured.

    Args:
        folder: what `jobs/measure.py` has made.

    Returns:
        path of the page, its tables, and the sentences of the diagnosis.

    Raises:
        DataError: the folder holds no finished measurement.
    """
    measured = load_measured(folder)
    tables = model_tables(measured.model, measured.controls)
    sentences = diagnose(tables)
    return write_measured_report(measured, tables, sentences), tables, sentences


def write_measured_report(measured: Measured, tables: ModelTables, sentences: list[str]) -> Path:
    """Write tables/*.parquet, figures/*.svg and report.html into the folder of the measurement.

    Returns:
        path of the page.
    """
    folder = measured.folder
    tables.write(folder / "tables")
    figures = draw_model(measured, tables)
    (folder / "figures").mkdir(exist_ok=True)
    for name, content in figures.items():
        (folder / "figures" / f"{name}.svg").write_bytes(content)
    page = folder / "report.html"
    part = page.with_suffix(".part")
    part.write_text(_render(measured, tables, sentences, figures), encoding="utf-8")
    part.replace(page)
    return page


def draw_model(measured: Measured, tables: ModelTables) -> dict[str, bytes]:
    """Every figure that there is data for: name -> SVG."""
    makers: dict[str, Callable[[], Figure | None]] = {
        "energy": lambda: energy_profile(tables.layers),
        "count": lambda: count_curves(tables.by_count),
        "controls": lambda: control_profiles(tables.layers, tables.nulls),
        "correlations": lambda: correlation_heatmap(tables.correlations),
        "embedding": lambda: embedding_of({"this model": measured.model}),
    }
    if len(tables.probes):
        makers["probe_curves"] = lambda: probe_curves(tables.probes)
        makers["probe_maps"] = lambda: probe_maps(tables.probes)
    if len(tables.deletion):
        makers["deletion"] = lambda: deletion_curves(tables.deletion)
    drawn = {}
    with mpl.rc_context(dict(STYLE)):
        for name, make in makers.items():
            figure = make()
            if figure is not None:
                drawn[name] = svg(figure)
    return drawn


def model_captions(tables: ModelTables, n: int) -> dict[str, tuple[str, str]]:
    """Title and text of each figure of a model measured on `n` images."""
    bands = f"Bands: 95 % intervals over n = {n} images."
    deleted = int(tables.deletion["n"].max()) if len(tables.deletion) else 0
    return {
        "energy": (
            "How tokens spread their energy and their directions, by decoder layer.",
            "Gini and energy entropy say how unevenly norms spread over the tokens of an image; "
            "participation ratio, stable and effective rank count the directions they span; the "
            "redundancy score is 1 where all are alike and 0 where they are no more alike than "
            f"tokens of different images. {bands}",
        ),
        "count": (
            "Compression against the number of objects.",
            "The visual tokens of images with few and with many objects, at the first, a middle "
            f"and the last layer. More objects also mean more ink, which the correlations hold "
            f"fixed. {bands}",
        ),
        "controls": (
            "The same measures without training and without content.",
            "Random weights: the same architecture, never trained. Blank and noise images: this "
            "model on pictures with nothing in them. Dotted: tokens drawn from a normal "
            f"distribution, and images put together from tokens of different images. {bands}",
        ),
        "correlations": (
            "What the tokens' measures go with.",
            "Spearman correlation over images of each measure, by layer, with each attribute of "
            f"the scene; below, {HELD_FIXED}. Marked cells are beyond chance by a max-T "
            f"permutation test over the whole table. n = {n} images.",
        ),
        "probe_curves": (
            "What can be read from the tokens, by layer.",
            "Held-out score of a linear probe and of one with two hidden layers on the mean token "
            "of an image: accuracy for categories, R² for numbers. Chance, and the control task "
            f"(the same labels shuffled over images), beside it. {bands}",
        ),
        "probe_maps": (
            "Where it can be read: layer by position.",
            "Held-out score of a linear probe at each token position by itself.",
        ),
        "deletion": (
            "What the model does without visual tokens.",
            "Tokens are removed, not masked: the sequence is shorter. Accuracy by task group and "
            "by number of objects, policies at equal budgets, and the time of a forward pass. "
            f"Bands and bars: 95 % intervals over n = {deleted} images.",
        ),
        "embedding": (
            "Mean visual tokens of the images, by t-SNE.",
            "One point an image, coloured by an attribute. t-SNE shows neighbours, not distances; "
            f"below each panel {AGREEMENT}.",
        ),
    }


_LAYERS = "Inside the layers"
_SECTIONS = {
    _LAYERS: ("energy", "count", "controls"),
    "What goes with what": ("correlations",),
    "What can be read": ("probe_curves", "probe_maps", "embedding"),
    "What it does without": ("deletion",),
}


def _render(
    measured: Measured, tables: ModelTables, sentences: list[str], figures: dict[str, bytes]
) -> str:
    recorded = read_provenance(measured.folder)
    provenance = recorded or collect_provenance("")
    return template("measured.html.jinja").render(
        title=f"{measured.spec.model} · {measured.spec.name}",
        style=style(),
        sentences=sentences,
        facts=_facts(measured),
        sections=_sections(measured, tables, figures),
        caveats=_caveats(measured),
        recipe=_recipe(measured, provenance),
        patch=provenance.diff,
        measure_yaml=yaml.safe_dump(
            measured.spec.model_dump(mode="json"), sort_keys=False, default_flow_style=None
        ),
    )


def _sections(measured: Measured, tables: ModelTables, figures: dict[str, bytes]) -> list[Section]:
    captions = model_captions(tables, len(measured.model.attributes))
    order = [name for names in _SECTIONS.values() for name in names if name in figures]
    sections = []
    for title, names in _SECTIONS.items():
        shown: list[dict[str, object]] = [
            {
                "name": name,
                "data": data_uri(figures[name]),
                "place": order.index(name) + 1,
                "title": captions[name][0],
                "text": captions[name][1],
            }
            for name in names
            if name in figures
        ]
        section = Section(title, shown)
        if title == _LAYERS:
            section.grids.append(
                {"grid": _redundancy_grid(tables),
                 "caption": "Redundancy score of visual tokens by layer, with 95 % intervals."}
            )  # fmt: skip
        if section.figures or section.grids:
            sections.append(section)
    sections.append(
        Section(
            "Answers",
            grids=[
                {"grid": _accuracy_grid(tables),
                 "caption": "Headline score of each task group, with 95 % intervals over images. "
                 "On blank and noise images the model answers from the question alone."}
            ],
        )
    )  # fmt: skip
    return sections


def _facts(measured: Measured) -> list[tuple[str, str]]:
    spec = measured.spec
    component = spec.components[spec.evaluation.component]
    low, high = component.scene.objects
    asked = ", ".join(
        f"{turns} {GROUP_NAMES.get(group, group)}" for group, turns in component.tasks.items()
    )
    return [
        ("Model", spec.model),
        ("Images", f"{len(measured.model.attributes)}, of {low} to {high} objects"),
        ("Turns an image", asked),
        ("Controls", ", ".join(measured.controls) or "none"),
    ]


def _redundancy_grid(tables: ModelTables) -> Grid:
    """A row a layer, a column a model; of the model itself the excess over pixels as well."""
    visual = tables.layers[tables.layers["stream"] == "visual"]
    columns = [(MODEL, REDUNDANCY), (MODEL, EXCESS)]
    columns += [(name, REDUNDANCY) for name in visual["model"].unique() if name != MODEL]
    head = ["this model", "above its pixels", *(str(name) for name, _ in columns[2:])]
    rows = []
    for layer in sorted(visual["layer"].unique()):
        here = visual[visual["layer"] == layer]
        cells = [
            _cell(here[(here["model"] == name) & (here["metric"] == metric)])
            for name, metric in columns
        ]
        rows.append((f"layer {layer}", *cells))
    return Grid(("", *head), tuple(rows))


def _accuracy_grid(tables: ModelTables) -> Grid:
    groups = list(dict.fromkeys(tables.accuracy["group"]))
    rows = []
    for name in dict.fromkeys(tables.accuracy["model"]):
        some = tables.accuracy[tables.accuracy["model"] == name].set_index("group")
        label = "this model" if name == MODEL else str(name)
        rows.append((label, *(_cell(some.loc[[g]] if g in some.index else None) for g in groups)))
    own = tables.accuracy[tables.accuracy["model"] == MODEL].set_index("group")
    rows.append(("chance", *(number(own.loc[group, "chance"], 2) for group in groups)))
    return Grid(("", *(GROUP_NAMES.get(g, str(g)) for g in groups)), tuple(rows))


def _cell(rows: pd.DataFrame | None) -> str:
    """Value, and its interval on a line of its own."""
    if rows is None or rows.empty or pd.isna(rows["value"].iloc[0]):
        return "–"
    row = rows.iloc[0]
    value = number(row["value"])
    if pd.isna(row["low"]):
        return value
    return f"{value}\n[{number(row['low'])}, {number(row['high'])}]"


def _caveats(measured: Measured) -> list[str]:
    return [
        "One model was measured as it is: nothing here says what training did, but for the "
        "comparison with random weights.",
        "Intervals are over the held-out images. The model is one draw of its training.",
        "What a probe can read the decoder need not use, and what is deleted may be made up for by "
        "what stays: probes and deletion answer different questions.",
        "A correlation over images is one of scenes as they were drawn; attributes that go "
        "together, such as count and ink, are told apart only as far as the partial correlations "
        "tell them apart.",
        "The redundancy score is this project's own definition; see the documentation of "
        "mixlens.metrics.redundancy for what it is exact for.",
    ]


def _recipe(measured: Measured, provenance: Provenance) -> list[tuple[str, str]]:
    packages = ", ".join(f"{name} {version}" for name, version in provenance.packages.items())
    return [
        ("Command", provenance.command or "python jobs/measure.py <the measure file below>"),
        ("Digest", measured.spec.digest()),
        ("Weights", measured.spec.model_fingerprint or "not recorded"),
        ("Code", provenance.code),
        ("Source", f"SHA-256 {provenance.source}"),
        ("Python", provenance.python),
        ("Packages", packages),
        ("Machine", provenance.machine),
    ]
