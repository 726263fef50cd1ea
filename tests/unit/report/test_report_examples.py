"""Held-out photographs on the page."""

import base64
import io
from pathlib import Path

import numpy as np
import pytest
from fake_sweep import FakeSweep
from PIL import Image

from mixlens.analysis import load_sweep
from mixlens.report import examples as module
from mixlens.report.examples import show_examples
from mixlens.sources import Example


def _shown(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, image: bytes) -> str:
    """What the page gets of a held-out image whose file has these bytes."""

    class Source:
        def example(self, index: int) -> Example:
            return Example(f"p/{index}", "p", image, (), {})

    sweep = load_sweep(FakeSweep(ratios=(0.0, 1.0), images=24, layers=6, steps=20).write(tmp_path))
    monkeypatch.setattr(module, "open_source", lambda *_: Source())
    return show_examples(sweep, 1)[0].image


def test_a_photograph_is_shown_upright_small_and_as_a_browser_reads_it(tmp_path, monkeypatch):
    exif = Image.Exif()
    exif[274] = 6  # shown turned to the right
    picture = Image.new("RGB", (1600, 800), (250, 10, 10))
    picture.paste((10, 10, 250), (0, 0, 800, 800))
    file = io.BytesIO()
    picture.save(file, "TIFF", exif=exif)  # a kind that browsers do not show
    kind, _, data = _shown(tmp_path, monkeypatch, file.getvalue()).partition(",")
    assert kind == "data:image/jpeg;base64"
    shown = Image.open(io.BytesIO(base64.b64decode(data)))
    assert shown.size == (240, 480)
    top, bottom = np.asarray(shown)[100, 100], np.asarray(shown)[400, 100]
    assert np.abs(top.astype(int) - (10, 10, 250)).max() < 12
    assert np.abs(bottom.astype(int) - (250, 10, 10)).max() < 12


@pytest.mark.parametrize("data", [b"", b"\xff\xd8\xff damaged since"])
def test_a_photograph_that_is_gone_costs_no_page(tmp_path, monkeypatch, data):
    assert _shown(tmp_path, monkeypatch, data) == ""
