"""The page of one measured model."""

from collections.abc import Callable
from pathlib import Path

import matplotlib as mpl
import pandas as pd
import yaml
from matplotlib.figure import Figure

from mixlens.analysis.diagnosis import below_chance, diagnose
from mixlens.analysis.measured import MODEL, ModelTables, model_tables
from mixlens.analysis.measurement import MeasuredModel, load_measured
from mixlens.analysis.provenance import Provenance, collect_provenance, read_provenance
from mixlens.analysis.tables import EXCESS, REDUNDANCY, write_tables
from mixlens.analysis.transfer_build import sides_of
from mixlens.analysis.versions import measure_version_warnings
from mixlens.analysis.words import GROUP_NAMES, number
from mixlens.report.components import about_images, content, turns
from mixlens.report.correlation_grids import correlation_grids
from mixlens.report.data import data_section, left_out_table
from mixlens.report.deletion_figures import deletion_curves
from mixlens.report.embedding import embedding_of
from mixlens.report.examples import show_measured
from mixlens.report.grids import Grid
from mixlens.report.heatmap import correlation_heatmap
from mixlens.report.model_captions import model_captions
from mixlens.report.model_figures import control_profiles, count_curves, energy_profile
from mixlens.report.page import Section, Table, shown_figures, style, template
from mixlens.report.probe_figures import probe_curves, probe_maps
from mixlens.report.style import STYLE, svg
from mixlens.report.transfer import FIGURES as TRANSFER_FIGURES
from mixlens.report.transfer import transfer_makers, transfer_section, transfer_title
from mixlens.spec import held_out_of


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
    tables = model_tables(
        measured.model, measured.controls, measured.transfer, sides_of(measured.spec)
    )
    sentences = [*diagnose(tables), *measure_version_warnings(measured.spec, folder)]
    return write_measured_report(measured, tables, sentences), tables, sentences


def write_measured_report(
    measured: MeasuredModel, tables: ModelTables, sentences: list[str]
) -> Path:
    """Write tables/*.parquet, figures/*.svg and report.html into the folder of the measurement.

    Returns:
        path of the page.
    """
    folder = measured.folder
    tables.write(folder / "tables")
    left_out = left_out_table(measured.spec)
    write_tables(folder / "tables", {"left_out": left_out} if measured.spec.data else {})
    figures = draw_model(measured, tables)
    (folder / "figures").mkdir(exist_ok=True)
    for name, drawn in figures.items():
        (folder / "figures" / f"{name}.svg").write_bytes(drawn)
    page = folder / "report.html"
    part = page.with_suffix(".part")
    part.write_text(_render(measured, tables, sentences, figures, left_out), encoding="utf-8")
    part.replace(page)
    return page


def draw_model(measured: MeasuredModel, tables: ModelTables) -> dict[str, bytes]:
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
    makers |= transfer_makers(vars(tables))
    drawn = {}
    with mpl.rc_context(dict(STYLE)):
        for name, make in makers.items():
            figure = make()
            if figure is not None:
                drawn[name] = svg(figure)
    return drawn


_LAYERS = "Inside the layers"
_SECTIONS = {
    _LAYERS: ("energy", "count", "controls"),
    "What goes with what": ("correlations",),
    "What can be read": ("probe_curves", "probe_maps", "embedding"),
    "What it does without": ("deletion",),
}


def _render(
    measured: MeasuredModel,
    tables: ModelTables,
    sentences: list[str],
    figures: dict[str, bytes],
    left_out: pd.DataFrame,
) -> str:
    recorded = read_provenance(measured.folder)
    provenance = recorded or collect_provenance("")
    return template("measured.html.jinja").render(
        title=f"{measured.spec.model} · {measured.spec.name}",
        style=style(),
        sentences=sentences,
        facts=_facts(measured),
        sections=_sections(measured, tables, figures, left_out),
        examples=show_measured(measured),
        group_names=GROUP_NAMES,
        caveats=_caveats(measured),
        recipe=_recipe(measured, provenance),
        patch=provenance.diff,
        measure_yaml=yaml.safe_dump(
            measured.spec.model_dump(mode="json"), sort_keys=False, default_flow_style=None
        ),
    )


def _sections(
    measured: MeasuredModel, tables: ModelTables, figures: dict[str, bytes], left_out: pd.DataFrame
) -> list[Section]:
    order = [name for names in (*_SECTIONS.values(), TRANSFER_FIGURES) for name in names]
    captions = model_captions(tables, len(measured.model.attributes))
    shown = shown_figures({name: figures[name] for name in order if name in figures}, captions)
    sections: list[Section | None] = []
    for title, names in _SECTIONS.items():
        section = Section(title, figures=[shown[name] for name in names if name in shown])
        if title == _LAYERS:
            caption = "Redundancy score of visual tokens by layer, with 95 % intervals."
            section.tables.append(Table(_redundancy_grid(tables), caption))
        if "correlations" in names:
            section.tables.extend(correlation_grids(tables.correlations))
        sections.append(section if section.figures or section.tables else None)
    drawn = [shown[name] for name in TRANSFER_FIGURES if name in shown]
    sections.append(transfer_section(transfer_title(measured.spec), vars(tables), drawn))
    answers = (
        "Headline score of each task group, with 95 % intervals over images. On images without "
        "content the model answers from the question alone."
    )
    told = list(below_chance(tables.accuracy))
    grid = Table(_accuracy_grid(tables), answers)
    sections.append(Section("Answers", sentences=told, tables=[grid]))
    sections.append(data_section(measured.spec, left_out))
    return [section for section in sections if section is not None]


def _facts(measured: MeasuredModel) -> list[tuple[str, str]]:
    spec = measured.spec
    component = spec.components[spec.evaluation.component]
    return [
        ("Model", spec.model),
        ("Images", f"{len(measured.model.attributes)}: {content(spec, spec.evaluation.component)}"),
        ("Turns an image", turns(component)),
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


def _caveats(measured: MeasuredModel) -> list[str]:
    return [
        "One model was measured as it is: nothing here says what training did, but for the "
        "comparison with random weights.",
        "Intervals are over the held-out images. The model is one draw of its training.",
        "What a probe can read the decoder need not use, and what is deleted may be made up for by "
        "what stays: probes and deletion answer different questions.",
        "A correlation over images is one of the images as they were drawn or chosen; attributes "
        "that go together, such as the number of objects and how much of the image they fill, are "
        "told apart only as far as the partial correlations tell them apart.",
        *about_images(measured.spec),
        "The redundancy score is this project's own definition; see the documentation of "
        "mixlens.metrics.redundancy for what it is exact for.",
    ]


def _recipe(measured: MeasuredModel, provenance: Provenance) -> list[tuple[str, str]]:
    packages = ", ".join(f"{name} {version}" for name, version in provenance.packages.items())
    return [
        ("Command", provenance.command or "python jobs/measure.py <the measure file below>"),
        ("Model digest", measured.spec.model_digest()),
        ("Held-out digest", held_out_of(measured.spec).digest()),
        ("Weights", measured.spec.model_fingerprint or "not recorded"),
        ("Code", provenance.code),
        ("Source", f"SHA-256 {provenance.source}"),
        ("Python", provenance.python),
        ("Packages", packages),
        ("Machine", provenance.machine),
    ]
