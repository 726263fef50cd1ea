"""What can be read of an image's attributes from its tokens: probes of layers and positions.

Every image is held out once, in one of five folds; a probe's score is over all images as held out,
its interval a bootstrap over images. Scores are accuracy for categories and, for numbers, R² of the
held-out images against the mean of those learned from: 0 for a probe that finds nothing, negative
for one that is misled.

A probe that finds nothing scores a little below chance: what is common among the images learned
from is rare among the others. So the control, which has the same handicap, is the fairer line. In
noise 0.3 % of the intervals of accuracy and 1 % of those of R² lie above chance, of 2.5 % aimed at.

The control task (Hewitt and Liang 2019) has the same labels on other images: nothing to find. As
each image has its own label, a control score above chance can only come from the procedure itself,
so selectivity (score less control) is the score with that taken off; it says less of a probe's
capacity to memorise than in their setting, where the same words come in training and test.
"""

from collections.abc import Iterable, Iterator, Sequence
from typing import Any

import pandas as pd
import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from mixlens.probing.bootstrap import ratio_intervals
from mixlens.probing.components import Components, components
from mixlens.probing.linear import linear_v_information, ridge
from mixlens.probing.mlp import mlp, smoothed
from mixlens.probing.rare import without_rare
from mixlens.probing.targets import (
    FOLDS,
    NOT_ESTIMABLE,
    Targets,
    check_rows,
    fold_of_images,
    read_targets,
    select,
)
from mixlens.spec.measure import ProbeSpec

POOLED = -1
"""The position of the mean over all tokens of an image."""

COLUMNS = (
    "stream", "layer", "position", "attribute", "kind", "score", "value", "low", "high", "n",
    "chance", "control", "selectivity", "v_information", "note",
)  # fmt: skip
# Shuffles of the labels: closed-form probes take several for little, networks take the first.
CONTROLS = 2
# Bytes of one 64-bit copy of the states that are probed at once.
ROOM = 2**24

Place = tuple[str, int]
States = tuple[Place, Float[Tensor, "images tokens width"], Bool[Tensor, "images tokens"]]


def probe(
    states: Iterable[States], attributes: pd.DataFrame, spec: ProbeSpec, seed: int = 0
) -> pd.DataFrame:
    """Probe all layers: table `probes`.

    Args:
        states: ((stream, layer), tokens, exists) one after the other; one is held at a time.
        attributes: one row an image, in the order of the tokens, one column an attribute.
        spec: which attributes, kinds and positions.
        seed: of the folds, shuffles and resamples, the same for all layers.

    Raises:
        SpecError: an attribute that no image has.
        DataError: tokens and attributes of different numbers of images.
    """
    tables = []
    for (stream, layer), tokens, exists in states:
        table = probe_layer(tokens, exists, attributes, spec, seed)
        table.insert(0, "layer", pd.array([layer] * len(table), dtype="int32"))
        table.insert(0, "stream", stream)
        tables.append(table)
    return pd.concat(tables, ignore_index=True) if tables else pd.DataFrame(columns=list(COLUMNS))


