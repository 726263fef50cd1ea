"""One self-contained page from a run directory."""

import base64
from collections.abc import Sequence
from dataclasses import dataclass
from importlib import resources
from pathlib import Path

import pandas as pd
import yaml
from jinja2 import Environment, PackageLoader, StrictUndefined
from markupsafe import Markup

from mixlens.analysis import (
    Provenance,
    SweepResults,
    Tables,
    answer_sentences,
    build_tables,
    collect_provenance,
    load_sweep,
    read_provenance,
)
from mixlens.analysis.answer import GROUP_NAMES, number, score_name
from mixlens.analysis.effect import DIFFERENCE, SLOPE, is_beyond_noise
from mixlens.analysis.tables import EXCESS, HEADLINE, REDUNDANCY
from mixlens.report.captions import captions, caveats
from mixlens.report.examples import compared_models, show_examples
from mixlens.report.figures import draw
from mixlens.spec import Layout, SweepSpec
from mixlens.tasks import prompts_digest


@dataclass(frozen=True)
class Grid:
    """A table of text for the page: a head row, and rows whose first cell names them."""

    head: tuple[str, ...]
    rows: tuple[tuple[str, ...], ...]


def write_report(sweep_dir: Path) -> tuple[Path, Tables]:
    """Build tables, figures and `report.html` from what is in a run directory.

    Args:
        sweep_dir: holds sweep.json, the measured base and at least one finished trial.

    Returns:
        path of the page, and its tables. Beside the page: tables/*.parquet, figures/*.svg.

    Raises:
        DataError: the directory does not hold these.
    """
    sweep_dir = sweep_dir.absolute()
    sweep = load_sweep(sweep_dir)
    layout = Layout(sweep_dir)
    tables = build_tables(sweep)
    tables.write(layout.tables)
    figures = draw(tables)
    folder = sweep_dir / "figures"
    folder.mkdir(exist_ok=True)
    for name, svg in figures.items():
        (folder / f"{name}.svg").write_bytes(svg)
    part = layout.report.with_suffix(".part")
    part.write_text(render(sweep, tables, figures), encoding="utf-8")
    part.replace(layout.report)
    return layout.report, tables


