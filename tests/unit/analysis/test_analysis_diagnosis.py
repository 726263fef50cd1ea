"""Planted tables: every sentence says what was planted, and turns when the numbers turn."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from mixlens.analysis.correlations import COLUMNS as CORRELATIONS
from mixlens.analysis.diagnosis import diagnose
from mixlens.analysis.measured import MODEL, ModelTables, with_excess
from mixlens.scenes import make_scene
from mixlens.sources.coco.build import build_index
from mixlens.sources.coco.index import open_index
from mixlens.spec import CocoSpec
from mixlens.spec.scene import SceneSpec
from mixlens.tasks import GROUPS

LAYERED = ["model", "stream", "layer", "metric", "value", "low", "high", "n"]
NOTHING = ModelTables(
    accuracy=pd.DataFrame(),
    layers=pd.DataFrame(
        columns=["model", "stream", "layer", "metric", "value", "low", "high", "n"]
    ),
    by_count=pd.DataFrame(),
    correlations=pd.DataFrame(columns=list(CORRELATIONS)),
    nulls=pd.DataFrame(),
    probes=pd.DataFrame(),
    deletion=pd.DataFrame(),
)
NOT_ESTIMABLE = "The redundancy of visual tokens is unknown: it was not measured."


def joined(tables: list[pd.DataFrame]) -> pd.DataFrame:
    return pd.concat(tables, ignore_index=True)


def layers(metric: str, *values: float, model: str = MODEL, width: float = 0.01) -> pd.DataFrame:
    """A profile of visual tokens over the layers; text tokens that say the opposite beside it."""
    rows = [
        (model, stream, layer, metric, sign * value, sign * value - width, sign * value + width, 40)
        for stream, sign in (("visual", 1), ("text", -1))
        for layer, value in enumerate(values)
    ]
    table = pd.DataFrame(rows, columns=LAYERED)
    return table.astype({"layer": "int32"})


def probes(
    attribute: str, *values: float, stream: str = "visual", width: float = 0.05,
    control: float = 0.0, chance: float = 0.0, n: int = 60,
) -> pd.DataFrame:  # fmt: skip
    """A linear probe of the mean token over the layers, and others that must not be looked at."""
    rows = []
    for layer, value in enumerate(values):
        own = (stream, layer, -1, attribute, "linear", "r2", value, value - width, value + width,
               n, chance, control, value - control)  # fmt: skip
        rows.append(own)
        rows.append((*own[:2], 0, *own[3:6], 9.0, 8.9, 9.1, *own[9:12], 9.0))
        rows.append((*own[:4], "mlp", "r2", 7.0, 6.9, 7.1, *own[9:12], 7.0))
    names = ["stream", "layer", "position", "attribute", "kind", "score", "value", "low", "high",
             "n", "chance", "control", "selectivity"]  # fmt: skip
    return pd.DataFrame(rows, columns=names)


def deletion(*rows: tuple[str, str, float, float], layer: int = -1, n: int = 50) -> pd.DataFrame:
    """Rows of (policy, group, share, accuracy), each with an interval of 0.1 to either side."""
    planted = [
        {"layer": layer, "policy": policy, "share": share, "seed": seed, "group": group,
         "objects": objects, "value": value if seed == -1 and objects == "all" else 0.0,
         "low": value - 0.1 if seed == -1 and objects == "all" else -1.0,
         "high": value + 0.1 if seed == -1 and objects == "all" else 0.0, "n": n,
         "against_random": np.nan, "against_low": np.nan, "against_high": np.nan}
        for policy, group, share, value in rows
        for seed, objects in ((-1, "all"), (0, "all"), (-1, "1-2"))
    ]  # fmt: skip
    return pd.DataFrame(planted)


def against(policy: str, share: float, value: float, width: float, layer: int = -1) -> pd.DataFrame:
    table = deletion((policy, "all", share, 0.5), layer=layer).query(
        "seed == -1 & objects == 'all'"
    )
    return table.assign(against_random=value, against_low=value - width, against_high=value + width)


def accuracy(chance: float = np.nan, n: int = 48, **groups: float) -> pd.DataFrame:
    rows = [
        (model, group, value + shift, value + shift - 0.05, value + shift + 0.05, n, chance)
        for model, shift in ((MODEL, 0.0), ("blank images", -0.5))
        for group, value in groups.items()
    ]
    return pd.DataFrame(rows, columns=["model", "group", "value", "low", "high", "n", "chance"])


def correlations(**columns: object) -> pd.DataFrame:
    row = {
        "stream": "visual", "layer": 2, "metric": "redundancy_score", "attribute": "object_count",
        "rho": -0.61, "low": -0.7, "high": -0.5, "n": 40, "p": 0.0003, "q": 0.001,
        "partial_rho": -0.2, "partial_low": -0.4, "partial_high": 0.01, "partial_p": 0.4,
        "partial_q": 0.5, "given": "ink_fraction", "note": "",
    } | columns  # fmt: skip
    return pd.DataFrame([row])[list(CORRELATIONS)]


def one(sentences: list[str], start: str) -> str:
    (found,) = [sentence for sentence in sentences if sentence.startswith(start)]
    return found


def test_nothing_measured_is_said_and_no_more():
    assert diagnose(NOTHING) == [NOT_ESTIMABLE]
    nan = replace(NOTHING, layers=layers("redundancy_score", np.nan, np.nan))
    assert diagnose(nan) == [
        "The redundancy of visual tokens is unknown; not estimable at layers 0 (40 images) and 1 "
        "(40 images)."
    ]


def test_the_layers_most_and_least_alike():
    told = diagnose(replace(NOTHING, layers=layers("redundancy_score", 0.4, 0.62, 0.2)))
    assert told == [
        "Visual tokens of an image are most alike at decoder layer 1 (redundancy score "
        "0.620 [0.610, 0.630]) and least at layer 2 (0.200 [0.190, 0.210]), n = 40 images."
    ]
    wide = diagnose(replace(NOTHING, layers=layers("redundancy_score", 0.4, 0.62, 0.2, width=0.3)))
    assert "[−0.100, 0.500]), which its intervals do not tell apart, n = 40" in wide[0]
    (alone,) = diagnose(replace(NOTHING, layers=layers("redundancy_score", 0.4)))
    assert "least" not in alone
    assert "0.400 [0.390, 0.410] at decoder layer 0, n = 40 images" in alone


@pytest.mark.parametrize(
    ("planted", "side", "shown"),
    [
        (0.1, "they are more alike than the pixels", "+0.100 [+0.090, +0.110]"),
        (-0.1, "they are less alike than the pixels", "−0.100 [−0.110, −0.090]"),
        (0.005, "as far as can be told as alike as the pixels", "+0.005 [−0.005, +0.015]"),
    ],
)
def test_the_last_layer_against_its_pixels(planted: float, side: str, shown: str):
    both = [layers("redundancy_score", 0.4, 0.3), layers("redundancy_excess", 0.2, planted)]
    told = one(diagnose(replace(NOTHING, layers=joined(both))), "At the last layer")
    assert side in told
    assert told.endswith(f"excess {shown}, n = 40 images.")


@pytest.mark.parametrize(
    ("there", "verdict"),
    [
        (0.3, "so training made them more alike."),
        (0.8, "so training made them less alike."),
        (0.59, "so training need not have changed it."),
    ],
)
def test_random_weights_at_the_layer_that_is_most_alike(there: float, verdict: str):
    both = [
        layers("redundancy_score", 0.4, 0.6),
        layers("redundancy_score", 0.95, there, model="random language model"),
        layers("redundancy_score", 0.1, 0.1, model="blank images"),
    ]
    told = diagnose(replace(NOTHING, layers=joined(both)))
    assert len(told) == 2
    assert told[1].startswith("With random weights in the language model the score at layer 1 is ")
    assert f"{there:.3f} [{there - 0.01:.3f}, {there + 0.01:.3f}], n = 40 images" in told[1]
    assert told[1].endswith(verdict)


def test_the_energy_of_visual_tokens():
    told = one(diagnose(replace(NOTHING, layers=layers("gini", 0.5, 0.2, 0.3))), "The norms")
    assert told == (
        "The norms of visual tokens are most uneven at decoder layer 0 (Gini 0.500 [0.490, "
        "0.510]) and most even at layer 1 (0.200 [0.190, 0.210]), n = 40 images."
    )
    wide = diagnose(replace(NOTHING, layers=layers("gini", 0.5, 0.2, 0.3, width=0.2)))
    assert "which its intervals do not tell apart" in one(wide, "The norms")
    assert diagnose(replace(NOTHING, layers=layers("gini", 0.5))) == [NOT_ESTIMABLE]


def test_what_goes_with_the_number_of_objects():
    table = joined(
        [
            correlations(),
            correlations(layer=0, rho=0.4),
            correlations(attribute="crowding", p=0.05),
            correlations(attribute="occlusion", rho=np.nan, p=np.nan),
            correlations(metric="gini", rho=0.99, p=0.6),
            correlations(stream="text", rho=0.98),
        ]
    )
    told = one(diagnose(replace(NOTHING, correlations=table)), "The redundancy of visual tokens g")
    assert told == (
        "The redundancy of visual tokens goes with the number of objects most at layer 2: Spearman "
        "−0.61 [−0.70, −0.50], p = 0.0003 by max-T over all 5 correlations, n = 40 images; at "
        "equal ink fraction −0.20 [−0.40, +0.01], p = 0.4, not beyond chance. Of 3 correlations of "
        "the score with an attribute 3 are beyond chance, and 1 could not be estimated."
    )
    held = correlations(partial_rho=np.nan)
    assert "at equal ink fraction not estimable" in diagnose(replace(NOTHING, correlations=held))[1]
    weaker = correlations(p=0.2, partial_rho=np.nan)
    told = diagnose(replace(NOTHING, correlations=weaker))[1]
    assert told.startswith("No correlation of the redundancy of visual tokens with the number of")
    assert told.endswith("Of 1 correlations of the score with an attribute 0 are beyond chance.")
    alone = correlations(given="", partial_rho=np.nan)
    assert "at equal" not in diagnose(replace(NOTHING, correlations=alone))[1]
    constant = correlations(rho=np.nan, note="constant over all images")
    assert diagnose(replace(NOTHING, correlations=constant)) == [
        NOT_ESTIMABLE,
        "Whether the redundancy of visual tokens follows the number of objects could not be "
        "estimated at any layer: constant over all images.",
    ]


def test_attributes_that_are_lost_kept_and_never_there():
    table = joined(
        [
            probes("object_count", 0.5, 0.8, 0.3),
            probes("size_mean", 0.5, 0.6, 0.55),
            probes("occlusion", 0.02, 0.04, -0.03),
            # It beats its control, but both are worse than knowing nothing.
            probes("crowding", -0.3, -0.2, -0.5, control=-0.9),
        ]
    )
    told = diagnose(replace(NOTHING, probes=table))
    assert one(told, "What a linear probe") == (
        "What a linear probe reads from the mean visual token falls, beyond its intervals, until "
        "the last layer for object count (from 0.80 [0.75, 0.85] at layer 1 to 0.30 [0.25, 0.35] "
        "at the last); n = 60 held-out images."
    )
    assert one(told, "At the last") == (
        "At the last layer it has not fallen so for size mean (0.55 [0.50, 0.60])."
    )
    assert one(told, "Hardly") == (
        "Hardly anything is read at any layer of crowding (at most −0.20 [−0.25, −0.15]) and "
        "occlusion (at most 0.04 [−0.01, 0.09]); n = 60 held-out images."
    )


def test_what_falls_within_its_intervals_is_not_lost():
    table = joined([probes("object_count", 0.5, 0.8, 0.3, width=0.3, n=55),
                       probes("size_mean", 0.5, 0.5, 0.5)])  # fmt: skip
    told = diagnose(replace(NOTHING, probes=table))
    assert one(told, "For no attribute").endswith("n = 55 to 60 held-out images.")
    assert not [sentence for sentence in told if "falls, beyond" in sentence]


def test_where_text_tokens_first_tell():
    table = joined(
        [
            probes("size_mean", 0.0, 0.1, 0.7, stream="text"),
            probes("object_count", 0.04, 0.4, 0.5, stream="text"),
            # Beyond its control, but its interval holds chance.
            probes("crowding", 0.2, 0.2, 0.2, stream="text", width=0.3),
        ]
    )
    told = diagnose(replace(NOTHING, probes=table))
    assert told[1:] == [
        "From the mean text token behind the image a linear probe reads first at layer 1 object "
        "count (0.40 [0.35, 0.45]); at layer 2 size mean (0.70 [0.65, 0.75]); n = 60 held-out "
        "images."
    ]


def test_probes_without_a_score_are_named():
    table = probes("object_count", np.nan, np.nan)
    assert diagnose(replace(NOTHING, probes=table)) == [
        NOT_ESTIMABLE,
        "At no layer could it be estimated what a linear probe reads of object count.",
    ]


def test_what_each_group_can_do_without():
    table = joined(
        [
            # Listed out of order: nothing deleted is what counts.
            deletion(("random", "count", 0.9, 0.2), ("random", "count", 0.5, 0.45),
                     ("random", "count", 0.0, 0.7)),
            deletion(("random", "coarse", 0.0, 0.6), ("random", "coarse", 0.9, 0.5), n=70),
            deletion(("random", "all", 0.0, 0.9), ("random", "all", 0.9, 0.1)),
            deletion(("norm", "count", 0.1, 0.0)),
            deletion(("random", "count", 0.1, 0.0), layer=2),
        ]
    )  # fmt: skip
    told = diagnose(replace(NOTHING, deletion=table))
    assert told[1:] == [
        "With visual tokens deleted at random behind the encoder, accuracy first falls beyond its "
        "intervals for coarse at no share tried and counting at 50 % (0.70 [0.60, 0.80] to 0.45 "
        "[0.35, 0.55]); n = 50 to 70 images a group."
    ]


def test_policies_that_beat_chance_and_those_that_do_not():
    table = joined(
        [
            against("norm", 0.5, 0.1, 0.05),
            against("norm", 0.9, 0.2, 0.05, layer=3),
            against("unique", 0.9, 0.3, 0.4),
            against("leverage", 0.5, -0.3, 0.05),
            against("attention", 0.0, 0.9, 0.05),
            deletion(("random", "all", 0.5, 0.4)),
        ]
    )
    assert one(diagnose(replace(NOTHING, deletion=table)), "Of ") == (
        "Of 4 comparisons at equal budget, 2 are better than random deletion and 1 worse, each "
        "beyond its own interval; the largest gain is that of norm at 90 % before block 3, +0.200 "
        "[+0.150, +0.250] in accuracy, n = 50 images. About 0.1 would look better by luck alone."
    )
    none = table[~table["policy"].eq("norm")]
    assert one(diagnose(replace(NOTHING, deletion=none)), "Of ") == (
        "Of 2 comparisons at equal budget, none is better than random deletion beyond its interval "
        "and 1 is worse; the best, unique at 90 % behind the encoder, differs by +0.300 [−0.100, "
        "+0.700] in accuracy, n = 50 images."
    )
    only_random = deletion(("random", "all", 0.5, 0.4))
    assert diagnose(replace(NOTHING, deletion=only_random)) == [NOT_ESTIMABLE]


LOST = joined([probes("object_count", 0.8, 0.3), probes("dominant_colour", 0.9, 0.7)])


@pytest.mark.parametrize(
    ("groups", "verdict"),
    [
        ({"count": 0.2, "coarse": 0.6, "relational": 0.5}, "they are ("),
        ({"count": 0.7, "coarse": 0.6, "relational": 0.5}, "they are not ("),
        ({"count": 0.45, "coarse": 0.6, "relational": 0.5}, "the intervals do not tell ("),
        ({"count": 0.5, "coarse": 0.6, "relational": 0.47}, "the intervals do not tell ("),
        ({"count": 0.2, "coarse": 0.6, "relational": np.nan}, "they are ("),
    ],
)
def test_whether_what_is_lost_most_is_answered_worst(groups: dict[str, float], verdict: str):
    told = diagnose(replace(NOTHING, probes=LOST, accuracy=accuracy(**groups)))[-1]
    assert told.startswith(
        "Of what questions ask for, object count is lost most on the way to the last layer (from "
        "0.80 [0.75, 0.85] to 0.30 [0.25, 0.35]), which predicts that counting questions are "
        f"answered worst, measured from chance: {verdict}"
    )
    low, high = groups["count"] - 0.05, groups["count"] + 0.05
    assert f"counting {groups['count']:.2f} [{low:.2f}, {high:.2f}]" in told
    assert told.endswith("; n = 48 images).")


def test_groups_are_compared_by_what_is_above_chance():
    table = joined(
        [accuracy(count=0.4), accuracy(chance=0.5, relational=0.55), accuracy(coarse=0.9)]
    )
    # 0.4 of 1 for counting, but only 0.05 of 0.5 where a guesser gets half.
    assert "they are not (" in diagnose(replace(NOTHING, probes=LOST, accuracy=table))[-1]
    # 0.3 above chance is 0.6 of the way to perfect.
    near = joined(
        [accuracy(count=0.42), accuracy(chance=0.5, relational=0.8), accuracy(coarse=0.9)]
    )
    assert "they are (" in diagnose(replace(NOTHING, probes=LOST, accuracy=near))[-1]
    table.loc[table["group"] == "relational", "chance"] = np.nan
    assert "they are (" in diagnose(replace(NOTHING, probes=LOST, accuracy=table))[-1]


def test_no_prediction_where_nothing_is_lost_or_asked():
    kept = replace(
        NOTHING, probes=probes("object_count", 0.5, 0.52), accuracy=accuracy(count=0.3, coarse=0.5)
    )
    assert "which predicts no group of questions to suffer" in diagnose(kept)[-1]
    # An attribute that was never read cannot be lost.
    misled = probes("object_count", -0.1, -0.9)
    assert "predicts no group" in diagnose(replace(kept, probes=misled))[-1]
    for table in (accuracy(relational=0.3, coarse=0.5), accuracy(count=0.3)):
        told = diagnose(replace(NOTHING, probes=probes("object_count", 0.8, 0.3), accuracy=table))
        assert not [sentence for sentence in told if "predicts" in sentence]


def test_the_excess_is_that_over_the_images_own_pixels():
    rows = [(stream, layer, "redundancy_score", image, value)
            for stream, layer, values in (("pixels", -1, (0.1, 0.3)), ("visual", 0, (0.5, 0.4)))
            for image, value in zip("ab", values, strict=True)]  # fmt: skip
    table = pd.DataFrame(rows, columns=["stream", "layer", "metric", "example_id", "value"])
    excess = with_excess(table).query("metric == 'redundancy_excess'")
    assert excess["stream"].tolist() == ["visual", "visual"]
    assert excess["value"].tolist() == pytest.approx([0.4, 0.1])
    # Without pixels there is nothing to be above of, and no row that says so with NaN.
    blind = table[table["stream"] != "pixels"]
    pd.testing.assert_frame_equal(with_excess(blind), blind)


def test_what_is_asked_of_attributes_names_those_that_images_have(clean_coco_set, tmp_path):
    data = CocoSpec.model_validate(clean_coco_set.data)
    index = open_index(Path(build_index("coco", data, tmp_path, lambda *_: None).index))
    known = {*make_scene(SceneSpec(), 0, 0).attributes, *index.attribute_columns}
    asked = {attribute for group in GROUPS.values() for attribute in group.asks_for}
    assert asked <= known
    assert {"dominant_supercategory", "dominant_category"} <= asked
