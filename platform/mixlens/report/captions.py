"""What each figure shows, and what the numbers of a report do not say."""

import pandas as pd

from mixlens.analysis import SweepResults, Tables
from mixlens.analysis.recommendation import MARGIN
from mixlens.analysis.tables import REDUNDANCY
from mixlens.analysis.words import GROUP_NAMES
from mixlens.design import BASE
from mixlens.report.components import about_images

# What a summary of the study reports for its four task groups; cited on the page, used nowhere.
STUDY = {"coarse": 0.78, "attribute": 0.62, "relational": 0.48, "scene_graph": 0.35}


def what_visual_tokens_are(layers: pd.DataFrame) -> str:
    """A sentence where some blocks have no visual tokens, which happens with cross-attention alone.

    Args:
        layers: with columns stream and layer.
    """
    visual, text = (set(layers["layer"][layers["stream"] == name]) for name in ("visual", "text"))
    if not visual < text:
        return ""
    return (
        " The decoder reads the image by cross-attention: its visual tokens are the keys and "
        "values that a block reads, in the blocks that do so; at layer 0, what these are made of."
    )


def captions(sweep: SweepResults, tables: Tables) -> dict[str, tuple[str, str]]:
    """Title and text of each figure of a sweep."""
    images = len(sweep.example_ids)
    runs = len(sweep.trials)
    seeds = sorted({int(trial.seed or 0) for trial in sweep.trials})
    many = f"{len(seeds)} seed{'s' if len(seeds) != 1 else ''}"
    covers = _covers(tables)
    bars = f"Bars: 95 % intervals over {covers}."
    noun = sweep.spec.design.axis.noun
    apart = (
        f" Bars of two {noun}s may overlap although their paired difference is beyond the noise: "
        "see the table of pairs."
    )
    without = "" if sweep.spec.design.axis.scale else apart
    return {
        "redundancy": (
            f"Redundancy of visual tokens by {noun}.",
            f"Redundancy score of the hidden states at visual tokens on n = {images} "
            f"held-out images, {runs} runs, {many}. 1: all tokens of an image are alike; 0: no "
            "more alike than tokens of different images. (a) Mean over the decoder layers; grey: "
            "base model before fine-tuning. Open circles: single runs. (b) Thirds of the depth; "
            f"dotted: base model. {bars}{without}",
        ),
        "accuracy": (
            f"Accuracy of each task group by {noun}.",
            "Exact match of the answers (relaxed match, one cell off, for localisation; "
            f"F1 of the listed objects for scene graphs) on {images} held-out images; n counts the "
            f"images with a question of the group. {bars} Dotted: chance, where all "
            "questions of a group have a fixed set of answers.",
        ),
        "sufficiency": (
            f"Which {noun} is enough for complex tasks.",
            "Complex accuracy is the mean of relational accuracy and scene-graph object "
            f"F1. (a) Difference to the best {noun}, n = {images} images; circled: the smallest "
            f"{noun} within {100 * MARGIN:g} points of the best, if the {noun}s differ beyond the "
            f"noise. {bars} (b) How often each {noun} comes out as that smallest one when images "
            "are resampled and seed noise is redrawn.",
        ),
        "layers": (
            "Redundancy along the depth.",
            "(a, b) Redundancy score by decoder layer, layer 0 being the decoder's input; "
            "dotted: the same score of the raw pixel patches, the part that blank or alike "
            f"patches explain. (c, d) Change against the base model, paired by image, n = {images}"
            f"; shaded: 95 % intervals over {covers} for the first and the last {noun}.",
        ),
        "tradeoff": (
            "Redundancy against accuracy.",
            "Each point is one run; the star is the base model. (a) Mean of coarse and "
            "attribute accuracy. (b) Mean of relational accuracy and scene-graph object F1. A "
            "relation here is one across mixtures, not proof that redundancy causes accuracy.",
        ),
        "token_metrics": (
            "Other measures of the visual tokens along the depth.",
            f"Means over n = {images} images and seeds, by decoder layer. Gini and energy "
            "entropy describe how token norms spread over an image; participation ratio, stable "
            "rank and effective rank count the directions that tokens span; mean cosine is their "
            "average direction in common; subspace alignment is the overlap of the top five "
            "singular directions with the layer below or with the base model (not defined for "
            "the base itself), and where the gap, the relative fall from the fifth singular value "
            "to the sixth, is small, those directions and their overlap are ill determined. "
            "Metrics that say nearly the same as one of these are only in tables/layers.parquet.",
        ),
        "training": (
            "Training loss.",
            f"Loss on answer tokens, {runs} runs. Losses of different {noun}s are of "
            f"different data and do not compare; those of one {noun} do.",
        ),
    }


