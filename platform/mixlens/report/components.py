"""What is in a component, in words."""

from mixlens.analysis.words import group_name, listing, plain
from mixlens.design import SweepSpec
from mixlens.spec import ComponentSpec, MeasureSpec


def content(component: ComponentSpec) -> str:
    """The images of a component: how many objects in scenes, or which photographs."""
    if component.kind == "synthetic":
        low, high = component.scene.objects
        return f"scenes of {low} to {high} objects"
    strata = [
        f"{plain(attribute)} between quantiles {low:g} and {high:g}"
        for attribute, (low, high) in component.strata.items()
    ]
    with_these = f" with {listing(strata)}" if strata else ""
    return f"photographs of {component.data}{with_these}"


def turns(component: ComponentSpec) -> str:
    """What is asked about an image of a component."""
    return ", ".join(f"{count} {group_name(group)}" for group, count in component.tasks.items())


def about_photographs(spec: SweepSpec | MeasureSpec) -> list[str]:
    """What numbers of photographs do not say; nothing where models are measured on scenes."""
    names = (spec.evaluation.component, spec.evaluation.transfer)
    if all(spec.components[name].kind == "synthetic" for name in names if name is not None):
        return []
    return [
        "Attributes of photographs follow their annotations: what nobody annotated is no object, "
        "objects in crowd regions are not counted, and since masks do not say who is in front, "
        "occlusion is an estimate."
    ]
