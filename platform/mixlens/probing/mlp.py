"""Two-hidden-layer probes of all positions, folds and attributes, trained as one batched problem.

One network a position, fold and copy of the targets (true or shuffled), its hidden layers shared by
all attributes, each of which has outputs of its own. The networks share nothing: every step is a
batched product over them. All start from the same weights, so a position's result does not depend
on which others are probed beside it.

The same for all attributes, settled on planted signals and not on any model: the first 32 principal
components (64 learn products of two less well from 192 images, and no better from 1000), 32 ReLU
units a layer, 60 steps over all images of Adam with decoupled weight decay (more steps change
little). For every attribute the step with the lowest loss on the validation fold speaks. Before the
first step a network says the mean or the shares of the classes, so a probe that finds nothing can
say nothing. A linear probe sees all components and one fold more, and its penalty is chosen: where
it scores higher, the signal is linear, or the images are few for a network.
"""

import math
from typing import Any

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from mixlens.probing.components import Components
from mixlens.probing.targets import Targets

INPUTS = 32
HIDDEN = 32
STEPS = 60
LOOK_EVERY = 5
RATE = 0.01
DECAY = 1.0
SEED = 0


def mlp(
    parts: Components,
    targets: Targets,
    copies: Float[Tensor, "copies images columns"],
    fold: Int[Tensor, "images"],
) -> Float[Tensor, "copies positions images columns"]:
    """What the networks say of each image when they have not seen it.

    Numbers come in their own units; the columns of a category are ln p of its classes. Of the folds
    not held out, the next one decides when to stop and the others train.

    Args:
        parts: states in principal axes.
        targets: what the columns mean.
        copies: the columns to predict: the true ones and shuffled ones.
        fold: where each image is held out.
    """
    positions, folds, images, _ = parts.scores.shape
    every = torch.arange(folds, device=fold.device)[:, None]
    test, validation = fold == every, fold == (every + 1) % folds
    present = parts.learned.any(1)
    inputs = _scaled(parts)
    start, spread = _start(parts, targets, copies)
    shape = (len(copies), positions, folds)
    # A copy, position and fold is one network; first comes what is the same for all of them.
    truth = torch.where(
        torch.arange(copies.shape[-1], device=fold.device) < targets.numbers,
        (copies[:, None, None] - start[:, :, :, None]) / spread[:, :, :, None],
        copies[:, None, None],
    ).float()

    def rows(which: Bool[Tensor, "folds images"]) -> tuple[Tensor, Tensor, Tensor]:
        """Inputs, truth and weights of the mean of some images of each fold."""
        place, real = _places(which)
        real = real & present[:, place]
        weight = real / real.sum(-1, keepdim=True).clamp(min=1)
        at = place[None, :, :, None]
        x = inputs.gather(2, at.expand(positions, -1, -1, inputs.shape[-1]))
        wide = at[None].expand(*shape, -1, truth.shape[-1])
        y = truth.gather(3, wide)
        return (
            x.expand(len(copies), *x.shape).flatten(0, 2),
            y.flatten(0, 2),
            weight.expand(len(copies), *weight.shape).flatten(0, 2).float(),
        )

    x, y, weight = rows(~test & ~validation)
    x_seen, y_seen, weight_seen = rows(validation)
    x_test, _, _ = rows(test)
    prior = _prior(targets, start).flatten(0, 2)[:, None].float()
    network = _network(len(x), x.shape[-1], prior)
    member = targets.member.float()
    together = _together(targets)
    best = x.new_full((len(x), len(targets.parts)), torch.inf)
    said = prior.expand(-1, x_test.shape[1], -1).clone()
    decays: list[dict[str, Any]] = [
        {"params": network[0::2], "weight_decay": DECAY},
        {"params": network[1::2], "weight_decay": 0.0},
    ]
    optimiser = torch.optim.AdamW(decays, lr=RATE, fused=True)
    for step in range(STEPS + 1):
        if step % LOOK_EVERY == 0:
            loss = losses(_layers(x_seen, network)[-1], y_seen, weight_seen, together) @ member
            better = loss < best
            best = torch.where(better, loss, best)
            columns = better.float() @ member.mT > 0
            said = torch.where(columns[:, None], _layers(x_test, network)[-1], said)
        if step < STEPS:
            set_gradients(x, y, weight, network, together)
            optimiser.step()
    outputs = _in_units(said.double().unflatten(0, shape), targets, start, spread)
    held = outputs.new_zeros(len(copies), positions, images, outputs.shape[-1])
    for one in range(folds):
        mine = test[one].nonzero()[:, 0]
        held[:, :, mine] = outputs[:, :, one, : len(mine)]
    return held


def _network(networks: int, width: int, prior: Tensor) -> list[Tensor]:
    """Weights and biases; the last layer says `prior` whatever comes in."""
    generator = torch.Generator().manual_seed(SEED)
    layers = []
    for rows, columns in ((width, HIDDEN), (HIDDEN, HIDDEN)):
        weight = torch.randn(rows, columns, generator=generator) * math.sqrt(2 / max(rows, 1))
        layers += [weight.to(prior.device).repeat(networks, 1, 1)]
        layers += [prior.new_zeros(networks, 1, columns)]
    return [*layers, prior.new_zeros(networks, HIDDEN, prior.shape[-1]), prior.clone()]


