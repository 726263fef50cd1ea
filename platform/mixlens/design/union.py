"""All designs that a sweep file can name."""

from typing import Annotated

from pydantic import Discriminator

from mixlens.design.arms import ArmsDesign
from mixlens.design.explicit import ExplicitDesign
from mixlens.design.ratio import RatioDesign

Design = Annotated[RatioDesign | ArmsDesign | ExplicitDesign, Discriminator("kind")]
