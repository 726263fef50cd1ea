"""What a camera adds: uneven light, blur and sensor noise, in whole numbers or by Pillow."""

import hashlib

import numpy as np
from PIL import Image, ImageFilter

from mixlens.scenes.background import RAMP, slope
from mixlens.scenes.draws import between, word_list
from mixlens.spec.scene import SceneSpec

Strengths = dict[str, float]


def add_effects(
    spec: SceneSpec, image: np.ndarray, seed: int, index: int
) -> tuple[np.ndarray, Strengths]:
    """An image with the effects of a spec, in the order light, blur, noise; and their strengths.

    Strengths are drawn uniformly from their ranges and rounded to 3 digits.
    """
    ranges = {"lighting": spec.lighting, "blur": spec.blur, "sensor_noise": spec.sensor_noise}
    if not any(high for _, high in ranges.values()):
        return image, dict.fromkeys(ranges, 0.0)
    raw = word_list(seed, index, "effects", 4)
    strengths = {
        name: round(between(bounds, word), 3)
        for (name, bounds), word in zip(ranges.items(), raw, strict=False)
    }
    if strengths["lighting"]:
        image = _lit(image, strengths["lighting"], raw[3])
    if strengths["blur"]:
        blurred = Image.fromarray(image).filter(ImageFilter.GaussianBlur(strengths["blur"]))
        image = np.array(blurred)
    if strengths["sensor_noise"]:
        image = _noisy(image, strengths["sensor_noise"], f"{seed}/{index}/sensor noise")
    return image, strengths


def _lit(image: np.ndarray, strength: float, direction: int) -> np.ndarray:
    """Brightness falls across the image, from 1 to 1 - strength."""
    fall = round(strength * RAMP)
    light = RAMP - slope(image.shape[0], direction) * fall // RAMP
    return (image * light[:, :, None] // RAMP).astype(np.uint8)


def _noisy(image: np.ndarray, deviation: float, key: str) -> np.ndarray:
    """Add to every value the scaled sum of 4 uniform bytes, which is nearly normal."""
    raw = hashlib.shake_128(key.encode()).digest(4 * image.size)
    total = np.frombuffer(raw, np.uint8).reshape(*image.shape, 4).sum(-1, dtype=np.int64) - 510
    # A uniform byte has variance (256**2 - 1) / 12, so the sum deviates by 147.8.
    scale = round(deviation * 65536 / 147.8)
    return np.clip(image + ((total * scale + 32768) >> 16), 0, 255).astype(np.uint8)
