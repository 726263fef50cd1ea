"""What the file alone tells to be impossible, beyond what its keys say one by one.

Scenes are drawn for it, but no model library is imported: a person learns of a mistake at once.
"""

from mixlens.design import SweepSpec
from mixlens.errors import SpecError, explain
from mixlens.sources import Source, open_source
from mixlens.spec import HELD_OUT_START, MeasureSpec
from mixlens.training.cost.devices import peak_flops


def check_file(spec: SweepSpec | MeasureSpec) -> None:
    """Refuse scenes that cannot be made, attributes that no image has, and unknown GPUs.

    Raises:
        SpecError: names the field.
    """
    gpu = spec.resources.gpu
    if gpu is not None and peak_flops(gpu) is None:
        raise SpecError(
            explain("resources.gpu", gpu, "no GPU whose peak is known",
                    "Name it as torch.cuda.get_device_name does, such as 'A100' or 'H100 SXM', or "
                    "leave it out.")
        )  # fmt: skip
    for name, component in spec.components.items():
        if component.kind == "synthetic":
            open_component(spec, name)
        elif component.strata:
            from mixlens.sources.coco.strata import check_stratum

            for attribute in component.strata:
                check_stratum(f"components.{name}.strata", attribute)
    probes = spec.evaluation.probes
    known = _attributes(spec) if probes and probes.attributes else []
    for attribute in probes.attributes if probes else ():
        if attribute not in known:
            raise SpecError(
                explain("evaluation.probes.attributes", attribute,
                        "images have no such attribute", f"They have {', '.join(known)}.")
            )  # fmt: skip


def _attributes(spec: SweepSpec | MeasureSpec) -> list[str]:
    """What is known of each held-out image."""
    name = spec.evaluation.component
    if spec.components[name].kind == "synthetic":
        return sorted(open_component(spec, name)[HELD_OUT_START].attributes)
    from mixlens.sources.coco.attributes import NAMES, NUMBERS

    return sorted([*NAMES, *NUMBERS])


def open_component(spec: SweepSpec | MeasureSpec, name: str) -> Source:
    """The source of a component.

    Raises:
        SpecError: no scene can be as the component says, or its strata are of no attribute.
    """
    try:
        return open_source(name, spec.components[name], spec.data)
    except SpecError as error:
        text = str(error)
        place = "" if text.startswith(f"components.{name}") else f"components.{name}: "
        raise SpecError(place + text) from None
