import json
import shutil
from importlib import resources
from pathlib import Path

import numpy as np
import pytest

from reeltune import CancelToken, Engine, Notice, Preferences, Progress, load_catalog
from reeltune.engine import latents
from reeltune.errors import (
    Cancelled,
    DecodeFailed,
    DeviceError,
    GenerationError,
    HeaderError,
    MediaError,
    NotRunnable,
    SettingsError,
    TensorMismatch,
)
from reeltune.events import Batch
from reeltune.media.mp4 import read_metadata
from reeltune.untrusted import clean_text

FAST = {"num_inference_steps": 2, "guidance_scale": 1.0}
NANO = Path(str(resources.files("reeltune"))) / "nano"


@pytest.fixture
def nano(root):
    return load_catalog(root)["nano_t2v"]


def make(definition, events=None, preferences=None, **settings):
    heard = events.append if events is not None else (lambda event: None)
    with Engine(definition, preferences=preferences, listener=heard) as engine:
        return engine.generate(**(FAST | {"seed": 3} | settings))


def test_a_video_with_its_story_inside(nano, tmp_path):
    events = []
    video = make(nano, events, prompt="a red circle moves right on a black background")
    assert video.frames.shape == (17, 64, 64, 3)
    assert (video.fps, video.frames.dtype) == (16, np.uint8)
    stored = read_metadata(video.save(tmp_path / "out.mp4"))
    assert stored["definition"] == "nano_t2v"
    assert stored["settings"]["seed"] == 3
    assert stored["files"]["transformer"]["name"] == "nano_t2v_quanto_bf16_int8.safetensors"
    stages = [event.stage for event in events if isinstance(event, Progress)]
    assert list(dict.fromkeys(stages)) == ["encode", "load", "denoise", "decode"]
    said = [event.message for event in events if isinstance(event, Notice)]
    assert "nano_t2v_quanto_bf16_int8.safetensors (quanto int8, runs in bf16, on disk)" in said[0]


def test_the_stored_settings_make_the_same_video_again(nano):
    video = make(nano, seed=-1)
    settings = dict(video.origin.settings)
    with Engine(nano) as engine:
        again = engine.generate(**settings)
        warm = engine.generate(**settings)
    assert np.array_equal(video.frames, again.frames)
    assert np.array_equal(video.frames, warm.frames)
    assert not np.array_equal(video.frames, make(nano, seed=settings["seed"] + 1).frames)


def test_guidance_negative_prompt_and_solvers_matter(nano):
    plain = make(nano).frames
    for change in ({"guidance_scale": 4.0}, {"sample_solver": "euler"}, {"sample_solver": "dpm++"}, {"flow_shift": 9}):
        assert not np.array_equal(plain, make(nano, **change).frames), change
    guided = make(nano, guidance_scale=4.0).frames
    assert not np.array_equal(guided, make(nano, guidance_scale=4.0, negative_prompt="blue square").frames)


def test_versions_by_preference(nano):
    for quantization, name in (
        ("bf16", "nano_t2v_bf16.safetensors"),
        ("int8", "nano_t2v_quanto_bf16_int8.safetensors"),
    ):
        video = make(nano, preferences=Preferences(quantization=quantization))
        assert video.origin.files["transformer"][0] == name
    fp16 = make(nano, preferences=Preferences(quantization="bf16", dtype="fp16"))
    assert fp16.frames.shape == (17, 64, 64, 3)


def test_sizes_are_rounded_aloud_and_unused_settings_named_once(nano):
    events = []
    video = make(nano, events, resolution="70x50", video_length=6, batch_size=2)
    assert video.frames.shape == (5, 48, 64, 3)
    said = [event.message for event in events if isinstance(event, Notice)]
    assert sum("70x50 becomes 64x48" in line for line in said) == 1
    assert sum("6 frames become 5" in line for line in said) == 1
    assert sum("does not use: batch_size=2" in line for line in said) == 1


