"""What the file alone tells to be impossible, beyond what its keys say one by one.

Scenes are drawn for it, but no model library is imported: a person learns of a mistake at once.
"""

from mixlens.design import SweepSpec
from mixlens.errors import SpecError, explain
from mixlens.sources import Source, open_source
from mixlens.spec import MeasureSpec
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
    sources = {name: open_component(spec, name) for name in spec.components}
    probes = spec.evaluation.probes
    if probes and probes.attributes:
        known = sources[spec.evaluation.component].attribute_names()
        for attribute in probes.attributes:
            if attribute not in known:
                raise SpecError(
                    explain("evaluation.probes.attributes", attribute,
                            "images have no such attribute", f"They have {', '.join(known)}.")
                )  # fmt: skip


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
