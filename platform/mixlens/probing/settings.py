"""The settings of deletion that a file asks for; light, because processes that wait read it too."""

from dataclasses import dataclass

from mixlens.spec.measure import ENCODER, DeletionSpec

RANDOM, SALIENCY, DOWNSAMPLING = "random", "saliency", "downsampling"
ATTENTION = "attention"
SEEDLESS = -1
SEEDED = (RANDOM, SALIENCY)


@dataclass(frozen=True)
class Setting:
    """One way of deletion: how, where, and how much (0 to 1); a seed where chance decides."""

    layer: int
    policy: str
    share: float
    seed: int = SEEDLESS


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
