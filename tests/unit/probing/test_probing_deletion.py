"""Physical deletion against generation without it and against masked attention written out."""

import zlib
from dataclasses import replace

import numpy as np
import pytest
import torch
from peft import LoraConfig, get_peft_model

from mixlens.activations.streams import PROMPT
from mixlens.errors import SpecError
from mixlens.evaluation import answer, generate
from mixlens.evaluation.generate import asked_tokens, on_device, respond
from mixlens.models import VLM, load_vlm, tiny
from mixlens.probing.deletion import DELETED, _budgets, check_deletion, delete
from mixlens.probing.observe import observe
from mixlens.probing.prefill import look, prefill
from mixlens.probing.settings import SEEDLESS, settings
from mixlens.sources import open_source
from mixlens.spec import SceneComponent, SceneSpec
from mixlens.spec.measure import DeletionSpec
from mixlens.tasks import vocabulary

COMPONENT = SceneComponent(
    scene=SceneSpec(image_size=64, objects=(3, 5)),
    tasks={"coarse": 2, "relational": 2, "locate": 1, "scene_graph": 1},
)
POLICIES = ("random", "norm", "attention", "leverage", "unique", "saliency")
STEPS = 4
BLOCKS = 4


@pytest.fixture(scope="module")
def vlm(tmp_path_factory) -> VLM:
    folder = tmp_path_factory.mktemp("tiny")
    with pytest.MonkeyPatch.context() as patch:
        patch.setitem(tiny.SIZES, "test", replace(tiny.SIZES["test"], layers=BLOCKS))
        tiny.build_tiny_vlm(folder, vocabulary(), seed=0, size="test")
    loaded = load_vlm(str(folder))
    with torch.no_grad():  # larger weights: answers that depend on image and question
        for parameter in loaded.model.parameters():
            if parameter.ndim > 1:
                parameter.mul_(4)
    return loaded


@pytest.fixture(scope="module")
def examples():
    source = open_source("scenes", COMPONENT)
    return [source.example(index) for index in range(5)]


@pytest.fixture(scope="module")
def asks(examples):
    return [(i, turn.question) for i, example in enumerate(examples) for turn in example.turns]


@pytest.fixture(scope="module")
def seen(vlm, examples):
    with torch.inference_mode():
        images = [example.image for example in examples]
        return look(vlm, on_device(vlm, vlm.adapter.image_batch(images)))


@pytest.fixture(scope="module")
def ragged(examples):
    """Another number of tokens in each image, all and none among them."""
    stays = torch.zeros(len(examples), 64, dtype=torch.bool)
    generator = torch.Generator().manual_seed(0)
    for row, count in enumerate((64, 40, 17, 1, 0)):
        stays[row, torch.randperm(64, generator=generator)[:count]] = True
    return stays


def answers_with(vlm, seen, stays, layer, asks, limits):
    first = []
    handle = vlm.model.lm_head.register_forward_hook(lambda *call: first.append(call[2][:, -1]))
    try:
        with torch.inference_mode():
            read = prefill(vlm, seen, stays, layer)
            first.clear()
            said = respond(
                vlm,
                read.prefix,
                asked_tokens(vlm, [question for _, question in asks]),
                [place for place, _ in asks],
                limits,
                read.passes,
            )
    finally:
        handle.remove()
    return said, first[0]


def masked(vlm, seen, stays, layer, place, question, steps):
    """Logits and greedy tokens of a full forward in which deleted keys are masked, by hand."""
    model = vlm.model
    language = model.model.language_model
    behind = asked_tokens(vlm, [question]).ids[0]
    shown = seen.batch["input_ids"][place][seen.batch["attention_mask"][place].bool()]
    ids = torch.cat([shown, behind])
    visual = ids == vlm.adapter.image_token_id
    gone = torch.zeros_like(visual)
    gone[visual] = ~stays[place]
    said, first = [], None
    for _ in range(steps):
        states = model.get_input_embeddings()(ids)[None].clone()
        states[0, visual] = seen.encoded.tokens[place]
        positions = torch.arange(len(ids))[None]
        rotary = language.rotary_emb(states, position_ids=positions)
        sees = torch.ones(len(ids), len(ids), dtype=torch.bool).tril()
        for number, block in enumerate(language.layers):
            now = sees & ~gone if number >= layer else sees
            # Whoever is gone still needs a key, or softmax has none; nobody looks at it.
            now = now | torch.eye(len(ids), dtype=torch.bool)
            mask = torch.where(now, 0.0, -1e30)[None, None]
            states = block(states, attention_mask=mask, position_embeddings=rotary)
        logits = model.lm_head(language.norm(states))[0, -1]
        first = logits if first is None else first
        said.append(int(logits.argmax()))
        ids = torch.cat([ids, logits.argmax()[None]])
        visual, gone = (
            torch.cat([one, torch.zeros(1, dtype=torch.bool)]) for one in (visual, gone)
        )
    return said, first