def caveats(sweep: SweepResults, tables: Tables) -> list[str]:
    """What a reader must know before relying on the numbers."""
    notes = []
    noun = sweep.spec.design.axis.noun
    if sweep.missing:
        notes.append(
            f"{len(sweep.missing)} trials have not finished and are left out: "
            f"{'; '.join(sweep.missing)}."
        )
    if _covers(tables) == "images":
        notes.append(
            f"There is one seed for each {noun}. The intervals cover the choice of held-out images "
            "only; how much a repeated training would differ is unknown."
        )
    else:
        seeds = tables.sweep[tables.sweep["level"] != BASE]["n_seeds"].min()
        notes.append(
            "Intervals combine a bootstrap over held-out images (2,000 draws, the same images for "
            "every model, questions about an image kept together) with Student's t error for the "
            f"training seeds (at least {seeds} for each {noun}), whose variance is pooled. "
            f"They assume that seed noise is roughly normal and equally large at every {noun}."
        )
    notes += [
        *_about_levels(sweep),
        "The redundancy score is a chance-corrected mean squared cosine, this project's own "
        "definition. Its intervals hold the chance level of a model fixed, which changed their "
        "width by at most 12 % against a full jackknife in simulations. Patches of blank "
        "background are alike by construction; compare with the pixel floor, and read the "
        "score as a comparison between models on the same images.",
        *about_images(sweep.spec),
        "Right or wrong beside an example follows the relaxed match.",
    ]
    scores = tables.sweep[tables.sweep["metric"] == REDUNDANCY]
    if scores["value"].isna().any():
        notes.append("A redundancy score is missing where too few images have two tokens or more.")
    return notes


def _about_levels(sweep: SweepResults) -> list[str]:
    axis = sweep.spec.design.axis
    notes = [
        f"Every {axis.noun} trains on as many images a step and as many steps, on its own images "
        "and questions, whose answers differ in length, and the base may know some groups better "
        "than others. An effect on accuracy is one of all that together: a model that was never "
        "asked a group in training has not seen its questions.",
        f"Each model was fine-tuned for {sweep.spec.training.steps} steps. A difference that takes "
        "longer to arise, or is smaller than its interval is wide, is not excluded.",
    ]
    if axis.scale is not None:
        return [
            "No interval is corrected for the number of comparisons on this page: of twenty "
            "unaffected quantities one is expected to look changed.",
            *notes,
        ]
    notes = [
        f"The intervals of pairs of {axis.noun}s hold for all pairs at once, and those against the "
        f"base for all {axis.noun}s at once, each for one quantity. Nothing is corrected for the "
        "number of quantities on this page: of twenty unaffected ones one is expected to look "
        "changed.",
        f"The order of the {axis.noun}s is that of the sweep file, as its author ranks them. The "
        "trend is one straight line through places 0, 1, 2 ...; it does not say that every step "
        "goes the same way.",
        *notes,
    ]
    if tuple(map(sweep.groups_of, sweep.levels)) == tuple((group,) for group in STUDY):
        reported = ", ".join(f"{GROUP_NAMES[group]} {value}" for group, value in STUDY.items())
        notes.append(
            f"A published summary of the study that this follows (arXiv 2602.06914) reports these "
            f"redundancy scores for the four task groups: {reported}. Its score and its model are "
            "others, so the numbers do not compare with those here, only their order does."
        )
    return [*notes, _images_of_levels(sweep)]


def _images_of_levels(sweep: SweepResults) -> str:
    """Whether the levels train on the same images."""
    noun = sweep.spec.design.axis.noun
    parts = [
        [sweep.spec.components[name] for name, weight in weights.items() if weight > 0]
        for weights in (level.weights for level in sweep.levels)
    ]
    if all(len(components) == 1 for components in parts):
        first = parts[0][0]
        common = {first.images_in_common(components[0]) for components in parts}
        if common == {"some"}:
            return (
                f"All {noun}s draw from the same {first.images}, each from those that can carry "
                "its questions, so their images differ in part, as well as the questions."
            )
        if common == {"all"}:
            return (
                f"With the same seed all {noun}s train on the same images in the same order; only "
                "the questions about them differ."
            )
    return f"The {noun}s train on different images as well as on different questions."


def _covers(tables: Tables) -> str:
    return str(tables.effects["covers"].iloc[0])
