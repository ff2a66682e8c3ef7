"""Videos with sound in a real Chromium: they are heard, at the right time, and silent until the user wants otherwise."""

import urllib.parse

import numpy as np
import pytest
from acting import generate, pick, quick, tab, wait_for

from reeltune.media.mp4 import write_mp4
from reeltune.media.sound import Sound
from serving import Server, Window, chromium, window
from sounding import FIRST, sounding

FPS, COUNT, CLICK = 16, 40, 24  # frames a second, frames, and the frame with the click

# Decodes a file with WebAudio, and with a video element that plays it to its end.
MEASURE = """async address => {
  const content = await (await fetch(address)).arrayBuffer();
  const sound = await new OfflineAudioContext(2, 48000, 48000).decodeAudioData(content);
  const samples = sound.getChannelData(0);
  const video = Object.assign(document.createElement('video'), { src: address, muted: true });
  await new Promise((resolve, reject) => { video.onended = resolve; video.onerror = reject; video.play(); });
  return {
    seconds: sound.duration, channels: sound.numberOfChannels, first: samples.findIndex(value => Math.abs(value) > 0.3) / sound.sampleRate,
    length: video.duration, bytes: video.webkitAudioDecodedByteCount, frames: video.webkitDecodedFrameCount,
  };
}"""
# Whether a player is muted and plays, has native controls, and shows the button for the sound.
STATE = """video => [
  video.muted, video.paused, video.controls, video.loop, video.parentElement.querySelector('[data-unmute]')?.checkVisibility() ?? null,
]"""


@pytest.fixture(scope="module")
def server(tmp_path_factory):
    """A server whose models make a tone with each video, and with videos that have a click."""
    root = tmp_path_factory.mktemp("web") / "root"
    (root / "outputs").mkdir(parents=True)
    frames = np.zeros((COUNT, 64, 64, 3), np.uint8)
    frames[CLICK] = 255
    metadata = {"definition": "nano_t2v", "settings": {"prompt": "a click"}}
    write_mp4(root / "outputs" / "silent.mp4", frames, FPS, metadata)
    for rate in (48_000, 24_000):
        samples = np.zeros((2, 5 * rate), np.float32)
        start = CLICK * rate // FPS
        samples[:, start : start + rate // 100] = 0.8 * np.sin(np.arange(rate // 100))
        write_mp4(root / "outputs" / f"click_{rate}.mp4", frames, FPS, metadata, sound=Sound(samples, rate))
    with pytest.MonkeyPatch.context() as monkeypatch:
        sounding(monkeypatch)
        running = Server(root)
        yield running.start()
        running.stop()


def address(path):
    return f"gradio_api/file={urllib.parse.quote(str(path))}"


def has_state(page, selector, state):
    """Wait until a player has a state."""
    page.wait_for_function(
        f"([selector, state]) => JSON.stringify(({STATE.strip()})(document.querySelector(selector))) === JSON.stringify(state)",
        arg=[selector, state],
    )


def plays(page, selector, *, muted):
    """Wait until a player plays, muted or with sound."""
    page.wait_for_function(
        "([selector, muted]) => { const v = document.querySelector(selector); return v && !v.paused && v.currentTime > 0 && v.muted === muted; }",
        arg=[selector, muted],
    )


@pytest.mark.parametrize("rate", [48_000, 24_000])
def test_a_browser_hears_the_click_with_its_frame(window, rate):
    page = window.open()
    measured = page.evaluate(MEASURE, address(window.server.root / "outputs" / f"click_{rate}.mp4"))
    frame, length = 1 / FPS, COUNT / FPS
    assert measured["channels"] == 2
    assert measured["first"] == pytest.approx(CLICK / FPS, abs=frame / 4)
    assert measured["seconds"] == pytest.approx(length, abs=frame)
    assert measured["length"] == pytest.approx(length, abs=frame)
    assert measured["bytes"] > 0
    assert measured["frames"] == COUNT


def test_the_gallery_tells_of_sound_and_plays_it_once_a_video_is_opened(window):
    page = window.open()
    tab(page, "Gallery")
    page.locator(".rt-card[data-name='click_48000.mp4']", has_text="with sound").wait_for()
    assert "with sound" not in page.locator(".rt-card[data-name='silent.mp4']").inner_text()
    page.locator(".rt-card[data-name='click_48000.mp4']").hover()
    plays(page, ".rt-card[data-name='click_48000.mp4'] video", muted=True)
    page.locator(".rt-card[data-name='click_48000.mp4']").click()
    page.locator("#film table", has_text="AAC, 48 kHz, stereo, 2.5 s").wait_for()
    plays(page, "#film video", muted=False)
    has_state(page, "#film video", [False, False, True, True, False])
    page.wait_for_function("() => document.querySelector('#film video').webkitAudioDecodedByteCount > 0")
    tab(page, "Make")  # what isn't shown isn't heard
    page.wait_for_function("() => document.querySelector('#film video').paused")
    tab(page, "Gallery")
    page.locator(".rt-card[data-name='silent.mp4']").click()
    page.locator("#film table", has_text="silent.mp4").wait_for()
    plays(page, "#film video", muted=True)
    has_state(page, "#film video", [True, False, True, True, None])


def test_a_browser_that_allows_no_sound_shows_the_video_muted_with_a_button(window):
    page = window.page
    page.add_init_script("""{
      const play = HTMLMediaElement.prototype.play;
      HTMLMediaElement.prototype.play = function () {
        if (this.muted || window.allowed) return play.call(this);
        this.pause();
        return Promise.reject(new DOMException('not allowed', 'NotAllowedError'));
      };
    }""")
    window.open()
    tab(page, "Gallery")
    page.locator(".rt-card[data-name='click_48000.mp4']").click()
    page.locator("#film table", has_text="click_48000.mp4").wait_for()
    plays(page, "#film video", muted=True)
    page.locator("#film [data-unmute]").wait_for()
    page.evaluate("() => { window.allowed = true; }")
    page.locator("#film [data-unmute]").click()
    plays(page, "#film video", muted=False)
    page.locator("#film [data-unmute]").wait_for(state="hidden")
    page.locator("#film video").evaluate("video => { video.muted = true; }")  # as its own controls do it
    page.locator("#film [data-unmute]").wait_for()


def test_a_new_video_plays_muted_until_its_button_is_pressed(window):
    page = window.open()
    pick(page, "nano_t2v")
    quick(page, "a red circle")
    job = generate(page)
    wait_for(page, job, "done")
    page.locator("#now .rt-stage video[data-sound]").wait_for()
    plays(page, "#now .rt-stage video", muted=True)
    has_state(page, "#now .rt-stage video", [True, False, True, True, True])
    page.locator("#now [data-unmute]").click()
    plays(page, "#now .rt-stage video", muted=False)
    page.locator("#now [data-unmute]").wait_for(state="hidden")
    page.evaluate(
        "() => document.querySelector('#now [data-unmute]').removeAttribute('hidden')"
    )  # as an update does it
    page.locator("#now [data-unmute]").wait_for(state="hidden")
    has_state(page, "#now .rt-stage video", [False, False, True, True, False])
    source = page.locator("#now .rt-stage video").get_attribute("src")
    measured = page.evaluate(MEASURE, source)
    fps = measured["frames"] / measured["length"]
    assert measured["first"] == pytest.approx(FIRST / fps, abs=1 / fps)
    assert measured["seconds"] == pytest.approx(measured["length"], abs=1 / fps)
