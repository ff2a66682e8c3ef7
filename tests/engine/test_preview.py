"""The emerging video: the fitted map, the straight flow to the end, and a real generation with previews."""

import io

import numpy as np
import pytest
import torch
from PIL import Image

from reeltune import Engine, load_catalog
from reeltune.engine.preview import Previewer, RgbMap, animated, fit, refit
from reeltune.events import Notice, Preview, Progress


def linear(latents, weight, scale=8):
    """What a decoder would make of latents if it were linear."""
    colours = torch.einsum("ncfhw,cd->ndfhw", latents, weight[:-1]) + weight[-1].view(1, 3, 1, 1, 1)
    return torch.nn.functional.interpolate(colours, scale_factor=(1, scale, scale))


def test_a_linear_decoder_is_found_exactly():
    weight = torch.randn(17, 3) * 0.1
    latents = torch.randn(1, 16, 3, 12, 12)
    found = fit(latents, linear(latents, weight))
    assert (found.weight - weight).abs().max() < 0.02
    frames = found.frames(latents)
    assert frames.shape == (3, 12, 12, 3)
    assert frames.dtype == np.uint8


def test_what_the_samples_do_not_tell_stays_as_it_was():
    prior = RgbMap(torch.randn(17, 3))
    assert torch.allclose(
        fit(torch.zeros(1, 16, 1, 4, 4), linear(torch.zeros(1, 16, 1, 4, 4), prior.weight), prior).weight,
        prior.weight,
        atol=1e-4,
    )


def test_a_preview_shows_where_the_flow_leads_and_comes_once_a_second():
    clean, noise = torch.randn(1, 4, 2, 3, 3), torch.randn(1, 4, 2, 3, 3)
    rgb, heard, now = RgbMap(torch.randn(5, 3) * 0.2), [], [0.0]
    request = type("Request", (), {"frames": 5, "fps": 8})
    shown = Previewer(rgb, None, None, request, heard.append)
    shown._fitted = True
    for step, share in enumerate((0.9, 0.7, 0.5, 0.3)):
        now[0] = step * 0.4
        shown((1 - share) * clean + share * noise, share, lambda: now[0])
    assert len(heard) == 1  # of the steps at 0.4, 0.8 and 1.2 seconds; the first has nothing to compare with
    image = Image.open(io.BytesIO(heard[0].image))
    wanted = rgb.frames(clean)[0].astype(int)
    assert image.n_frames == 2
    assert np.abs(np.asarray(image.convert("RGB")).astype(int) - wanted).mean() < 40  # lossy


def test_long_previews_are_thinned_and_last_as_long():
    image = Image.open(io.BytesIO(animated(np.random.randint(0, 255, (81, 400, 500, 3), dtype=np.uint8), 5.0)))
    assert image.n_frames <= 32
    assert max(image.size) <= 320
    image.load()
    assert image.info["duration"] * image.n_frames == pytest.approx(5000, rel=0.1)


def test_an_engine_shows_the_video_it_is_making(tmp_path):
    heard = []
    with Engine(load_catalog(tmp_path)["nano_t2v"], listener=heard.append, previews=True) as engine:
        video = engine.generate(seed=7)
        previews = [row for row in heard if isinstance(row, Preview)]
        assert previews
        assert any(isinstance(row, Progress) for row in heard)
        rgb = engine._warm.vae.rgb
        close = refit(torch.zeros(1, 16, 5, 8, 8), video.frames, rgb)
        assert close.weight.shape == (17, 3)
    with Engine(load_catalog(tmp_path)["nano_t2v"]) as engine:
        assert (engine.generate(seed=7).frames == video.frames).all()  # looking changes nothing
    frame = np.asarray(Image.open(io.BytesIO(previews[0].image)).convert("RGB")).astype(int)
    corner, middle = frame[0, 0].sum(), frame[..., 0].max()
    assert corner < 160  # the ground is black
    assert middle > 120  # the circle is red


@pytest.mark.parametrize(
    "error", [torch.OutOfMemoryError("CUDA out of memory"), OSError("encoder error"), ValueError()]
)
def test_a_preview_that_fails_is_the_last_and_ends_nothing(monkeypatch, error):
    def fails(*_):
        raise error

    monkeypatch.setattr("reeltune.engine.preview.animated", fails)
    heard, latents = [], torch.randn(1, 4, 2, 3, 3)
    request = type("Request", (), {"frames": 5, "fps": 8})
    previewer = Previewer(RgbMap(torch.randn(5, 3)), None, None, request, heard.append)
    previewer._fitted = True
    for step in range(4):
        previewer(latents, 0.9 - 0.2 * step, lambda step=step: 10.0 * step)
    assert [type(event) for event in heard] == [Notice]
    assert "No further previews" in heard[0].message


def test_without_webp_a_preview_is_an_animated_png(monkeypatch):
    monkeypatch.setattr("reeltune.engine.preview.features.check", lambda name: False)
    image = Image.open(io.BytesIO(animated(np.random.randint(0, 255, (5, 32, 32, 3), dtype=np.uint8), 1.0)))
    assert (image.format, image.n_frames) == ("PNG", 5)