def test_several_videos(nano):
    events = []
    with Engine(nano, listener=events.append) as engine:
        videos = list(engine.generate_each("a\nb", repeat_generation=2, seed=5, video_length=1, **FAST))
        assert [(v.origin.settings["prompt"], v.origin.settings["seed"]) for v in videos] == [
            ("a", 5), ("a", 6), ("b", 5), ("b", 6)
        ]  # fmt: skip
        assert [event for event in events if isinstance(event, Batch)] == [Batch(number, 4) for number in (1, 2, 3, 4)]
        events.clear()
        list(engine.generate_each("a\nb", skip=1, seed=5, video_length=1, **FAST))
        assert [event for event in events if isinstance(event, Batch)] == [Batch(2, 2)]
        engine.generate("a\nb", video_length=1, **FAST)
        paths = {engine.output_path(videos[0]) for _ in range(3)}
    assert len(paths) == 3
    assert any("ask for 2 videos" in getattr(event, "message", "") for event in events)


def test_cancel_between_steps_leaves_the_engine_usable(nano):
    cancel = CancelToken()

    def stop(event):
        if event == Progress("denoise", 1, 2):
            cancel.cancel()

    with Engine(nano, listener=stop) as engine:
        with pytest.raises(Cancelled):
            engine.generate(cancel=cancel, seed=3, **FAST)
        assert engine.generate(seed=3, video_length=5, **FAST).frames.shape[0] == 5


def test_latents_survive_a_failed_decode(nano, monkeypatch):
    whole = make(nano)
    with Engine(nano) as engine:
        with monkeypatch.context() as broken:
            broken.setattr("reeltune.engine.vae.decode", lambda *_: 1 / 0)
            with pytest.raises(DecodeFailed) as caught:
                engine.generate(seed=3, **FAST)
        assert caught.value.latents.is_file()
        video = engine.decode(caught.value.latents)
        assert np.array_equal(video.frames, whole.frames)
        assert video.origin.settings == whole.origin.settings
        with pytest.raises(MediaError):
            engine.decode(NANO / "nano_t2v_bf16.safetensors")


@pytest.mark.parametrize("prompt", ["a red \ud800 circle", "\udcff a red circle \udcff"])
def test_a_prompt_that_is_no_valid_text_costs_nothing(nano, tmp_path, monkeypatch, prompt):
    with Engine(nano) as engine:
        video = engine.generate(prompt=prompt, seed=3, **FAST)
        path = video.save(tmp_path / "x.mp4")
        assert read_metadata(path)["settings"]["prompt"] == clean_text(prompt)
        assert not list((nano.root / "outputs" / "latents").iterdir())
        monkeypatch.setattr("reeltune.engine.vae.decode", lambda *_: 1 / 0)
        with pytest.raises(DecodeFailed) as caught:
            engine.generate(prompt=prompt, seed=3, **FAST)
        monkeypatch.undo()
        again = engine.decode(caught.value.latents)
        assert np.array_equal(again.frames, video.frames)
        again.save(tmp_path / "again.mp4")
    assert read_metadata(tmp_path / "again.mp4")["settings"]["prompt"] == clean_text(prompt)


def test_latents_that_cannot_be_kept_or_read_leave_nothing_and_are_named(tmp_path):
    import torch
    from safetensors.torch import save_file

    tensor = torch.zeros(1, 16, 2, 4, 4)
    with pytest.raises(MediaError, match="can't be written"):
        latents.store(tensor, {"seed": 1, ("a", "b"): 2}, "x", tmp_path)
    assert not list(tmp_path.iterdir())
    path = latents.store(tensor, {"seed": 1, "prompt": "\ud800"}, "caf\udce9", tmp_path)
    (tmp_path / "new").touch()
    assert path.stat().st_mode == (tmp_path / "new").stat().st_mode  # as that of any new file
    kept = latents.read(path)
    assert (kept.settings["prompt"], kept.definition) == ("\ufffd", "caf\ufffd")
    for settings in ("[1]", "{", "[" * 9000, "{}", None):
        metadata = {} if settings is None else {"settings": settings}
        save_file({"latents": tensor}, tmp_path / "odd.safetensors", metadata)
        if settings == "{}":
            assert latents.read(tmp_path / "odd.safetensors").settings == {}
            continue
        with pytest.raises(MediaError, match="no latents of this program"):
            latents.read(tmp_path / "odd.safetensors")
    save_file({"latents": tensor * float("nan")}, tmp_path / "odd.safetensors", {"settings": "{}"})
    with pytest.raises(MediaError, match="not finite"):
        latents.read(tmp_path / "odd.safetensors")