def test_nothing_deleted_is_generation(vlm, examples, asks, seen):
    limits = [STEPS] * len(asks)
    images = [example.image for example in examples]
    expected = generate(vlm, images, [q for _, q in asks], [place for place, _ in asks], limits)
    everything = torch.ones(len(examples), 64, dtype=torch.bool)
    for layer in (-1, 0, 1, BLOCKS - 1):
        assert answers_with(vlm, seen, everything, layer, asks, limits)[0] == expected
    assert len({said for said, _ in expected}) > len(expected) / 3


@pytest.mark.parametrize("layer", [-1, 0, 1, 3])
def test_deleting_is_masking_the_deleted_keys(vlm, asks, seen, ragged, layer, monkeypatch):
    monkeypatch.setattr(vlm.model.generation_config, "eos_token_id", -1)
    limits = [1 + row * 7 % STEPS for row in range(len(asks))]  # rows leave at different times
    said, logits = answers_with(vlm, seen, ragged, layer, asks, limits)
    whole, _ = answers_with(vlm, seen, torch.ones_like(ragged), layer, asks, limits)
    changed = 0
    for row, (place, question) in enumerate(asks):
        with torch.inference_mode():
            tokens, first = masked(vlm, seen, ragged, layer, place, question, limits[row])
        torch.testing.assert_close(logits[row], first, rtol=2e-4, atol=2e-4)
        decoded = vlm.processor.tokenizer.decode(tokens, skip_special_tokens=True).strip()
        assert said[row][0] == decoded
        changed += said[row] != whole[row]
    assert changed > len(asks) / 4  # what was deleted mattered


@pytest.mark.parametrize(("layer", "full"), [(-1, 0), (0, 0), (1, 1), (3, 3)])
def test_blocks_behind_a_deletion_are_shorter(vlm, seen, layer, full):
    lengths = []
    blocks = vlm.adapter.blocks(vlm.model)["language"]
    handles = [
        block.register_forward_hook(lambda *call: lengths.append(call[2].shape[1]))
        for block in blocks
    ]
    stays = torch.zeros(5, 64, dtype=torch.bool)
    stays[:, ::8] = True
    try:
        with torch.inference_mode():
            read = prefill(vlm, seen, stays, layer)
            whole = prefill(vlm, seen, torch.ones_like(stays), layer).cost
    finally:
        for handle in handles:
            handle.remove()
    text = seen.batch["input_ids"].shape[1] - 64
    assert lengths[:BLOCKS] == [64 + text] * full + [8 + text] * (BLOCKS - full)
    cached = [part.keys.shape[2] for part in read.prefix.cache.layers]
    assert cached == lengths[:BLOCKS]
    # Width 32 in one head, in fp32: keys and values of what stays, per image.
    saved = 2 * 4 * 32 * 56 * (BLOCKS - full)
    assert whole.peak_bytes - read.cost.peak_bytes >= saved
    if full:
        assert whole.peak_bytes - read.cost.peak_bytes == saved


def small_spec(**changes) -> DeletionSpec:
    usual = {"shares": (0.5, 0.95), "policies": POLICIES, "layers": (-1, 2), "seeds": (0, 1)}
    return DeletionSpec(**usual | changes)


def fingerprint(response: str) -> float:
    return zlib.crc32(response.encode()) / 2**32


