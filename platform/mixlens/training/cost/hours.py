"""How many GPU hours a sweep takes, as an estimate whose arithmetic is shown."""

from dataclasses import dataclass

ASSUMED_MFU = 0.35


@dataclass(frozen=True)
class Hours:
    """An estimate of GPU hours.

    Attributes:
        gpu_hours: over all GPUs; None where the device's peak is unknown.
        sentence: how it comes about.
    """

    gpu_hours: float | None
    sentence: str


def sweep_hours(
    trial_flops: float,
    trials: int,
    peak: float | None,
    device_name: str,
    assumed_mfu: float = ASSUMED_MFU,
) -> Hours:
    """GPU hours of training in a sweep; measuring, starting and saving come on top.

    Args:
        trial_flops: model FLOPs of the training of one trial, over all its workers and steps.
        trials: how many there are.
        peak: FLOP/s of one device, as `peak_flops` gives it.
        device_name: of the device.
        assumed_mfu: the share of the peak that is assumed to be reached.
    """
    flops = trial_flops * trials
    work = f"{trials} x {trial_flops:.3g} FLOPs = {flops:.3g} FLOPs"
    if peak is None:
        return Hours(None, f"{work}; of {device_name} the peak is unknown, so hours are not")
    hours = flops / (peak * assumed_mfu) / 3600
    return Hours(
        hours,
        f"{work}; at an assumed {assumed_mfu:.0%} of the {peak / 1e12:.0f} TFLOP/s of "
        f"{device_name}: {hours:.3g} GPU hours",
    )
