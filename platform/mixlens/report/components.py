"""What is in a component, in words."""

from mixlens.analysis.words import group_name
from mixlens.design import SweepSpec
from mixlens.sources import open_source
from mixlens.spec import ComponentSpec, MeasureSpec


def content(spec: SweepSpec | MeasureSpec, name: str) -> str:
    """The images of a component: how many objects in scenes, or which photographs."""
    return open_source(name, spec.components[name], spec.data).describe()


def turns(component: ComponentSpec) -> str:
    """What is asked about an image of a component."""
    return ", ".join(f"{count} {group_name(group)}" for group, count in component.tasks.items())


def about_images(spec: SweepSpec | MeasureSpec) -> list[str]:
    """What numbers about the images do not say that models are measured on."""
    names = filter(None, (spec.evaluation.component, spec.evaluation.transfer))
    sources = [open_source(name, spec.components[name], spec.data) for name in names]
    return list(dict.fromkeys(caveat for source in sources for caveat in source.caveats()))