@pytest.fixture(scope="module", autouse=True)
def every_word_counts():
    """Scores that tell all responses apart; those of random weights are nearly all 0."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(
            "mixlens.probing.deletion.score",
            lambda turn, said: {"exact": fingerprint(said), "relaxed": fingerprint(turn.question)},
        )
        yield


@pytest.fixture(scope="module")
def results(vlm, examples):
    return delete(vlm, examples, small_spec()).to_pandas()


def test_every_setting_asks_every_short_question(results, examples):
    turns = [t for example in examples for t in example.turns if t.group != "scene_graph"]
    per_setting = results.groupby(["layer", "policy", "share", "seed"]).size()
    assert set(per_setting) == {len(turns)}
    # Two places, two shares: four policies without seeds, two with two each; the rest at one.
    assert len(per_setting) == 1 + 2 * 2 * (4 + 2 * 2) + 2
    assert list(results.columns) == DELETED.names
    assert set(results["group"]) == {"coarse", "relational", "locate"}
    nothing = results[results["share"] == 0]
    assert set(nothing["seed"]) == {SEEDLESS}
    assert list(results["object_count"].head(len(turns))) == [
        example.attributes["object_count"]
        for example in examples
        for turn in example.turns
        if turn.group != "scene_graph"
    ]


def test_nothing_deleted_is_answered_as_in_the_evaluation(vlm, results, examples):
    said = answer(vlm, examples).to_pandas()
    said = said[said["group"] != "scene_graph"].reset_index()
    nothing = results[results["share"] == 0].reset_index()
    assert list(nothing["exact"]) == [fingerprint(response) for response in said["response"]]
    assert list(nothing["relaxed"]) == [fingerprint(question) for question in said["question"]]
    for column in ("example_id", "group", "kind"):
        assert list(nothing[column]) == list(said[column])


def test_every_setting_answers_in_its_own_way(results):
    settings_of = ["layer", "policy", "share", "seed"]
    kept = results[~results["policy"].isin(["saliency"]) & (results["share"] < 0.9)]
    answers = [tuple(rows["exact"]) for _, rows in kept.groupby(settings_of)]
    assert len(set(answers)) == len(answers)


def test_kept_tokens_are_counted(results):
    kept = results.drop_duplicates(["layer", "policy", "share", "seed", "example_id"])
    assert set(kept["tokens"]) == {64}
    fixed = kept[~kept["policy"].isin(["saliency", "downsampling"])]
    assert {(s, k) for s, k in zip(fixed["share"], fixed["tokens_kept"], strict=True)} == {
        (0.0, 64), (0.5, 32), (0.95, 3),
    }  # fmt: skip
    smaller = kept[kept["policy"] == "downsampling"]
    assert dict(zip(smaller["share"], smaller["tokens_kept"], strict=True)) == {0.5: 36, 0.95: 4}
    budgets = kept[kept["policy"] == "saliency"]
    means = budgets.groupby(["layer", "share", "seed"])["tokens_kept"].mean()
    assert set(means) == {32.0, 3.0}
    assert budgets["tokens_kept"].nunique() > 4
    assert (results["prefill_s_per_image"] > 0).all()


def test_batching_changes_no_answer(vlm, examples, results):
    apart = delete(vlm, examples, small_spec(shares=(0.5,)), batch_size=1).to_pandas()
    results = results[results["share"] < 0.9]
    keys = ["layer", "policy", "share", "seed", "example_id"]
    for column in ("exact", "relaxed", "tokens_kept"):
        one, other = (
            frame.sort_values(keys, kind="stable")[column].to_numpy() for frame in (apart, results)
        )
        assert (one == other).all()


def test_budgets_hold_for_images_that_are_measured_elsewhere(vlm, examples):
    spec = small_spec(policies=("random", "saliency"), downsampling=False, layers=(-1,))
    known = {example.example_id: 1.0 + i for i, example in enumerate(examples)}
    part = delete(vlm, examples[:2], spec, saliency_of=known).to_pandas()
    half = part[(part["policy"] == "saliency") & (part["share"] == 0.5)]
    kept = half.groupby("example_id")["tokens_kept"].first()
    # 160 tokens in proportion to 1 : 2 : 3 : 4 : 5, none beyond 64.
    assert list(kept) == [11, 21]


def test_budgets_of_images_that_differ_in_tokens_are_shares_of_their_own():
    """By saliency 1 : 2 : 5 at half: 18.75, 37.5 and 93.75 % of an image's own tokens."""
    saliency_of, names = {"a": 1.0, "b": 2.0, "c": 5.0}, ["a", "b", "c"]
    assert _budgets(saliency_of, names, [80, 16, 32], 0.5) == [15, 6, 30]
    assert _budgets(saliency_of, names, [80, 16, 32], 0.0) == [80, 16, 32]
    assert _budgets(saliency_of, names, [80, 16, 32], 1.0) == [0, 0, 0]
    # Whoever has any keeps one, unless all are to go.
    assert _budgets(saliency_of, names, [3, 4, 5], 0.95) == [1, 1, 1]
    # The shares do not depend on how many tokens the other images of a batch have.
    assert _budgets(saliency_of, ["c", "a"], [32, 80], 0.5) == [30, 15]
    # Where all have equally many, budgets hold their sum exactly.
    assert sum(_budgets(saliency_of, names, [64, 64, 64], 0.5)) == 3 * 32