def test_devices_are_pinned(nano):
    with pytest.raises(DeviceError, match="cuda:7"):
        make(nano, preferences=Preferences(device="cuda:7"))


def test_bad_calls(root, nano, define):
    with pytest.raises(SettingsError, match="num_inference_steps"):
        make(nano, num_inference_step=3)
    define("styled", {"architecture": "t2v", "URLs": ["https://h/x.safetensors"], "modules": ["vace_14B"]})
    with pytest.raises(NotRunnable, match="merges modules"):
        Engine(load_catalog(root)["styled"])


def test_a_finetune_of_ones_own_files_and_components(root, define):
    """The path of a 14B finetune: a definition, a file in ckpts/ with a prefix in its names, quantized on load."""
    import torch
    from safetensors.torch import load_file, save_file

    weights = load_file(NANO / "nano_t2v_bf16.safetensors")
    (root / "ckpts").mkdir()
    config = json.dumps({"num_attention_heads": 6})
    prefixed = {f"model.diffusion_model.{name}": tensor.to(torch.float16) for name, tensor in weights.items()}
    save_file(prefixed, root / "ckpts" / "mine_fp16.safetensors", {"config": config})
    shutil.copytree(NANO / "reeltune--nano", root / "parts")
    define(
        "mine",
        {
            "architecture": "t2v",
            "URLs": ["https://h/mine_fp16.safetensors"],
            "auto_quantize": True,
            "components": "parts",
        },
        resolution="64x64",
        video_length=5,
    )
    events = []
    video = make(load_catalog(root)["mine"], events)
    assert video.frames.shape == (5, 64, 64, 3)
    said = " ".join(event.message for event in events if isinstance(event, Notice))
    assert "quantized to int8 while loading" in said
    assert "converted from fp16" in said


def test_files_that_do_not_fit_are_refused_before_loading(root, define):
    from safetensors.torch import load_file, save_file

    weights = load_file(NANO / "nano_t2v_bf16.safetensors")
    del weights["blocks.1.ffn.0.weight"]
    (root / "ckpts").mkdir()
    save_file(weights, root / "ckpts" / "mine_bf16.safetensors", {"config": json.dumps({"num_attention_heads": 6})})
    define("mine", {"architecture": "t2v", "URLs": ["ckpts/mine_bf16.safetensors"], "components": "reeltune/nano"})
    with pytest.raises(TensorMismatch, match=r"blocks\.1\.ffn"):
        make(load_catalog(root)["mine"], resolution="64x64", video_length=5)


@pytest.mark.parametrize("damage", ["cut", "lacking"])
def test_broken_components_are_named(root, define, damage):
    from safetensors.torch import load_file, save_file

    shutil.copytree(NANO / "reeltune--nano", root / "parts")
    path = root / "parts" / "text_encoder" / "model.safetensors"
    if damage == "cut":
        path.write_bytes(path.read_bytes()[:-9])
    else:
        weights = load_file(path)
        weights.pop("encoder.final_layer_norm.weight")
        save_file(weights, path, {"format": "pt"})
    define("mine", {"architecture": "t2v", "URLs": ["ckpts/nano_t2v_bf16.safetensors"], "components": "parts"})
    with pytest.raises(HeaderError if damage == "cut" else GenerationError, match="text_encoder"):
        make(load_catalog(root)["mine"], resolution="64x64", video_length=5)