def probe_layer(
    tokens: Float[Tensor, "images tokens width"],
    exists: Bool[Tensor, "images tokens"],
    attributes: pd.DataFrame,
    spec: ProbeSpec,
    seed: int = 0,
    fold: Int[Tensor, "images"] | None = None,
) -> pd.DataFrame:
    """Probe one layer: the rows of table `probes` without stream and layer.

    A row a position (-1: the mean over the tokens of an image), attribute and kind, in the columns
    of `COLUMNS`. `n` counts the images judged: those that have the position, finite there, and the
    attribute. `chance` is the share of the largest class, or 0; `control` the score on shuffled
    labels (mean of 2 shuffles for linear probes, one for networks). `v_information`, nats: what the
    family of probes finds about a category beyond the shares of its classes; of networks from their
    held-out ln p, of linear ones from a linear softmax, for the pooled position only (NaN
    elsewhere: it has no closed form). What cannot be estimated is NaN with the reason in `note`.
    Images of a class that has fewer of them than there are folds are neither learned from nor
    judged for that category: `n` is without them, and `note` names them.

    Args:
        tokens: states; anything where no token exists.
        exists: which tokens exist.
        attributes: one row an image, in the same order, one column an attribute.
        spec: which attributes, kinds and positions.
        seed: of the folds, shuffles and resamples.
        fold: where each image is held out, 0 to 4; none: at random.

    Raises:
        SpecError: an attribute that no image has.
        DataError: tokens and attributes of different numbers of images.
    """
    check_rows(attributes, len(tokens))
    names = select(attributes, spec.attributes)
    groups = read_targets(attributes, names, tokens.device)
    if fold is None:
        fold = fold_of_images(len(tokens), FOLDS, seed)
    fold = fold.to(tokens.device)
    rows: list[dict[str, Any]] = []
    for position, states, present in _chunks(tokens, exists, spec.every_position):
        for targets in groups:
            there = present & targets.has
            notes = targets.notes(there)
            rows += _probed(position, states, there, targets, notes, spec, fold, seed)
            for fewer in without_rare(targets, there):
                at = fewer.positions
                rows += _probed(
                    [position[one] for one in at], states[at], present[at] & fewer.targets.has,
                    fewer.targets, [[note] for note in fewer.notes], spec, fold, seed,
                )  # fmt: skip
    table = pd.DataFrame(rows, columns=list(COLUMNS[2:]))
    order = {name: place for place, name in enumerate(names)}
    table = table.sort_values(
        ["position", "attribute", "kind"],
        key=lambda column: column.map(order) if column.name == "attribute" else column,
        ignore_index=True,
    )
    return table.astype({"position": "int32", "n": "int64"})


def _probed(
    positions: list[int],
    states: Tensor,
    there: Tensor,
    targets: Targets,
    notes: Sequence[Sequence[str | None]],
    spec: ProbeSpec,
    fold: Tensor,
    seed: int,
) -> Iterator[dict[str, Any]]:
    """The rows of some positions; `there` says which images have both position and attributes."""
    parts = components(states, there, fold, FOLDS)
    for kind in spec.kinds:
        columns = _judge(kind, parts, there, targets, fold, seed)
        if kind == "linear" and positions == [POOLED]:
            columns["v_information"] = _softmax(states[0], there[0], targets, fold)
        yield from _rows(positions, kind, targets, columns, notes)


