"""One self-contained page from a run directory."""

from collections.abc import Mapping
from pathlib import Path

import pandas as pd
import yaml

from mixlens.analysis import (
    Provenance,
    RunResults,
    SweepResults,
    Tables,
    answer_sentences,
    build_tables,
    collect_provenance,
    load_sweep,
    read_provenance,
)
from mixlens.analysis.tables import write_tables
from mixlens.analysis.versions import sweep_version_warnings
from mixlens.analysis.words import GROUP_NAMES
from mixlens.design import Layout, SweepSpec
from mixlens.report.captions import captions, caveats
from mixlens.report.components import content, turns
from mixlens.report.correlation_grids import correlation_grids
from mixlens.report.data import data_section, left_out_table, replaced_table
from mixlens.report.examples import compared_models, show_examples
from mixlens.report.figures import draw
from mixlens.report.grids import (
    Grid,
    accuracy_grid,
    cost_grid,
    effects_grid,
    pairs_grid,
    redundancy_grid,
)
from mixlens.report.inside import (
    INSIDE,
    inside_captions,
    inside_figures,
    inside_tables,
)
from mixlens.report.page import shown_figures, style, template
from mixlens.report.transfer import FIGURES as TRANSFER_FIGURES
from mixlens.report.transfer import transfer_section, transfer_title
from mixlens.sources import open_source
from mixlens.tasks import prompts_digest


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
    inside = inside_tables(sweep)
    if sweep.spec.data:
        inside["left_out"] = left_out_table(sweep.spec)
    if _may_replace(sweep.spec):
        inside["replaced"] = replaced_table([(run.name, run.folder) for run in sweep.trials])
    write_tables(layout.tables, inside)
    figures = draw(tables)
    # In the order of the page, which numbers them.
    last = {name: figures.pop(name) for name in ("training",) if name in figures}
    figures |= inside_figures(sweep, inside) | last
    folder = sweep_dir / "figures"
    folder.mkdir(exist_ok=True)
    for name, svg in figures.items():
        (folder / f"{name}.svg").write_bytes(svg)
    part = layout.report.with_suffix(".part")
    part.write_text(render(sweep, tables, inside, figures), encoding="utf-8")
    part.replace(layout.report)
    return layout.report, tables


def render(
    sweep: SweepResults,
    tables: Tables,
    inside: Mapping[str, pd.DataFrame],
    figures: dict[str, bytes],
) -> str:
    """The page as HTML text.

    Args:
        sweep: what was run.
        tables: of the sweep.
        inside: see `inside_tables`; of a sweep with data sets also `left_out`, and of one that
            trains on images from files `replaced`.
        figures: name -> SVG, in the order of the page.
    """
    headline, *sentences = answer_sentences(tables)
    sentences += sweep_version_warnings(sweep.spec, sweep.folder)
    recorded = read_provenance(sweep.folder)
    provenance = recorded or collect_provenance("")
    texts = captions(sweep, tables) | inside_captions(sweep, inside)
    shown = shown_figures(figures, texts)
    transfer = transfer_section(
        f"{transfer_title(sweep.spec)}: the base model",
        inside,
        [shown[name] for name in TRANSFER_FIGURES if name in shown],
    )
    left_out = inside.get("left_out", pd.DataFrame())
    data = data_section(sweep.spec, left_out, inside.get("replaced"))
    return template("report.html.jinja").render(
        title=f"Sweep {sweep.spec.name}",
        style=style(),
        headline=headline,
        sentences=sentences,
        facts=_facts(sweep),
        missing=sweep.missing,
        figures=list(shown.values()),
        transfer=transfer,
        data=data,
        inside=INSIDE,
        correlation_tables=correlation_grids(inside["correlations"]),
        noun=sweep.spec.design.axis.noun,
        models=[_model_name(run) for run in compared_models(sweep)],
        examples=show_examples(sweep),
        group_names=GROUP_NAMES,
        grids=_grids(sweep, tables),
        cost=cost_grid(tables),
        recipe=_recipe(sweep, provenance),
        patch=provenance.diff,
        provenance_is_recorded=recorded is not None,
        digests=[
            (run.name, run.trial.run.digest(), _code(run.folder))
            for run in sweep.trials
            if run.trial
        ],
        sweep_yaml=yaml.safe_dump(
            sweep.spec.model_dump(mode="json"), sort_keys=False, default_flow_style=None
        ),
        caveats=caveats(sweep, tables),
    )


def _may_replace(spec: SweepSpec) -> bool:
    """Whether a model is trained on images of which one can turn out to be damaged."""
    levels = spec.design.levels()
    drawn = {name for level in levels for name, weight in level.weights.items() if weight > 0}
    return any(open_source(name, spec.components[name], spec.data).is_replaceable for name in drawn)


def _model_name(run: RunResults) -> str:
    return "base model" if run.trial is None else run.trial.level.label


def _grids(sweep: SweepResults, tables: Tables) -> dict[str, list[tuple[Grid, str]]]:
    """The tables of the section about the result, and of the one with all the rest."""
    noun = sweep.spec.design.axis.noun
    return {
        "result": [
            (effects_grid(tables),
             f"From the first {noun} to the last, with 95 % intervals, each by itself. Trend: "
             "slope of the least-squares line."),
            (pairs_grid(tables),
             f"Difference of every pair of {noun}s. The 95 % intervals of a column hold for all "
             "pairs at once; a star: beyond the noise."),
        ],
        "rest": [
            (accuracy_grid(sweep, tables),
             "Headline score of each task group: mean over seeds, 95 % interval. A star: the model "
             "was trained on this group."),
            (redundancy_grid(tables),
             "Redundancy score: mean over seeds, 95 % interval. The pixel floor is that of the "
             "held-out images, the same for every model."),
        ],
    }  # fmt: skip


def _facts(sweep: SweepResults) -> list[tuple[str, str]]:
    spec = sweep.spec
    training = spec.training
    how = f"LoRA, rank {training.lora.rank}" if training.lora else "full fine-tuning"
    images = training.steps * training.global_batch
    return [
        ("Base model", spec.model),
        ("Levels", ", ".join(level.label for level in spec.design.levels())),
        ("Seeds", ", ".join(str(seed) for seed in spec.seeds)),
        ("Trials", f"{len(sweep.trials)} of {len(sweep.trials) + len(sweep.missing)} finished"),
        ("Training", f"{training.steps} steps of {training.global_batch} images "
         f"({images:,} a run), {how}"),
        *((name, _mixture(spec, weights)) for _, name, weights in spec.design.mixtures()),
        ("Held-out images", f"{len(sweep.example_ids)} of component {spec.evaluation.component}, "
         "the same for every model"),
    ]  # fmt: skip


def _mixture(spec: SweepSpec, weights: dict[str, float]) -> str:
    """The images and questions of a mixture's components, in words."""
    parts = []
    for name, weight in weights.items():
        if weight:
            component = spec.components[name]
            share = f"{100 * weight:g} % " if len(weights) > 1 else ""
            asked = f"turns an image: {turns(component)}"
            parts.append(f"{share}{name}: {content(spec, name)}; {asked}")
    return "; ".join(parts)


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
        ("Base digest", sweep.spec.base_digest()),
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
