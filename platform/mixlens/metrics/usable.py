"""How much a probe can make of features: information usable by a linear softmax classifier.

It is counted in nats, held out, for one family of probes, V: softmax of a linear map of the
features, each feature brought to zero mean and unit variance first (so no scale or rogue dimension
decides), with ½ ridge ‖W‖² on all weights and biases W beside the summed loss.
"""

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from mixlens.errors import DataError, explain
from mixlens.metrics.gaussian import centred, existing
from mixlens.metrics.spectrum import masked

# Nats per sample by which the summed loss of a fit can at most exceed the smallest possible.
TOLERANCE = 1e-12
STEPS = 20_000


def v_information(
    features: Float[Tensor, "*batch samples width"],
    labels: Int[Tensor, "*batch samples"],
    classes: int,
    held_out: Bool[Tensor, "*batch samples"],
    mask: Bool[Tensor, "*batch samples"] | None = None,
    ridge: float = 1.0,
) -> Float[Tensor, "*batch"]:
    """Held-out V-information of features about labels: H_V(Y) - H_V(Y|X), V linear softmax.

    Both are mean losses -ln p(y) on the samples held out, of the probe learned from the others
    (which standardise the features): with them, and with none (the shares of the classes). More
    than linear information is not counted. Below 0 where the probe overfits: compare with the same
    of shuffled labels (control task). Samples of one image belong on one side of the split.

    Constant features or labels give 0; no sample on either side and NaN give NaN; a class never
    learned from has a finite loss. Scale and shift of a feature change nothing. In nats, at most
    H_V(Y); cost SVD of the samples learned from + hundreds of steps of n·rank·classes, more with
    less ridge. Source: Xu et al. 2020.

    Args:
        features: one row a sample.
        labels: from 0 to classes - 1; anything where no sample exists.
        classes: how many there are.
        held_out: which samples to judge by.
        mask: which samples exist.
        ridge: weight of the penalty, above 0.
    """
    present = existing(features, mask)
    _check(labels, classes, present)
    judged, learned = present & held_out, present & ~held_out
    sound = _standardised(features, present, learned)
    without, given = (surprise(x, labels, classes, learned, ridge) for x in (sound[..., :0], sound))
    value = torch.where(judged, without - given, 0.0).sum(-1) / judged.sum(-1)
    estimable = _finite(features, present) & learned.any(-1) & judged.any(-1)
    return torch.where(estimable, value, torch.nan)


def surprise(
    features: Float[Tensor, "*batch samples width"],
    labels: Int[Tensor, "*batch samples"],
    classes: int,
    learned: Bool[Tensor, "*batch samples"],
    ridge: float,
) -> Float[Tensor, "*batch samples"]:
    """-ln p(label) of every sample under the linear softmax learned from some of them.

    Newton's steps with the fixed bound ½ XᵀX + ridge on the Hessian (Böhning 1992), diagonal in
    the singular directions of what is learned from, which hold all that a ridge fit can use;
    accelerated (Nesterov), and restarted where the momentum points uphill. NaN where it does not
    get within `TOLERANCE` of the optimum in `STEPS`.
    """
    plain = torch.cat([features, features.new_ones(*features.shape[:-1], 1)], -1)
    shown = torch.where(learned[..., None], plain, 0.0)
    _, singular, basis = torch.linalg.svd(shown, full_matrices=False)
    design = plain @ basis.mT
    count = learned.sum(-1)
    truth = torch.nn.functional.one_hot(labels.clamp(0, classes - 1), classes).double()
    step = (1 / (singular**2 / 2 + ridge))[..., None]
    here = torch.zeros(*step.shape[:-1], classes, dtype=torch.float64, device=step.device)
    look, age = here, torch.ones_like(step[..., :1, :1])
    for _ in range(STEPS):
        wrong = torch.where(learned[..., None], (design @ look).softmax(-1) - truth, 0.0)
        slope = design.mT @ wrong + ridge * look
        # Strong convexity: the loss is at most this far above its optimum.
        excess = (slope**2).sum((-2, -1)) / (2 * ridge)
        done = excess <= TOLERANCE * count
        if done.all():
            break
        there = look - step * slope
        uphill = (slope * (there - here)).sum((-2, -1), keepdim=True) > 0
        older = (1 + (1 + 4 * age**2).sqrt()) / 2
        look = there + torch.where(uphill, 0.0, (age - 1) / older) * (there - here)
        here, age = there, torch.where(uphill, 1.0, older)
    loss = -(design @ look).log_softmax(-1).gather(-1, labels.clamp(0, classes - 1)[..., None])
    return torch.where(done[..., None], loss[..., 0], torch.nan)


def _standardised(features: Tensor, present: Tensor, over: Tensor) -> Tensor:
    """Features at zero mean and unit variance over some samples; zero where constant over them.

    All zero where no sample is, and throughout a batch element with a NaN or infinity.
    """
    sound = torch.where(_finite(features, present)[..., None, None], masked(features, present), 0.0)
    count = over.sum(-1)[..., None, None]
    scale = (centred(sound, over) ** 2).sum(-2, keepdim=True).div(count).sqrt()
    mean = masked(sound, over).sum(-2, keepdim=True) / count
    return torch.where((scale > 0) & present[..., None], (sound - mean) / scale, 0.0)


def _finite(features: Tensor, present: Tensor) -> Tensor:
    return masked(features, present).isfinite().all(-1).all(-1)


def _check(labels: Tensor, classes: int, present: Tensor) -> None:
    wrong = labels[present & ((labels < 0) | (labels >= classes))]
    if wrong.numel():
        raise DataError(
            explain("labels", int(wrong[0]), f"no class of {classes}", "Number classes from 0.")
        )
