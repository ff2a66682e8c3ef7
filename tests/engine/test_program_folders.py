"""Every component of every family is used in the folders of other programs: the same video, without a download."""

import socket
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import tiny_parts
from PIL import Image
from program_folders import models_of, write_comfyui, write_diffusers, write_hub_cache, write_wangp

import wangp
from reeltune import Engine, Notice, Preferences, explain, load_catalog
from reeltune.families import ARCHITECTURES
from reeltune.planning import components

FAST = {"num_inference_steps": 2, "resolution": "32x32", "video_length": 5, "seed": 3, "prompt": "a cat walks"}
LARGER = {"resolution": "64x64", "video_length": 9}
CASES = {"t2v": {}, "i2v": {"image_start": "start.png"}, "ti2v_2_2": {}, "hunyuan": {},
         "hunyuan_i2v": {"image_start": "start.png"}, "ltxv_13B": LARGER,
         "hunyuan_1_5_t2v": {"prompt": 'a sign that says "cat"'}, "hunyuan_1_5_i2v": {"image_start": "start.png"},
         "k5_lite_t2v": {}}  # fmt: skip
PREFERENCES = {"quantization": "bf16", "text_encoder_quantization": "bf16"}


@pytest.fixture
def no_sockets(monkeypatch):
    """Any connection fails the test."""

    def refuse(*args, **kwargs):
        raise AssertionError("a connection was opened")

    monkeypatch.setattr(socket.socket, "connect", refuse)
    monkeypatch.setattr(socket, "create_connection", refuse)
    monkeypatch.setattr(socket, "getaddrinfo", refuse)


def make_definition(root, define, architecture):
    weights = "hunyuan_i2v_token" if architecture == "hunyuan_i2v" else architecture
    lists = tiny_parts.transformer_files(root / "weights", weights)
    define("mine", {"architecture": architecture, **lists})
    Image.fromarray(np.random.default_rng(0).integers(0, 255, (40, 64, 3), dtype=np.uint8)).save(root / "start.png")
    return load_catalog(root)["mine"]


def urls_of(definition):
    return [version.url for version in definition.slots["transformer"]]


def make(definition, preferences, settings):
    notices = []

    def listen(event):
        if isinstance(event, Notice):
            notices.append(event.message)

    with Engine(definition, preferences=preferences, listener=listen) as engine:
        return engine.generate(**FAST | settings).frames, notices


def snapshot(folder):
    """Every file with its time and size: nothing may be written or moved."""
    return {path: (path.lstat().st_mtime_ns, path.lstat().st_size) for path in sorted(folder.rglob("*"))}


WRITERS = {
    "WanGP": (write_wangp, "Wan2GP/ckpts"),
    "ComfyUI": (write_comfyui, "ComfyUI"),
    "Hub": (write_hub_cache, "hub"),
}


@pytest.mark.parametrize("program", WRITERS)
@pytest.mark.parametrize("architecture", CASES)
def test_the_same_video_from_every_folder(architecture, program, root, define, tmp_path, monkeypatch, no_sockets):
    definition = make_definition(root, define, architecture)
    models = models_of(architecture)
    write, name = WRITERS[program]
    folder = write(models, tmp_path / name, architecture)
    if program == "Hub":
        monkeypatch.setenv("HF_HUB_CACHE", str(folder))
        preferences = Preferences(**PREFERENCES)
    else:
        preferences = Preferences(**PREFERENCES, model_folders=(str(folder),))
    before = snapshot(tmp_path / name.split("/")[0])
    plan = explain(definition, preferences)
    assert not plan.missing, [item.subject for item in plan.missing]
    items = [item for item in plan.items if item.component]
    assert {item.subject for item in items} == {row.name for row in ARCHITECTURES[architecture].parts}
    assert all(item.in_place and path.is_relative_to(tmp_path) for item in items for path in item.paths)
    assert plan.bytes_in_place >= sum(item.bytes for item in items) > 0
    assert not any("is not used" in notice for notice in plan.notices), plan.notices
    frames, notices = make(definition, preferences, CASES[architecture])
    assert not any("is not used" in notice for notice in notices), notices
    assert snapshot(tmp_path / name.split("/")[0]) == before
    monkeypatch.setenv("HF_HUB_CACHE", str(tmp_path / "empty"))
    write_diffusers(models, root / "diffusers", architecture)
    define("reference", {"architecture": architecture, "URLs": urls_of(definition), "components": "diffusers"})
    reference, _ = make(load_catalog(root)["reference"], Preferences(**PREFERENCES), CASES[architecture])
    assert frames.std() > 0
    # LTX Video's convolutions depend on how weights are aligned in memory, which is mapped from files
    assert np.abs(frames.astype(int) - reference.astype(int)).max() <= (architecture == "ltxv_13B")