def render(sweep: SweepResults, tables: Tables, figures: dict[str, bytes]) -> str:
    """The page as HTML text."""
    environment = Environment(
        loader=PackageLoader("mixlens.report", "."),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    headline, *sentences = answer_sentences(tables)
    recorded = read_provenance(sweep.folder)
    provenance = recorded or collect_provenance("")
    style = resources.files("mixlens.report").joinpath("report.css").read_text()
    texts = captions(sweep, tables)
    return environment.get_template("report.html.jinja").render(
        title=f"Sweep {sweep.spec.name}",
        style=Markup(style),
        headline=headline,
        sentences=sentences,
        facts=_facts(sweep),
        missing=sweep.missing,
        figures=[
            {"name": name, "data": _data_uri(svg), "place": place + 1, **texts[name]}
            for place, (name, svg) in enumerate(figures.items())
        ],
        models=[_model_name(run.ratio) for run in compared_models(sweep)],
        examples=show_examples(sweep),
        group_names=GROUP_NAMES,
        accuracy=_accuracy_grid(tables),
        redundancy=_redundancy_grid(tables),
        effects=_effects_grid(tables),
        cost=_cost_grid(tables),
        recipe=_recipe(sweep, provenance),
        patch=provenance.diff,
        provenance_is_recorded=recorded is not None,
        digests=[
            (run.name, run.spec.digest(), _code(run.folder)) for run in sweep.trials if run.spec
        ],
        sweep_yaml=yaml.safe_dump(
            sweep.spec.model_dump(mode="json"), sort_keys=False, default_flow_style=None
        ),
        caveats=caveats(sweep, tables),
    )


def _data_uri(svg: bytes) -> str:
    return f"data:image/svg+xml;base64,{base64.b64encode(svg).decode()}"


def _model_name(ratio: float | None) -> str:
    return "base model" if ratio is None else f"ratio {ratio:g}"


def _facts(sweep: SweepResults) -> list[tuple[str, str]]:
    spec = sweep.spec
    training = spec.training
    how = f"LoRA, rank {training.lora.rank}" if training.lora else "full fine-tuning"
    images = training.steps * training.global_batch
    return [
        ("Base model", spec.model),
        ("Ratios", ", ".join(f"{ratio:g}" for ratio in spec.ratios)),
        ("Seeds", ", ".join(str(seed) for seed in spec.seeds)),
        ("Trials", f"{len(sweep.trials)} of {len(sweep.trials) + len(sweep.missing)} finished"),
        ("Training", f"{training.steps} steps of {training.global_batch} images "
         f"({images:,} a run), {how}"),
        ("Complex data", _mixture(spec, spec.mixture.high)),
        ("Simple data", _mixture(spec, spec.mixture.low)),
        ("Held-out images", f"{len(sweep.example_ids)} of component {spec.evaluation.component}, "
         "the same for every model"),
    ]  # fmt: skip


def _mixture(spec: SweepSpec, weights: dict[str, float]) -> str:
    """What is in the components of one end of the ratio."""
    parts = []
    for name, weight in weights.items():
        if weight:
            component = spec.components[name]
            low, high = component.scene.objects
            asked = ", ".join(
                f"{turns} {GROUP_NAMES.get(group, group)}"
                for group, turns in component.tasks.items()
            )
            share = f"{100 * weight:g} % " if len(weights) > 1 else ""
            parts.append(f"{share}{name}: {low} to {high} objects; turns an image: {asked}")
    return "; ".join(parts)


def _accuracy_grid(tables: Tables) -> Grid:
    short = {group: GROUP_NAMES[group] for group in HEADLINE} | {"scene_graph": "scene graph, F1"}
    columns = [(short[group], group, metric, "") for group, metric in HEADLINE.items()]
    columns += [(f"{name}, mean", name, "accuracy", "") for name in ("simple", "complex")]
    return _by_run(tables, columns)


def _redundancy_grid(tables: Tables) -> Grid:
    return _by_run(
        tables,
        [
            ("visual, all layers", "visual", REDUNDANCY, "mean"),
            ("early third", "visual", REDUNDANCY, "early"),
            ("middle third", "visual", REDUNDANCY, "middle"),
            ("late third", "visual", REDUNDANCY, "late"),
            ("above pixel floor", "visual", EXCESS, "mean"),
            ("text, all layers", "text", REDUNDANCY, "mean"),
            ("vision encoder", "vision", REDUNDANCY, "mean"),
        ],
    )


def _by_run(tables: Tables, columns: Sequence[tuple[str, str, str, str]]) -> Grid:
    """One row for the base and each ratio; a column for each quantity that was measured."""
    table = tables.sweep.set_index(["subject", "metric", "part"]).sort_index()
    table = table[table["value"].notna()]
    columns = [column for column in columns if column[1:] in table.index]
    rows = []
    for name in tables.sweep["run"].unique():
        cells = []
        for _, *key in columns:
            some = table.loc[[tuple(key)]]
            some = some[some["run"] == name]
            cells.append(_cell(some.iloc[0]) if len(some) else "–")
        rows.append(("base model" if name == "base" else name.replace("=", " "), *cells))
    return Grid(("", *(label for label, *_ in columns)), tuple(rows))


def _effects_grid(tables: Tables) -> Grid:
    """Difference of the end ratios, and slope, of each headline quantity."""
    table = tables.effects
    wanted = [(score_name(group), group, metric, "") for group, metric in HEADLINE.items()]
    wanted += [
        ("visual redundancy", "visual", REDUNDANCY, "mean"),
        ("… early third", "visual", REDUNDANCY, "early"),
        ("… middle third", "visual", REDUNDANCY, "middle"),
        ("… late third", "visual", REDUNDANCY, "late"),
        ("text redundancy", "text", REDUNDANCY, "mean"),
    ]
    rows = []
    for label, subject, metric, part in wanted:
        some = table[
            (table["subject"] == subject) & (table["metric"] == metric) & (table["part"] == part)
        ].set_index("contrast")
        if DIFFERENCE not in some.index or pd.isna(some.loc[DIFFERENCE, "value"]):
            continue
        change = some.loc[DIFFERENCE]
        verdict = "beyond noise" if is_beyond_noise(change) else "within noise"
        rows.append((label, _cell(change, True), _cell(some.loc[SLOPE], True), verdict))
    return Grid(
        ("Quantity", "Highest − lowest ratio", "Slope, per unit of ratio", "Difference is"),
        tuple(rows),
    )


def _cost_grid(tables: Tables) -> Grid:
    names = {
        "images_per_s": ("images/s", 1, 1.0),
        "tokens_per_s": ("tokens/s", 0, 1.0),
        "step_s": ("step, ms", 0, 1000.0),
        "data_wait_share": ("waiting for data, %", 2, 100.0),
        "peak_memory_gb": ("peak memory, GB", 2, 1.0),
    }
    there = [name for name in names if name in tables.training]
    if not there:
        return Grid((), ())
    medians = tables.training.groupby("run", sort=False)[there].median()
    rows = [
        (str(run), *(number(row[name] * names[name][2], names[name][1]) for name in there))
        for run, row in medians.iterrows()
    ]
    return Grid(("Run (median step)", *(names[name][0] for name in there)), tuple(rows))


def _cell(row: pd.Series, signed: bool = False) -> str:
    """Value, and its interval on a line of its own."""
    if pd.isna(row["value"]):
        return "–"
    value = number(row["value"], 3, signed)
    if pd.isna(row["low"]):
        return value
    low, high = (number(row[end], 3, signed) for end in ("low", "high"))
    return f"{value}\n[{low}, {high}]"


def _recipe(sweep: SweepResults, provenance: Provenance) -> list[tuple[str, str]]:
    if provenance.is_clean:
        state = "no uncommitted changes"
    elif provenance.commit:
        state = f"with uncommitted changes ({len(provenance.untracked)} untracked files)"
    else:
        state = "not a git checkout"
    packages = ", ".join(f"{name} {version}" for name, version in provenance.packages.items())
    return [
        ("Command", provenance.command or "python jobs/sweep.py <the sweep file below>"),
        ("Sweep digest", sweep.spec.digest()),
        ("Base digest", sweep.spec.runs()[0].base_digest()),
        ("Weights of the base", sweep.spec.model_fingerprint or "not recorded"),
        ("Code", f"{provenance.commit or 'unknown commit'}, {state}"),
        ("Source", f"SHA-256 {provenance.source}"),
        ("Prompts", f"tasks/prompts.yaml, SHA-256 {sweep.spec.prompts_digest or prompts_digest()}"),
        ("Python", provenance.python),
        ("Packages", packages),
        ("Machine", provenance.machine),
        ("Rebuild this page", f"python jobs/report.py {_short(sweep.folder)}"),
    ]


def _code(trial: Path) -> str:
    provenance = read_provenance(trial)
    return provenance.code if provenance else "code not recorded"


def _short(folder: Path) -> str:
    return "/".join(folder.parts[-2:])
