"""The cost of a run and of a sweep, as a person reads it before starting."""

from dataclasses import dataclass

from mixlens.training.cost.flops import step_flops
from mixlens.training.cost.memory import Memory, memory
from mixlens.training.cost.setting import Setting, trained_parameters
from mixlens.training.cost.shape import ModelShape
from mixlens.training.cost.tokens import RowTokens

GIB = 2**30
ASSUMED_MFU = 0.35
_UNITS = ((1e12, "T"), (1e9, "G"), (1e6, "M"), (1e3, "k"))


def summary(
    shape: ModelShape,
    tokens: RowTokens,
    setting: Setting,
    device_bytes: float | None = None,
) -> list[tuple[str, str]]:
    """Label and text of each row: parameters, tokens, operations of a step, memory."""
    trained = trained_parameters(shape, setting)
    step = step_flops(shape, tokens, setting, rows=setting.global_batch)
    needed = memory(shape, tokens, setting)
    towers = [t for t, n in shape.parameters.items() if n]
    rows = [
        ("parameters", f"{short(shape.total)} ("
         + ", ".join(f"{t} {short(shape.parameters[t])}" for t in towers) + ")"),
        ("trained", f"{short(sum(trained.values()))} ("
         + ", ".join(f"{t} {short(trained[t])}" for t in towers) + ")"),
        ("tokens an example", f"{tokens.encoder:g} in the vision tower, "
         f"{tokens.projected:g} visual, {tokens.decoder:g} in the decoder, "
         f"{tokens.answers:g} of answers"),
        ("operations a step", f"{step.model:.3g} FLOPs of the model, {step.hardware:.3g} of the "
         f"hardware, {step.forward.total:.3g} of them in the forward pass"),
        ("memory a device", _memory(needed, device_bytes)),
    ]  # fmt: skip
    if host := sum(needed.host.values()):
        rows.append(("main memory a node", f"{gib(host)} offloaded while training"))
    if needed.loading:
        rows.append(
            ("to load and save", f"{gib(needed.loading)} of main memory a node to load, "
             f"{gib(needed.saving)} on the first to save")
        )  # fmt: skip
    if needed.nvme:
        rows.append(("NVMe a node", gib(needed.nvme)))
    return rows


def _memory(needed: Memory, device_bytes: float | None) -> str:
    parts = ", ".join(f"{name} {gib(size)}" for name, size in needed.device.items() if size)
    there = "" if device_bytes is None else f" of {gib(device_bytes)}"
    return f"{gib(needed.peak)}{there}: {parts}"


def gib(size: float) -> str:
    """Bytes as GiB."""
    return f"{size / GIB:.2f} GiB"


def short(number: float) -> str:
    """A count in three digits and a unit."""
    for unit, letter in _UNITS:
        if number >= unit:
            return f"{number / unit:.3g} {letter}"
    return f"{number:.0f}"


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