def test_components_that_the_definition_lists(root, define, monkeypatch, no_sockets):
    """A text encoder and a VAE from single files, in 16 bits and as int8 while loading."""
    definition = make_definition(root, define, "t2v")
    models = models_of("t2v")
    write_diffusers(models, root / "diffusers", "t2v")
    own = {
        "text_encoder_URLs": [
            str(wangp.write(root / "t_bf16.safetensors", wangp.umt5(models["text_encoder"].state_dict())))
        ],
        "VAE_URLs": [str(wangp.write(root / "v.safetensors", wangp.wan_vae(models["vae"].state_dict())))],
    }
    listed = {"architecture": "t2v", "URLs": urls_of(definition)}
    models_of("i2v")["tokenizer"].save_pretrained(root / "ckpts" / "umt5-xxl")
    define("own", listed | own | {"text_encoder_folder": "umt5-xxl"})
    define("reference", listed | {"components": "diffusers"})
    catalog = load_catalog(root)
    plan = explain(catalog["own"], Preferences(**PREFERENCES))
    assert not plan.missing
    assert {item.path.name for item in plan.items if item.component} == {
        "t_bf16.safetensors",
        "v.safetensors",
        "umt5-xxl",
    }
    frames, notices = make(catalog["own"], Preferences(**PREFERENCES), {})
    assert np.array_equal(frames, make(catalog["reference"], Preferences(**PREFERENCES), {})[0])
    assert any(notice.startswith("vae: v.safetensors (16 bits") for notice in notices)
    monkeypatch.setattr(components, "SMALLEST_QUANTIZED", 1)
    for id in ("own", "reference"):
        assert explain(catalog[id], Preferences(quantization="bf16")).item("text_encoder").quantize
        quantized, notices = make(catalog[id], Preferences(quantization="bf16"), {})
        assert 0 < np.abs(quantized.astype(int) - frames.astype(int)).mean() < 4
        assert not any("stays in 16 bits" in notice for notice in notices)


NAMES = {
    "t2v": ("wan2.1_t2v_14B_fp16",), "t2v_1.3B": ("wan2.1_t2v_1.3B_bf16",), "i2v": ("wan2.1_i2v_480p_14B_fp8_scaled",),
    "flf2v_720p": ("wan2.1_flf2v_720p_14B_fp16",), "ti2v_2_2": ("wan2.2_ti2v_5B_fp16",),
    "t2v_2_2": ("wan2.2_t2v_high_noise_14B_fp16", "wan2.2_t2v_low_noise_14B_fp8_scaled"),
    "i2v_2_2": ("wan2.2_i2v_high_noise_14B_fp16", "wan2.2_i2v_low_noise_14B_fp16"),
    "hunyuan": ("hunyuan_video_t2v_720p_bf16",), "hunyuan_i2v": ("hunyuan_video_v2_replace_image_to_video_720p_bf16",),
}  # fmt: skip


@pytest.mark.parametrize("architecture", NAMES)
def test_built_in_models_need_nothing_but_a_folder_of_comfyui(architecture, root, tmp_path, no_sockets):
    home = write_comfyui(
        models_of("i2v" if architecture == "flf2v_720p" else architecture), tmp_path / "ComfyUI",
        "i2v" if architecture == "flf2v_720p" else architecture,
    )  # fmt: skip
    weights = "hunyuan_i2v_token" if architecture == "hunyuan_i2v" else architecture
    lists = tiny_parts.transformer_files(tmp_path / "made", weights)
    for name, key in zip(NAMES[architecture], ("URLs", "URLs2"), strict=False):
        path = home / "models" / "diffusion_models" / "sub" / f"{name}.safetensors"
        path.parent.mkdir(parents=True, exist_ok=True)
        Path(lists[key][0]).rename(path)
    definition = load_catalog(root)[architecture]
    preferences = Preferences(**PREFERENCES, model_folders=(str(home),))
    plan = explain(replace(definition, preload=()), preferences)
    assert not plan.missing, [item.subject for item in plan.missing]
    assert all(path.is_relative_to(tmp_path) for item in plan.items for path in item.paths)
    assert sum("is the same published model as" in notice for notice in plan.notices) == len(NAMES[architecture])
    if architecture == "t2v_2_2":
        frames, _ = make(definition, preferences, {"num_inference_steps": 4})
        assert frames.std() > 0