def test_before_block_0_is_after_the_encoder(vlm, seen, asks, ragged):
    there, here = (
        answers_with(vlm, seen, ragged, layer, asks, [STEPS] * len(asks)) for layer in (-1, 0)
    )
    assert there[0] == here[0]
    assert torch.equal(there[1], here[1])


def test_attention_and_states_are_those_of_transformers(vlm, examples):
    images = [example.image for example in examples]
    batch = vlm.adapter.question_batch(images, [PROMPT] * len(images))
    vlm.model.set_attn_implementation("sdpa")
    try:
        layers = (-1, 0, 1, 3)
        seen = observe(vlm, images, layers, attention=True)
        assert vlm.model.config._attn_implementation == "sdpa"
        vlm.model.set_attn_implementation("eager")
        with torch.inference_mode():
            out = vlm.model(**batch, output_attentions=True, output_hidden_states=True)
            vision = vlm.model.model.vision_tower(batch["pixel_values"], output_attentions=True)
    finally:
        vlm.model.set_attn_implementation("mixlens_plain")
    ids = batch["input_ids"][0]
    visual = (ids == vlm.adapter.image_token_id).nonzero()[:, 0]
    words = ["describe", "the", "image", "."]
    text = [vlm.processor.tokenizer.convert_tokens_to_ids(f"Ġ{word}") for word in words]
    asking = [place for place, token in enumerate(ids.tolist()) if token in text]
    assert len(visual) == 64
    assert len(asking) == len(words)
    for layer, block in ((0, 0), (1, 0), (3, 2)):
        weights = out.attentions[block][:, :, asking][..., visual].mean(1).mean(1)
        torch.testing.assert_close(seen.attention[layer], weights, rtol=1e-4, atol=1e-6)
        states = out.hidden_states[layer][:, visual]
        torch.testing.assert_close(seen.states[layer], states, rtol=1e-4, atol=1e-4)
    patches = vision.attentions[-1][:, :, 1:, 1:].mean((1, 2))
    torch.testing.assert_close(seen.attention[-1], patches, rtol=1e-4, atol=1e-6)
    torch.testing.assert_close(seen.states[-1], seen.states[0])


@pytest.mark.parametrize(("layers", "block"), [(-1, 1), (-2, 0), (1, 0), ([-2, -1], 1)])
def test_the_vision_block_that_tokens_come_from(vlm, layers, block, monkeypatch):
    monkeypatch.setattr(vlm.adapter.config, "vision_feature_layer", layers)
    assert vlm.adapter.encoder_output(vlm.model) == (block, 1)


@pytest.mark.parametrize(("wanted", "grid"), [(64, 8), (48, 7), (32, 6), (16, 4), (6, 2), (1, 1)])
def test_a_smaller_image_gives_fewer_tokens(vlm, examples, wanted, grid):
    images = [example.image for example in examples]
    batch = vlm.adapter.image_batch(images)
    fewer = vlm.adapter.smaller_batch(images, wanted / 64)
    shrunk = fewer["pixel_values"]
    with torch.inference_mode():
        smaller = look(vlm, fewer)
        found = vlm.model.get_image_features(
            pixel_values=shrunk, interpolate_pos_encoding=True, return_dict=True
        )
        assert smaller.encoded.exists.all()
        prefix = prefill(vlm, smaller, smaller.encoded.exists, -1).prefix
    assert shrunk.shape[-1] == 4 * grid
    torch.testing.assert_close(smaller.encoded.tokens, torch.stack(list(found.pooler_output)))
    assert (smaller.visual.sum(-1) == grid**2).all()
    # The question follows right behind, as it would behind an image of this size.
    assert (prefix.start == prefix.present.sum(-1)).all()
    assert (prefix.start == fewer["input_ids"].shape[1]).all()
    # Shrinking keeps what there is to see: the mean colour.
    before, after = (pixels.mean((1, 2, 3)) for pixels in (batch["pixel_values"], shrunk))
    torch.testing.assert_close(after, before, atol=0.05, rtol=0)


