"""What a sweep's report shows of single models: the base, and what fine-tuning made of it."""

from collections.abc import Callable, Mapping

import matplotlib as mpl
import pandas as pd
from matplotlib.figure import Figure

from mixlens.analysis import RunResults, SweepResults
from mixlens.analysis.correlations import correlate
from mixlens.analysis.deletion import deletion_table
from mixlens.analysis.measured import by_count, compared, with_excess
from mixlens.analysis.transfer_build import sides_of
from mixlens.report.embedding import AGREEMENT, embedding_of
from mixlens.report.examples import compared_models
from mixlens.report.heatmap import area_words, correlation_heatmap, held_fixed, marks_words
from mixlens.report.model_comparison import deletion_compared, probes_compared
from mixlens.report.model_figures import count_curves
from mixlens.report.probe_figures import not_estimable, without_rare_classes
from mixlens.report.style import STYLE, svg
from mixlens.report.transfer import FIGURES as TRANSFER_FIGURES
from mixlens.report.transfer import transfer_captions, transfer_makers

INSIDE = ("count", "correlations", "probes", "deletion", "embedding")
"""The figures of this part of the report, in their order; those of transfer follow."""


def inside_tables(sweep: SweepResults) -> dict[str, pd.DataFrame]:
    """Correlations, and their transfer (of the base); nulls, probes and deletion of every run.

    What was not measured is not there.
    """
    base = sweep.base.measured
    tables = {"correlations": correlate(with_excess(base.image_metrics), base.attributes)}
    if sweep.other is not None:
        tables |= compared(base, tables["correlations"], sweep.other, sides_of(sweep.spec))
    parts: dict[str, list[pd.DataFrame]] = {"nulls": [], "probes": [], "deletion": []}
    for run in sweep.runs:
        parts["nulls"].append(run.measured.nulls.assign(run=run.name))
        if run.measured.probes is not None:
            parts["probes"].append(run.measured.probes.assign(run=run.name))
        if run.measured.deleted is not None:
            parts["deletion"].append(deletion_table(run.measured.deleted).assign(run=run.name))
    tables |= {name: pd.concat(some, ignore_index=True) for name, some in parts.items() if some}
    return tables


def inside_figures(sweep: SweepResults, tables: dict[str, pd.DataFrame]) -> dict[str, bytes]:
    """Every figure that there is data for: name -> SVG."""
    runs = _names(sweep)
    models = {name: run.measured for name, run in runs.items()}
    base = sweep.base.measured
    makers: dict[str, Callable[[], Figure | None]] = {
        "count": lambda: count_curves(by_count(base)),
        "correlations": lambda: correlation_heatmap(tables["correlations"]),
        "embedding": lambda: embedding_of(models),
    }
    probes = {n: m.probes for n, m in models.items() if m.probes is not None}
    makers |= transfer_makers(tables)
    if probes:
        makers["probes"] = lambda: probes_compared(probes)
    if "deletion" in tables:
        of_run = dict(iter(tables["deletion"].groupby("run")))
        deletion = {name: of_run[run.name] for name, run in runs.items() if run.name in of_run}
        makers["deletion"] = lambda: deletion_compared(deletion)
    drawn = {}
    with mpl.rc_context(dict(STYLE)):
        for name in (*INSIDE, *TRANSFER_FIGURES):
            figure = makers[name]() if name in makers else None
            if figure is not None:
                drawn[name] = svg(figure)
    return drawn


def inside_captions(
    sweep: SweepResults, tables: Mapping[str, pd.DataFrame]
) -> dict[str, tuple[str, str]]:
    """Title and text of each of these figures."""
    known = list(tables["correlations"]["attribute"].unique())
    n = len(sweep.example_ids)
    deletion = sweep.spec.evaluation.deletion
    deleted = min(n, deletion.examples or n) if deletion else 0
    names = " and ".join(list(_names(sweep))[1:])
    bands = f"Bands: 95 % intervals over n = {n} images."
    return {
        "count": (
            "Compression against the number of objects, in the base model.",
            "Measures of the visual tokens at the first, a middle and the last layer. More "
            f"objects also mean more {area_words(known)}: the next figure holds it fixed. {bands}",
        ),
        "correlations": (
            "What the measures of the base model's tokens go with.",
            "Spearman correlation over images of each measure, by layer, with each "
            f"attribute of the image, and the same {held_fixed(known)}. "
            f"{marks_words(tables['correlations'])} n = {n} images. Below stand the numbers.",
        ),
        "probes": (
            "What a linear probe reads from the mean token, before and after.",
            f"The base model, and {names} (first seed). Held-out score of each attribute; "
            f"dotted: chance. {bands} One seed each: a difference may be that of another training."
            f"{without_rare_classes(tables.get('probes', pd.DataFrame()))}"
            f"{not_estimable(tables.get('probes', pd.DataFrame()))}",
        ),
        "deletion": (
            "Accuracy with visual tokens deleted, before and after.",
            f"The base model, and {names} (first seed). Tokens are removed at random "
            "behind the encoder, and the sequence is shorter for it. Questions with long answers "
            f"are not asked. Bands: 95 % intervals over n = {deleted} images.",
        ),
        "embedding": (
            "Mean visual tokens of the images, before and after, by t-SNE.",
            "One point an image, coloured by an attribute. t-SNE shows neighbours, not "
            f"distances; below each panel {AGREEMENT}.",
        ),
        **transfer_captions(tables),
    }


def _names(sweep: SweepResults) -> dict[str, RunResults]:
    """The compared models, by what a reader calls them."""
    return {
        "base model" if run.trial is None else run.trial.level.label: run
        for run in compared_models(sweep)
    }
