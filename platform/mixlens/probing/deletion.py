"""Answers of a model that some of its visual tokens are taken from."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import groupby

import pyarrow as pa
import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from mixlens.errors import SpecError, explain
from mixlens.evaluation.answers import answer_limits, has_long_answer
from mixlens.evaluation.generate import Asked, asked_tokens, on_device, respond
from mixlens.models import VLM, LookingAdapter, ShrinkingAdapter
from mixlens.models.adapter import Image
from mixlens.probing.observe import Observed, observe
from mixlens.probing.policies import (
    keep_highest,
    leverage_scores,
    norm_scores,
    random_scores,
    tokens_to_keep,
    unique_scores,
)
from mixlens.probing.prefill import Read, look, prefill
from mixlens.probing.saliency import budgets, saliencies
from mixlens.probing.settings import (
    ATTENTION,
    DOWNSAMPLING,
    SALIENCY,
    SEEDED,
    Setting,
    settings,
)
from mixlens.sources import Example
from mixlens.spec.measure import ENCODER, DeletionSpec
from mixlens.tasks import Turn, score

_FINE = 10_000  # tokens of a made-up image, for shares of budgets

DELETED = pa.schema(
    [
        ("layer", pa.int32()),
        ("policy", pa.string()),
        ("share", pa.float64()),
        ("seed", pa.int32()),
        ("example_id", pa.string()),
        ("object_count", pa.float64()),
        ("group", pa.string()),
        ("kind", pa.string()),
        ("exact", pa.float64()),
        ("relaxed", pa.float64()),
        ("tokens", pa.int32()),
        ("tokens_kept", pa.int32()),
        ("prefill_s_per_image", pa.float64()),
        ("peak_bytes", pa.float64()),
    ]
)


@dataclass(frozen=True)
class _Batch:
    """Images with what is asked about them."""

    examples: Sequence[Example]
    turns: Sequence[Turn]
    owner: Sequence[int]
    asked: Asked
    limits: Sequence[int]


def check_deletion(vlm: VLM, spec: DeletionSpec) -> None:
    """Refuse what cannot be measured of a model.

    Raises:
        SpecError: a place of deletion that the decoder does not have or that its family cannot
            delete at, or a policy or control that its family does not give.
    """
    adapter = vlm.adapter
    blocks = len(adapter.blocks(vlm.model)["language"])
    if max(spec.layers) >= blocks:
        raise SpecError(
            explain("evaluation.deletion.layers", max(spec.layers),
                    f"the decoder has {blocks} blocks",
                    f"Use {ENCODER} (behind the encoder) to {blocks - 1}.")
        )  # fmt: skip
    late = [layer for layer in spec.layers if 0 < layer < adapter.whole_until(vlm.model)]
    if late:
        raise SpecError(
            explain("evaluation.deletion.layers", late,
                    "the encoder still adds to visual tokens there",
                    f"Use {ENCODER}, 0, or {adapter.whole_until(vlm.model)} and above.")
        )  # fmt: skip
    if spec.downsampling and not isinstance(adapter, ShrinkingAdapter):
        raise SpecError(
            explain("evaluation.deletion.downsampling", True,
                    "smaller images of this family do not give fewer visual tokens in the same "
                    "layout", "Set it to false.")
        )  # fmt: skip
    in_encoder = ATTENTION in spec.policies and ENCODER in spec.layers
    if in_encoder and not isinstance(adapter, LookingAdapter):
        raise SpecError(
            explain("evaluation.deletion.policies", ATTENTION,
                    "visual tokens of this family are not tokens of a vision block, so none of "
                    "them has a share of its attention",
                    f"Leave it out, or {ENCODER} out of the layers.")
        )  # fmt: skip


def delete(
    vlm: VLM,
    examples: Sequence[Example],
    spec: DeletionSpec,
    batch_size: int = 256,
    saliency_of: Mapping[str, float] | None = None,
    wanted: Sequence[Setting] | None = None,
) -> pa.Table:
    """Ask every short question in every setting of `spec`, with tokens physically gone.

    Questions with long answers (scene graphs, captions) are not asked. Each image is read once a
    setting, whatever is asked about it. `spec.examples` is the caller's to heed.

    Args:
        vlm: the model.
        examples: images with the turns to ask; results do not depend on how they are batched.
        spec: what to delete.
        batch_size: questions a forward pass (more if a single image has more).
        saliency_of: `saliencies` of all images of the measurement where `examples` are only a part
            of them, because budgets by saliency hold the mean over all images; None: of `examples`.
        wanted: which settings; None: all. None of them changes what another one gives.

    Returns:
        `DELETED`, one row a question and setting. tokens: what the image has, tokens_kept: what
        stayed of them; cost is that of the image's batch (`Cost`), per image. Nothing deleted is
        policy "random", layer -1, share 0; seed is -1 where chance has no part. The policy
        "downsampling" shrinks the image instead, to the grid nearest to the share, and so stands at
        layer -1.

    Raises:
        SpecError: see `check_deletion`.
    """
    check_deletion(vlm, spec)
    if saliency_of is None:
        saliency_of = saliencies(examples) if SALIENCY in spec.policies else {}
    parts: list[pa.Table] = []
    with torch.inference_mode():
        for batch in _batches(vlm, examples, batch_size):
            parts += _deleted(vlm, batch, wanted or settings(spec), saliency_of)
    return pa.concat_tables([DELETED.empty_table(), *parts])


def _batches(vlm: VLM, examples: Sequence[Example], size: int) -> Iterator[_Batch]:
    """Images with their short questions, at most `size` questions each."""
    turns = [[t for t in example.turns if not has_long_answer(t)] for example in examples]
    ends, filled, number = [], 0, 0
    for own in turns:
        if filled and filled + len(own) > size:
            number, filled = number + 1, 0
        filled += len(own)
        ends.append(number)
    for _, group in groupby(range(len(examples)), key=ends.__getitem__):
        places = [place for place in group if turns[place]]
        asks = [(i, turn) for i, place in enumerate(places) for turn in turns[place]]
        if asks:
            own = [turn for _, turn in asks]
            yield _Batch(
                [examples[place] for place in places],
                own,
                [i for i, _ in asks],
                asked_tokens(vlm, [turn.question for turn in own]),
                answer_limits(vlm, own),
            )


def _deleted(
    vlm: VLM, batch: _Batch, wanted: Sequence[Setting], saliency_of: Mapping[str, float]
) -> Iterator[pa.Table]:
    """The results of one batch, a table a setting."""
    images = [example.image for example in batch.examples]
    inputs = on_device(vlm, vlm.adapter.image_batch(images))
    whole = look(vlm, inputs)
    # The first passes also pay for kernels and memory that later ones find ready.
    whole = look(vlm, inputs)
    exists = whole.encoded.exists.cpu()
    tokens = exists.sum(-1)
    prefill(vlm, whole, exists, ENCODER)
    seen = _seen(vlm, images, wanted)
    for setting in wanted:
        if setting.policy == DOWNSAMPLING:
            assert isinstance(vlm.adapter, ShrinkingAdapter)  # checked before
            fewer = vlm.adapter.smaller_batch(images, 1 - setting.share)
            smaller = look(vlm, on_device(vlm, fewer))
            stays = smaller.encoded.exists.cpu()
            read = prefill(vlm, smaller, stays, ENCODER)
        else:
            stays = _stays(setting, batch.examples, seen, exists, saliency_of)
            read = prefill(vlm, whole, stays, setting.layer)
        yield _answered(vlm, batch, setting, read, tokens.tolist(), stays.sum(-1).tolist())


def _seen(vlm: VLM, images: Sequence[Image], wanted: Sequence[Setting]) -> Observed:
    """What the policies of some settings choose by.

    States are not taken from the pass that gives attention, whose kernels round otherwise: else a
    policy would choose other tokens where attention is asked for beside it.
    """
    blind = (*SEEDED, DOWNSAMPLING, ATTENTION)
    by_states = sorted({one.layer for one in wanted if one.policy not in blind})
    by_attention = sorted({one.layer for one in wanted if one.policy == ATTENTION})
    return Observed(
        observe(vlm, images, by_states, False).states if by_states else {},
        observe(vlm, images, by_attention, True).attention if by_attention else {},
    )


def _stays(
    setting: Setting,
    examples: Sequence[Example],
    seen: Observed,
    exists: Bool[Tensor, "images tokens"],
    saliency_of: Mapping[str, float],
) -> Bool[Tensor, "images tokens"]:
    """Which visual tokens of each image stay."""
    names = [example.example_id for example in examples]
    tokens = exists.sum(-1)
    keep = [tokens_to_keep(int(each), setting.share) for each in tokens]
    if setting.policy == SALIENCY:
        keep = _budgets(saliency_of, names, tokens.tolist(), setting.share)
    counts = torch.tensor(keep)
    if setting.policy in SEEDED:
        # Both take tokens in the same random order, so that only the budget tells them apart.
        scores = random_scores(names, exists.shape[1], setting.seed)
    else:
        scores = _scores(setting, seen, counts).cpu()
    return keep_highest(scores.masked_fill(~exists, -torch.inf), counts)


def _budgets(
    saliency_of: Mapping[str, float], names: Sequence[str], tokens: Sequence[int], share: float
) -> list[int]:
    """How many tokens each image keeps: as `budgets`, or where images differ in how many they have,
    the share of its own that it would keep of a fine grid.
    """
    if len(set(tokens)) == 1:
        own = budgets(saliency_of, tokens[0], tokens_to_keep(tokens[0], share))
        return [own[name] for name in names]
    fine = budgets(saliency_of, _FINE, tokens_to_keep(_FINE, share))
    return [
        min(each, max(int(share < 1), round(fine[name] / _FINE * each)))
        for name, each in zip(names, tokens, strict=True)
    ]


def _scores(
    setting: Setting, seen: Observed, keep: Int[Tensor, " images"]
) -> Float[Tensor, "images tokens"]:
    if setting.policy == ATTENTION:
        return seen.attention[setting.layer]
    states = seen.states[setting.layer]
    if setting.policy == "norm":
        return norm_scores(states)
    if setting.policy == "leverage":
        return leverage_scores(states, keep)
    assert setting.policy == "unique", setting.policy
    return unique_scores(states)


def _answered(
    vlm: VLM,
    batch: _Batch,
    setting: Setting,
    read: Read,
    tokens: Sequence[int],
    kept: Sequence[int],
) -> pa.Table:
    """Ask every question of the batch about the images as they were read, and score the answers."""
    said = respond(vlm, read.prefix, batch.asked, batch.owner, batch.limits, read.passes)
    rows = []
    for turn, place, (response, _) in zip(batch.turns, batch.owner, said, strict=True):
        example, scores = batch.examples[place], score(turn, response)
        rows.append(
            {
                "layer": setting.layer,
                "policy": setting.policy,
                "share": setting.share,
                "seed": setting.seed,
                "example_id": example.example_id,
                "object_count": example.attributes.get("object_count"),
                "group": turn.group,
                "kind": turn.kind,
                "exact": scores["exact"],
                "relaxed": scores["relaxed"],
                "tokens": tokens[place],
                "tokens_kept": kept[place],
                "prefill_s_per_image": read.cost.seconds,
                "peak_bytes": read.cost.peak_bytes,
            }
        )
    return pa.Table.from_pylist(rows, DELETED)
