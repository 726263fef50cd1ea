"""The batched networks: their gradient, their independence, and what they can learn."""

import pandas as pd
import pytest
import torch

from mixlens.probing import mlp as module
from mixlens.probing.components import components
from mixlens.probing.mlp import losses, mlp, set_gradients
from mixlens.probing.targets import Targets, fold_of_images, read_targets

FOLDS = 5


def _targets(images: int) -> Targets:
    generator = torch.Generator().manual_seed(3)
    first, second = torch.randn(2, images, generator=generator)
    attributes = pd.DataFrame(
        {
            "sum": (first + second).numpy(),
            "kind": [f"k{int(one)}" for one in torch.bucketize(first, torch.tensor([-0.5, 0.5]))],
            "xor": ["yes" if one else "no" for one in first * second > 0],
        }
    )
    (targets,) = read_targets(attributes, list(attributes.columns))
    return targets


def test_the_gradient_by_hand_is_that_of_autograd() -> None:
    generator = torch.Generator().manual_seed(0)
    targets = _targets(30)
    columns = targets.values.shape[1]

    def draw(*shape: int) -> torch.Tensor:
        return torch.randn(*shape, generator=generator, dtype=torch.float64)

    x, weight = draw(4, 30, 7), torch.rand(4, 30, generator=generator, dtype=torch.float64)
    truth = targets.values.expand(4, -1, -1)
    shapes = ((7, 5), (1, 5), (5, 6), (1, 6), (6, columns), (1, columns))
    network = [draw(4, *shape) for shape in shapes]
    category = targets.member[targets.numbers :, targets.numbers :]
    set_gradients(x, truth, weight, network, category @ category.T)
    mine = [layer.grad for layer in network]

    taped = [layer.detach().clone().requires_grad_() for layer in network]
    low = torch.relu(x @ taped[0] + taped[1])
    high = torch.relu(low @ taped[2] + taped[3])
    out = high @ taped[4] + taped[5]
    total = 0.5 * (out[..., 0] - truth[..., 0]) ** 2
    for part in targets.parts[1:]:
        labels = truth[..., part.columns].argmax(-1)
        logits = out[..., part.columns].movedim(-1, 1)
        total = total + torch.nn.functional.cross_entropy(logits, labels, reduction="none")
    (total * weight).sum().backward()
    for got, layer in zip(mine, taped, strict=True):
        torch.testing.assert_close(got, layer.grad)
    held = losses(out.detach(), truth, weight, category @ category.T).sum(-1)
    torch.testing.assert_close(held, (total * weight).sum(-1).detach())


def test_a_position_alone_says_what_it_says_beside_others() -> None:
    images = 40
    states = torch.randn(3, images, 6, generator=torch.Generator().manual_seed(1))
    fold, targets = fold_of_images(images), _targets(images)
    present = torch.ones(3, images, dtype=torch.bool)
    present[1, :4] = False
    copies = torch.stack([targets.values, targets.shuffled(1)])
    together = mlp(components(states, present, fold, FOLDS), targets, copies, fold)
    assert together.shape == (2, 3, images, 6)
    for one in range(3):
        some = slice(one, one + 1)
        parts = components(states[some], present[some], fold, FOLDS)
        alone = mlp(parts, targets, copies[:1], fold)
        there = present[one]
        torch.testing.assert_close(
            alone[0, 0, there], together[0, one, there], rtol=1e-3, atol=1e-3
        )


def test_images_held_out_do_not_teach(monkeypatch: pytest.MonkeyPatch) -> None:
    images = 50
    states = torch.randn(1, images, 6, generator=torch.Generator().manual_seed(1))
    fold, targets = fold_of_images(images), _targets(images)
    parts = components(states, torch.ones(1, images, dtype=torch.bool), fold, FOLDS)
    plain = mlp(parts, targets, targets.values[None], fold)
    changed = targets.values.clone()
    changed[fold == 2] = changed[fold == 2].flip(0) + 100
    other = mlp(parts, targets, changed[None], fold)
    torch.testing.assert_close(plain[:, :, fold == 2], other[:, :, fold == 2])
    assert not torch.allclose(plain[:, :, fold == 0], other[:, :, fold == 0])


def test_before_the_first_step_it_says_mean_and_shares(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "STEPS", 0)
    images = 50
    states = torch.randn(1, images, 6, generator=torch.Generator().manual_seed(1))
    fold, targets = fold_of_images(images), _targets(images)
    parts = components(states, torch.ones(1, images, dtype=torch.bool), fold, FOLDS)
    said = mlp(parts, targets, targets.values[None], fold)[0, 0]
    for number in range(FOLDS):
        rest = targets.values[fold != number].mean(0)
        mine = said[fold == number]
        torch.testing.assert_close(mine[:, 0], rest[:1].expand(len(mine)), rtol=1e-5, atol=1e-6)
        for part in targets.parts[1:]:
            shares = rest[part.columns]
            want = 0.99 * shares + 0.01 / len(shares)
            got = mine[:, part.columns].exp()
            torch.testing.assert_close(got, want.expand_as(got), rtol=1e-5, atol=1e-6)
