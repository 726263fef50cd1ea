"""Answers of a model that some of its visual tokens are taken from."""

from collections.abc import Iterator, Mapping, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass
from itertools import groupby

import pyarrow as pa
import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from mixlens.errors import CheckpointError, SpecError, explain
from mixlens.evaluation.answers import LONG_GROUPS, answer_limits
from mixlens.evaluation.generate import Asked, Prefix, asked_tokens, respond
from mixlens.models import DeletingAdapter, Vllm
from mixlens.probing.observe import Observed, observe, prompted
from mixlens.probing.policies import (
    keep_highest,
    leverage_scores,
    norm_scores,
    random_scores,
    tokens_to_keep,
    unique_scores,
)
from mixlens.probing.prefill import Cost, late_keys, look, prefill
from mixlens.probing.saliency import budgets, saliencies
from mixlens.sources import Example
from mixlens.spec.measure import ENCODER, DeletionSpec
from mixlens.tasks import Turn, score

RANDOM, SALIENCY, DOWNSAMPLING = "random", "saliency", "downsampling"
SEEDLESS = -1
SEEDED = (RANDOM, SALIENCY)

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
class Setting:
    """One way of deletion: how, where, and how much (0 to 1); a seed where chance decides."""

    layer: int
    policy: str
    share: float
    seed: int = SEEDLESS


@dataclass(frozen=True)
class _Batch:
    """Images with what is asked about them."""

    examples: Sequence[Example]
    turns: Sequence[Turn]
    owner: Sequence[int]
    asked: Asked
    limits: Sequence[int]


def check_deletion(vllm: Vllm, spec: DeletionSpec) -> DeletingAdapter:
    """The adapter of a model that this can be measured of.

    Raises:
        SpecError: a place of deletion that the decoder does not have.
        CheckpointError: the model's family cannot delete.
    """
    if not isinstance(vllm.adapter, DeletingAdapter):
        raise CheckpointError(
            explain("model", vllm.path, "visual tokens of this family cannot be deleted",
                    "Leave out `deletion`, or use a model whose visual tokens stand in the text's "
                    "sequence, such as LLaVA.")
        )  # fmt: skip
    blocks = len(vllm.adapter.blocks(vllm.model)["language"])
    if max(spec.layers) >= blocks:
        raise SpecError(
            explain("deletion.layers", max(spec.layers), f"the decoder has {blocks} blocks",
                    f"Use {ENCODER} (after the encoder) to {blocks - 1}.")
        )  # fmt: skip
    return vllm.adapter


def settings(spec: DeletionSpec) -> list[Setting]:
    """Everything that is measured, nothing deleted (as random, share 0) first."""
    shares = sorted(set(spec.shares) - {0.0})
    found = [Setting(ENCODER, RANDOM, 0.0)]
    for layer in dict.fromkeys(spec.layers):
        for policy in dict.fromkeys(spec.policies):
            seeds = dict.fromkeys(spec.seeds) if policy in SEEDED else (SEEDLESS,)
            found += [Setting(layer, policy, share, seed) for share in shares for seed in seeds]
    if spec.downsampling:
        found += [Setting(ENCODER, DOWNSAMPLING, share) for share in shares if share < 1]
    return found


def delete(
    vllm: Vllm,
    examples: Sequence[Example],
    spec: DeletionSpec,
    batch_size: int = 256,
    saliency_of: Mapping[str, float] | None = None,
) -> pa.Table:
    """Ask every short question in every setting of `spec`, with tokens physically gone.

    Questions with long answers (scene graphs, captions) are not asked. Each image is read once a
    setting, whatever is asked about it. `spec.examples` is the caller's to heed.

    Args:
        vllm: the model.
        examples: images with the turns to ask; results do not depend on how they are batched.
        spec: what to delete.
        batch_size: questions a forward pass (more if a single image has more).
        saliency_of: `saliencies` of all images of the measurement where `examples` are only a part
            of them, because budgets by saliency hold the mean over all images; None: of `examples`.

    Returns:
        `DELETED`, one row a question and setting. tokens: what the image has, tokens_kept: what
        stayed of them; cost is that of the image's batch (`Cost`), per image. Nothing deleted is
        policy "random", layer -1, share 0; seed is -1 where chance has no part. The policy
        "downsampling" shrinks the image instead, to the square grid nearest to the share, and so
        stands at layer -1.

    Raises:
        SpecError, CheckpointError: see `check_deletion`.
    """
    adapter = check_deletion(vllm, spec)
    if saliency_of is None:
        saliency_of = saliencies(examples) if SALIENCY in spec.policies else {}
    parts: list[pa.Table] = []
    with torch.inference_mode():
        for batch in _batches(vllm, examples, batch_size):
            parts += _deleted(vllm, adapter, batch, spec, saliency_of)
    return pa.concat_tables([DELETED.empty_table(), *parts])


