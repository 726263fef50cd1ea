"""What each figure of a measured model shows."""

from mixlens.analysis.measured import ModelTables
from mixlens.report.captions import what_visual_tokens_are
from mixlens.report.embedding import AGREEMENT
from mixlens.report.heatmap import area_words, held_fixed, marks_words
from mixlens.report.model_figures import EMPTY, NULLS
from mixlens.report.probe_figures import not_estimable, without_rare_classes
from mixlens.report.transfer import transfer_captions


def model_captions(tables: ModelTables, n: int) -> dict[str, tuple[str, str]]:
    """Title and text of each figure of a model measured on `n` images."""
    bands = f"Bands: 95 % intervals over n = {n} images."
    known = list(tables.correlations["attribute"].unique())
    deleted = int(tables.deletion["n"].max()) if len(tables.deletion) else 0
    return {
        "energy": (
            "How tokens spread their energy and their directions, by decoder layer.",
            "Gini and energy entropy say how unevenly norms spread over the tokens of an image; "
            "participation ratio, stable and effective rank count the directions they span; the "
            "redundancy score is 1 where all are alike and 0 where they are no more alike than "
            f"tokens of different images. {bands}{what_visual_tokens_are(tables.layers)}",
        ),
        "count": (
            "Compression against the number of objects.",
            "The visual tokens of images with few and with many objects, at the first, a middle "
            f"and the last layer. More objects also mean more {area_words(known)}, which the "
            f"correlations hold fixed. {bands}",
        ),
        "controls": (
            "The same measures without training and without content.",
            f"{_controls(tables)}{bands}",
        ),
        "correlations": (
            "What the tokens' measures go with.",
            "Spearman correlation over images of each measure, by layer, with each attribute of "
            f"the image; below, {held_fixed(known)}. {marks_words(tables.correlations)} "
            f"n = {n} images. Below stand the numbers.",
        ),
        "probe_curves": (
            "What can be read from the tokens, by layer.",
            "Held-out score of a linear probe and of one with two hidden layers on the mean token "
            "of an image: accuracy for categories, R² for numbers. Chance, and the control task "
            f"(the same labels shuffled over images), beside it. {bands}"
            f"{without_rare_classes(tables.probes)}"
            f"{not_estimable(tables.probes)}",
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
        **transfer_captions(vars(tables)),
    }


def _controls(tables: ModelTables) -> str:
    """The controls that were measured, each with what it is."""
    names = [str(name) for name in tables.layers["model"].unique()]
    parts = []
    if any(name.startswith("random") for name in names):
        parts.append("Random weights: the same architecture, never trained.")
    empty = [name.split(" ")[0] for name in names if name in EMPTY]
    if empty:
        words = " and ".join(empty).capitalize()
        parts.append(f"{words} images: this model on pictures with nothing in them.")
    drawn = [NULLS[name] for name in NULLS if name in set(tables.nulls["null"])]
    if drawn:
        parts.append(f"Dotted: {' and '.join(drawn)}.")
    if drawn or empty:
        parts.append(
            "What would flatten the curves of the model stays outside a panel, whose edge says "
            "where it is."
        )
    return "".join(f"{part} " for part in parts)