def test_settings_start_with_nothing_deleted_and_name_each_once():
    spec = small_spec(shares=(0.5, 0.0, 0.5, 1.0), layers=(2, 2), policies=("norm", "random"))
    found = settings(spec)
    assert (found[0].policy, found[0].share, found[0].seed) == ("random", 0.0, SEEDLESS)
    assert len(found) == len(set(found)) == 1 + 2 * (1 + 2) + 1
    assert all(one.share < 1 for one in found if one.policy == "downsampling")


def test_a_block_that_is_not_there_is_named(vlm, examples):
    with pytest.raises(SpecError, match=r"got 4: the decoder has 4 blocks\. Use -1 .* to 3"):
        delete(vlm, examples, small_spec(layers=(-1, 4)))


class Other:
    """A family that neither shrinks images nor looks into its encoder, and adds to tokens late."""

    def __init__(self, adapter, until):
        self.blocks, self.until = adapter.blocks, until

    def whole_until(self, model):
        return self.until


@pytest.mark.parametrize(
    ("changes", "until", "told"),
    [
        ({}, 0, r"deletion\.downsampling: got True.*do not give fewer.*Set it to false"),
        (
            {"downsampling": False},
            0,
            r"deletion\.policies: got 'attention'.*not tokens of a vision",
        ),
        ({"downsampling": False}, 3, r"deletion\.layers: got \[2\].*still adds.*0, or 3 and above"),
    ],
)
def test_what_a_family_cannot_do_is_told_before_anything_runs(vlm, examples, changes, until, told):
    other = replace(vlm, adapter=Other(vlm.adapter, until))
    with pytest.raises(SpecError, match=told):
        delete(other, examples, small_spec(**changes))


def test_what_a_family_can_do_is_not_refused(vlm):
    check_deletion(replace(vlm, adapter=Other(vlm.adapter, 2)), small_spec(
        downsampling=False, layers=(-1, 0, 2, 3), policies=("random", "norm")))  # fmt: skip
    check_deletion(replace(vlm, adapter=Other(vlm.adapter, 0)), small_spec(
        downsampling=False, layers=(0, 2)))  # fmt: skip
    check_deletion(vlm, small_spec())


def test_long_answers_alone_give_an_empty_table(vlm, examples):
    only = [
        replace(e, turns=tuple(t for t in e.turns if t.group == "scene_graph")) for e in examples
    ]
    table = delete(vlm, only, small_spec())
    assert (table.num_rows, table.schema) == (0, DELETED)


def test_an_image_without_counted_objects_has_none(vlm, examples):
    bare = [replace(examples[0], attributes={"ink_fraction": 0.1})]
    spec = small_spec(policies=("random",), downsampling=False, layers=(-1,))
    assert np.isnan(delete(vlm, bare, spec).to_pandas()["object_count"]).all()


def test_fused_attention_gives_the_same_answers(vlm, examples, results):
    vlm.model.set_attn_implementation("sdpa")
    try:
        fused = delete(vlm, examples, small_spec()).to_pandas()
    finally:
        vlm.model.set_attn_implementation("mixlens_plain")
    for column in ("exact", "relaxed", "tokens_kept"):
        assert (fused[column] == results[column]).all()


def test_a_lora_model_in_bf16_can_lose_all_its_tokens(vlm, examples, tmp_path):
    vlm.model.save_pretrained(tmp_path)
    vlm.processor.save_pretrained(tmp_path)
    low = load_vlm(str(tmp_path), dtype=torch.bfloat16)
    config = LoraConfig(target_modules=r".*language_model.*\.(q|v)_proj", init_lora_weights=False)
    tuned = replace(low, model=get_peft_model(low.model, config).eval())
    table = delete(tuned, examples[:2], small_spec(shares=(0.5, 1.0))).to_pandas()
    blind = table[table["share"] == 1.0]
    assert set(blind["tokens_kept"]) == {0}
    assert set(blind["policy"]) == set(POLICIES)
    # Without any token it does not matter which were chosen, but at which block they went.
    for _, rows in blind.groupby(["layer", "example_id", "kind"]):
        assert rows.groupby("policy")["exact"].mean().nunique() == 1