def _batches(vllm: Vllm, examples: Sequence[Example], size: int) -> Iterator[_Batch]:
    """Images with their short questions, at most `size` questions each."""
    turns = [[t for t in example.turns if t.group not in LONG_GROUPS] for example in examples]
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
                asked_tokens(vllm, [turn.question for turn in own]),
                answer_limits(vllm, own),
            )


def _deleted(
    vllm: Vllm,
    adapter: DeletingAdapter,
    batch: _Batch,
    spec: DeletionSpec,
    saliency_of: Mapping[str, float],
) -> Iterator[pa.Table]:
    """The results of one batch, a table a setting."""
    inputs = prompted(vllm, [example.image for example in batch.examples])
    whole = look(vllm, adapter, inputs)
    tokens = whole.tokens.shape[1]
    everything = torch.ones(whole.tokens.shape[:2], dtype=torch.bool)
    # The first passes also pay for kernels and memory that later ones find ready.
    whole = look(vllm, adapter, inputs)
    prefill(vllm, whole, everything, ENCODER)
    seen = Observed()
    if set(spec.policies) - set(SEEDED):
        seen = observe(vllm, adapter, inputs, spec.layers, "attention" in spec.policies)
    for setting in settings(spec):
        keep = tokens_to_keep(tokens, setting.share)
        if setting.policy == DOWNSAMPLING:
            smaller = look(vllm, adapter, inputs, keep)
            stays = torch.ones(smaller.tokens.shape[:2], dtype=torch.bool)
            read = prefill(vllm, smaller, stays, ENCODER)
        else:
            stays = _stays(setting, batch.examples, seen, tokens, keep, saliency_of)
            read = prefill(vllm, whole, stays, setting.layer)
        yield _answered(vllm, batch, setting, *read, tokens, stays.sum(-1).tolist())


def _stays(
    setting: Setting,
    examples: Sequence[Example],
    seen: Observed,
    tokens: int,
    keep: int,
    saliency_of: Mapping[str, float],
) -> Bool[Tensor, "images tokens"]:
    """Which visual tokens of each image stay."""
    names = [example.example_id for example in examples]
    counts = torch.full((len(names),), keep)
    if setting.policy == SALIENCY:
        own = budgets(saliency_of, tokens, keep)
        counts = torch.tensor([own[name] for name in names])
    if setting.policy in SEEDED:
        # Both take tokens in the same random order, so that only the budget tells them apart.
        return keep_highest(random_scores(names, tokens, setting.seed), counts)
    scores = _scores(setting, seen, keep)
    return keep_highest(scores, counts.to(scores.device)).cpu()


def _scores(setting: Setting, seen: Observed, keep: int) -> Float[Tensor, "images tokens"]:
    if setting.policy == "attention":
        return seen.attention[setting.layer]
    states = seen.states[setting.layer]
    if setting.policy == "norm":
        return norm_scores(states)
    if setting.policy == "leverage":
        return leverage_scores(states, keep)
    assert setting.policy == "unique", setting.policy
    return unique_scores(states)


def _answered(
    vllm: Vllm,
    batch: _Batch,
    setting: Setting,
    prefix: Prefix,
    cost: Cost,
    tokens: int,
    kept: Sequence[int],
) -> pa.Table:
    """Ask every question of the batch about the images as they were read, and score the answers."""
    late = vllm.adapter.blocks(vllm.model)["language"][max(setting.layer, 0) :]

    def late_pass(keys: Int[Tensor, "rows keys"], queries: int) -> AbstractContextManager[None]:
        return late_keys(late if prefix.late is not None else (), keys, queries)

    said = respond(vllm, prefix, batch.asked, batch.owner, batch.limits, late_pass)
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
                "tokens": tokens,
                "tokens_kept": kept[place],
                "prefill_s_per_image": cost.seconds,
                "peak_bytes": cost.peak_bytes,
            }
        )
    return pa.Table.from_pylist(rows, DELETED)