def _chunks(
    tokens: Tensor, exists: Tensor, every_position: bool
) -> Iterator[tuple[list[int], Tensor, Tensor]]:
    """Positions, their states [positions, images, width] and which images have them."""
    images, count, width = tokens.shape
    most = max(1, ROOM // (8 * FOLDS * images * max(images, width)))
    chunks = [slice(start, min(start + most, count)) for start in range(0, count, most)]
    total = tokens.new_zeros(images, width, dtype=torch.float64)
    for places in chunks:
        # A broken token makes the mean of its image NaN, and takes it out.
        there = exists[:, places, None]
        total += torch.where(there, tokens[:, places], 0.0).sum(1, dtype=torch.float64)
    whole = total.isfinite().all(-1) & exists.any(-1)
    pooled = total / exists.sum(-1, keepdim=True).clamp(min=1)
    yield [POOLED], torch.where(whole[:, None], pooled, 0.0)[None], whole[None]
    if not every_position:
        return
    for places in chunks:
        states = tokens[:, places].transpose(0, 1)
        present = exists[:, places].T & states.isfinite().all(-1)
        yield list(range(count)[places]), states, present


def _judge(
    kind: str, parts: Components, present: Tensor, targets: Targets, fold: Tensor, seed: int
) -> dict[str, Tensor]:
    """Columns of the table as [positions, attributes]."""
    shuffles = CONTROLS if kind == "linear" else 1
    shuffled = [targets.shuffled(seed + 1 + number) for number in range(shuffles)]
    copies = torch.stack([targets.values, *shuffled])
    say = _linear if kind == "linear" else mlp
    said = say(parts, targets, copies, fold)
    known = (parts.learned.double() / parts.count) @ copies[:, None]
    known = known[:, :, fold]
    split = targets.numbers
    truth = copies[:, None]
    above = [(truth - said)[..., :split].square()]
    below = [(truth - known)[..., :split].square()]
    news = [torch.full_like(above[0][0], torch.nan)]
    for part in targets.parts[split:]:
        answer, label = said[..., part.columns], truth[..., part.columns]
        right = answer.argmax(-1, keepdim=True) == label.argmax(-1, keepdim=True)
        above.append(right.double())
        below.append(torch.ones_like(above[-1]))
        shares = smoothed(known[0][..., part.columns]).log()
        # Of ridge regressions nothing: their outputs are no ln p.
        gain = (label[0] * (answer[0] - shares)).sum(-1, keepdim=True)
        news.append(gain if kind == "mlp" else torch.full_like(gain, torch.nan))
    there = present[..., None]
    numerator, denominator = (
        torch.where(there, torch.cat(sums, -1), 0.0) for sums in (above, below)
    )
    number = torch.arange(len(targets.parts), device=fold.device) < split
    shape = (len(present), len(targets.parts))
    ends = ratio_intervals(
        numerator[0].transpose(0, 1).flatten(1),
        denominator[0].transpose(0, 1).flatten(1),
        ~number.expand(shape).flatten(),
        seed,
    )
    value, low, high = (end.unflatten(0, shape) for end in ends)
    control = (numerator[1:].sum(-2) / denominator[1:].sum(-2)).mean(0)
    count = present.sum(-1, keepdim=True)
    shares = (present.double() @ targets.values / count)[..., None] * targets.member
    return {
        "value": torch.where(number, 1 - value, value),
        "low": torch.where(number, 1 - high, low),
        "high": torch.where(number, 1 - low, high),
        "n": count.expand(shape),
        "chance": torch.where(number, 0.0, shares.amax(-2)),
        "control": torch.where(number, 1 - control, control),
        "v_information": torch.where(there, torch.cat(news, -1), 0.0).sum(-2) / count,
    }


def _linear(
    parts: Components, targets: Targets, copies: Tensor, fold: Tensor
) -> Float[Tensor, "copies positions images columns"]:
    wide = copies.movedim(0, 1).flatten(1)
    member = torch.block_diag(*[targets.member] * len(copies))
    said = ridge(parts, wide, member, fold)
    return said.unflatten(-1, (len(copies), -1)).movedim(-2, 0)


def _softmax(
    states: Tensor, present: Tensor, targets: Targets, fold: Tensor
) -> Float[Tensor, "1 attributes"]:
    """V-information of a linear softmax at one position; NaN for numbers."""
    values = [torch.nan] * targets.numbers
    for part in targets.parts[targets.numbers :]:
        labels = targets.values[:, part.columns].argmax(-1)
        values.append(linear_v_information(states, labels, len(part.classes), present, fold, FOLDS))
    return torch.tensor([values], dtype=torch.float64)


def _rows(
    positions: list[int],
    kind: str,
    targets: Targets,
    columns: dict[str, Tensor],
    notes: Sequence[Sequence[str | None]],
) -> Iterator[dict[str, Any]]:
    plain = {name: column.tolist() for name, column in columns.items()}
    for row, position in enumerate(positions):
        for place, part in enumerate(targets.parts):
            note = notes[row][place]
            if note is None:  # probed without its rare classes
                continue
            numbers = {name: column[row][place] for name, column in plain.items()}
            if note.startswith(NOT_ESTIMABLE):
                numbers = dict.fromkeys(numbers, float("nan")) | {"n": numbers["n"]}
            yield {
                "position": position,
                "attribute": part.name,
                "kind": kind,
                "score": part.score,
                **numbers,
                "selectivity": numbers["value"] - numbers["control"],
                "note": note,
            }
