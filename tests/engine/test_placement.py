"""Wherever the weights are, and whatever runs out meanwhile: the same video."""

import shutil
import subprocess
import sys

import numpy as np
import pytest
import torch

from reeltune import Engine, Notice, Preferences, load_catalog
from reeltune.engine import placement
from reeltune.errors import DecodeFailed, NotEnoughMemory
from reeltune.media.mp4 import read_frames, read_metadata
from reeltune.preferences import PROFILES

FAST = {"num_inference_steps": 4, "guidance_scale": 3.0, "seed": 3}


@pytest.fixture
def nano(root):
    return load_catalog(root)["nano_t2v"]


@pytest.fixture
def whole(nano):
    with Engine(nano) as engine:
        return engine.generate(**FAST).frames


def heard(events):
    return [event.message for event in events if isinstance(event, Notice)]


@pytest.mark.parametrize("quantization", ["int8", "bf16"])
@pytest.mark.parametrize("profile", PROFILES)
def test_every_profile_makes_the_same_frames(nano, profile, quantization):
    frames = []
    for name in ("resident", profile):
        wish = Preferences(memory_profile=name, quantization=quantization)
        with Engine(nano, preferences=wish) as engine:
            frames += [engine.generate(**FAST).frames, engine.generate(**FAST).frames]
    assert all(np.array_equal(frames[0], other) for other in frames[1:])


def running_out(monkeypatch, times, call):
    """The `call`-th forward pass, and those after it, run out of memory until it has happened `times` times."""
    passes, failures = [], []
    plain = placement.Placed.__init__

    def init(self, model, *rest):
        plain(self, model, *rest)
        forward = model.forward

        def failing(*inputs, **options):
            passes.append(self.profile)
            if len(passes) >= call and len(failures) < times:
                failures.append(self.profile)
                raise torch.OutOfMemoryError("CUDA out of memory")
            return forward(*inputs, **options)

        placed_forward = failing
        self.model.forward = placed_forward

    monkeypatch.setattr(placement.Placed, "__init__", init)
    return failures


@pytest.mark.parametrize("call", [1, 4, 8])
@pytest.mark.parametrize("times", [1, 2, 3])
def test_out_of_memory_goes_on_one_profile_lower(nano, whole, monkeypatch, times, call):
    failures, events = running_out(monkeypatch, times, call), []
    with Engine(nano, preferences=Preferences(memory_profile="resident"), listener=events.append) as engine:
        video = engine.generate(**FAST)
    assert failures == list(PROFILES[:times])
    assert np.array_equal(video.frames, whole)
    assert f"cpu ran out of memory: going on with the memory profile {PROFILES[times]}." in heard(events)


def test_where_nothing_is_lower_it_is_said(nano, monkeypatch):
    running_out(monkeypatch, 9, 1)
    with Engine(nano) as engine, pytest.raises(NotEnoughMemory, match="too little memory for a single layer"):
        engine.generate(**FAST)


@pytest.mark.parametrize("times", [1, 2])
def test_out_of_memory_while_decoding(nano, whole, monkeypatch, times):
    from reeltune.engine import engine as module

    decode, failures, events = module.decode, [], []

    def failing(*arguments):
        if len(failures) < times:
            failures.append(True)
            raise torch.OutOfMemoryError("CUDA out of memory")
        return decode(*arguments)

    monkeypatch.setattr(module, "decode", failing)
    with Engine(nano, listener=events.append) as engine:
        assert np.array_equal(engine.generate(**FAST).frames, whole)
        assert len([line for line in heard(events) if line.startswith("Decoding ran out of memory")]) == times
        failures[:] = []
        times = 9
        with pytest.raises(DecodeFailed):
            engine.generate(**FAST)


def test_latents_are_kept_until_the_video_is_written(nano, root, tmp_path):
    folder = root / "outputs" / "latents"
    with Engine(nano) as engine:
        video = engine.generate(**FAST)
        assert [video.latents] == list(folder.iterdir())
        video.save(tmp_path / "out.mp4")
        assert list(folder.iterdir()) == []
        dropped = engine.generate(**FAST)
        assert len(list(folder.iterdir())) == 1
        del dropped
        assert list(folder.iterdir()) == []


KILLED = """
import os, signal, sys
from reeltune import Engine, Progress, load_catalog
def listen(event):
    if isinstance(event, Progress) and event.stage == "decode":
        os.kill(os.getpid(), signal.SIGKILL)
with Engine(load_catalog(sys.argv[1])["nano_t2v"], listener=listen) as engine:
    engine.generate(num_inference_steps=4, guidance_scale=3.0, seed=3)
"""


@pytest.mark.skipif(sys.platform == "win32", reason="no SIGKILL there")
def test_after_kill_minus_nine_decode_makes_the_same_video(root, whole, tmp_path):
    answer = subprocess.run([sys.executable, "-c", KILLED, str(root)], check=False, capture_output=True)
    assert answer.returncode == -9, answer.stderr
    [latents] = (root / "outputs" / "latents").iterdir()
    with Engine(load_catalog(root)["nano_t2v"]) as engine:
        decoded = engine.decode(shutil.copy(latents, tmp_path / "copy.safetensors"))
    assert np.array_equal(decoded.frames, whole)
    out = tmp_path / "out.mp4"
    command = [sys.executable, "-m", "reeltune", "decode", str(latents), "-o", str(out), "--root", str(root)]
    subprocess.run(command, check=True, capture_output=True)
    assert not latents.exists()
    error = np.square(read_frames(out).astype(float) - whole).mean()
    assert 10 * np.log10(255**2 / error) > 30  # what H.264 leaves of it
    assert read_metadata(out)["settings"] == dict(decoded.origin.settings)


def test_the_text_is_embedded_once_for_each_prompt(nano):
    from reeltune.engine import engine as module

    calls, encode = [], module.encode
    try:
        module.encode = lambda *arguments: calls.append(1) or encode(*arguments)
        with Engine(nano) as engine:
            one = engine.generate(**FAST)
            two = engine.generate(**FAST)
            engine.generate("a blue square moves left on a white background", **FAST)
    finally:
        module.encode = encode
    assert len(calls) == 2
    assert np.array_equal(one.frames, two.frames)