def _layers(x: Tensor, network: list[Tensor]) -> tuple[Tensor, Tensor, Tensor]:
    """Both hidden layers and the outputs."""
    first, first_bias, second, second_bias, last, last_bias = network
    low = torch.baddbmm(first_bias, x, first).relu_()
    high = torch.baddbmm(second_bias, low, second).relu_()
    return low, high, torch.baddbmm(last_bias, high, last)


def losses(
    outputs: Float[Tensor, "nets rows columns"],
    truth: Float[Tensor, "nets rows columns"],
    weight: Float[Tensor, "nets rows"],
    together: Float[Tensor, "classes classes"],
) -> Float[Tensor, "nets columns"]:
    """Weighted mean of half the squared error (numbers), of a column's part of -ln p (classes)."""
    split = outputs.shape[-1] - len(together)
    squares = 0.5 * (outputs[..., :split] - truth[..., :split]).square()
    chances = _log_shares(outputs[..., split:], together)
    every = torch.cat([squares, -truth[..., split:] * chances], -1)
    return (weight[:, None] @ every)[:, 0]


def set_gradients(
    x: Float[Tensor, "nets rows inputs"],
    truth: Float[Tensor, "nets rows columns"],
    weight: Float[Tensor, "nets rows"],
    network: list[Float[Tensor, "nets _ _"]],
    together: Float[Tensor, "classes classes"],
) -> None:
    """Gradient of the sum of `losses`, by hand: half the time of recording every step."""
    _, _, second, _, last, _ = network
    low, high, outputs = _layers(x, network)
    split = outputs.shape[-1] - len(together)
    outputs[..., split:] = _log_shares(outputs[..., split:], together).exp_()
    delta = outputs.sub_(truth).mul_(weight[..., None])
    delta_high = (delta @ last.mT).mul_(high > 0)
    delta_low = (delta_high @ second.mT).mul_(low > 0)
    for place, (source, change) in enumerate(((x, delta_low), (low, delta_high), (high, delta))):
        network[2 * place].grad = source.mT @ change
        network[2 * place + 1].grad = change.sum(1, keepdim=True)


def _together(targets: Targets) -> Float[Tensor, "classes classes"]:
    """1 where two columns are classes of one category."""
    classes = targets.member[targets.numbers :, targets.numbers :].float()
    return classes @ classes.mT


def _log_shares(outputs: Tensor, together: Tensor) -> Tensor:
    """log_softmax of every category, all in one product."""
    # A distance of 60 between two categories' outputs is far from any that training reaches.
    below = (outputs - outputs.amax(-1, keepdim=True)).clamp_(min=-60) if len(together) else outputs
    return below - (below.exp() @ together).log()


def _start(
    parts: Components, targets: Targets, copies: Tensor
) -> tuple[Float[Tensor, "copies positions folds columns"], Tensor]:
    """Mean of every column over the images learned from, and the spread of the numbers."""
    weight = parts.learned.double() / parts.count
    mean = weight @ copies[:, None]
    variance = weight @ copies[:, None].square() - mean.square()
    spread = variance.clamp(min=0).sqrt()
    number = torch.arange(copies.shape[-1], device=mean.device) < targets.numbers
    return mean, torch.where(number & (spread > 0), spread, 1.0)


def _prior(targets: Targets, start: Tensor) -> Tensor:
    """What a network says before the first step."""
    prior = torch.zeros_like(start)
    for part in targets.parts[targets.numbers :]:
        prior[..., part.columns] = smoothed(start[..., part.columns]).log()
    return prior


def smoothed(shares: Float[Tensor, "*batch classes"]) -> Float[Tensor, "*batch classes"]:
    """Shares of classes with a little for those never seen, so that no surprise is infinite."""
    little = 0.01
    return (1 - little) * shares + little / shares.shape[-1]


def _in_units(outputs: Tensor, targets: Targets, start: Tensor, spread: Tensor) -> Tensor:
    units = outputs * spread[:, :, :, None] + start[:, :, :, None]
    for part in targets.parts[targets.numbers :]:
        units[..., part.columns] = outputs[..., part.columns].log_softmax(-1)
    return units


def _scaled(parts: Components) -> Float[Tensor, "positions folds images inputs"]:
    """The first components at a mean square of 1 over them and the images learned from."""
    kept = parts.power[..., :INPUTS]
    mean = kept.mean(-1, keepdim=True) / parts.count
    scale = torch.where(mean > 0, mean, torch.inf).rsqrt()
    return (parts.scores[..., :INPUTS] * scale[..., None]).float()


def _places(which: Bool[Tensor, "folds images"]) -> tuple[Tensor, Tensor]:
    """[folds, most] where each fold's images stand, and which of these are real."""
    most = int(which.sum(-1).max())
    place = (~which).long().argsort(dim=-1, stable=True)[:, :most]
    return place, which.gather(-1, place)
