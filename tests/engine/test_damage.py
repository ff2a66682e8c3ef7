"""Weights that are damaged, and videos that no memory holds: errors that name the file, never a black video."""

import json
import os
import random
from importlib import resources
from pathlib import Path

import pytest
import torch
from cases import write_case
from safetensors import safe_open
from safetensors.torch import load_file, save_file

from reeltune import Engine, Preferences, load_catalog
from reeltune.engine import finite
from reeltune.errors import DecodeFailed, MediaError, NotEnoughMemory, NotFinite
from reeltune.events import FilesUsed
from reeltune.machine import Machine

NANO = Path(str(resources.files("reeltune"))) / "nano"
FAST = {"num_inference_steps": 2, "guidance_scale": 1.0, "seed": 3, "video_length": 5}
BF16 = Preferences(quantization="bf16")


def own(root, name, change):
    """nano with weights of its own, changed; its definition."""
    source = NANO / f"{name}.safetensors"
    state = load_file(source)
    change(state)
    with safe_open(source, "pt") as file:
        metadata = file.metadata()
    (root / "ckpts").mkdir(exist_ok=True)
    save_file(state, root / "ckpts" / f"own_{name}.safetensors", metadata)
    model = {
        "name": "Own",
        "architecture": "t2v_1.3B",
        "URLs": [f"ckpts/own_{name}.safetensors"],
        "components": "reeltune/nano",
    }
    (root / "finetunes" / "own.json").write_text(json.dumps({"resolution": "64x64", "model": model}))
    return load_catalog(root)["own"]


def nan_in_the_head(state):
    state["head.head.weight"][0, 0] = float("nan")


def infinity_in_a_norm(state):
    state["blocks.0.self_attn.norm_q.weight"][3] = float("inf")


def flipped_bits(state):
    rng = random.Random(1)
    names = [name for name, row in state.items() if row.dtype == torch.bfloat16 and row.ndim == 2]
    for _ in range(100):  # the exponent's highest bit
        values = state[rng.choice(names)].view(torch.int16).view(-1)
        values[rng.randrange(len(values))] ^= 0x4000


@pytest.mark.parametrize("change", [nan_in_the_head, infinity_in_a_norm, flipped_bits])
def test_damaged_weights_are_named_after_the_first_step(root, change):
    steps = []
    definition = own(root, "nano_t2v_bf16", change)
    words = r"own_nano_t2v_bf16\.safetensors are damaged"
    with (
        Engine(definition, preferences=BF16, listener=lambda event: steps.append(getattr(event, "done", 0))) as engine,
        pytest.raises(NotFinite, match=words) as caught,
    ):
        engine.generate("a red circle", **FAST | {"num_inference_steps": 6})
    assert "`reeltune verify own`" in caught.value.hint
    assert [path.name for path in caught.value.files] == ["own_nano_t2v_bf16.safetensors"]
    assert 2 not in steps[-3:]
    assert not (root / "outputs").exists()


@pytest.mark.parametrize("part", ["text_encoder", "vae"])
def test_damaged_components_are_named(root, tmp_path, part):
    import shutil

    components = tmp_path / "components"
    shutil.copytree(NANO / "reeltune--nano", components)
    (path,) = (components / part).glob("*.safetensors")
    state = load_file(path)
    name = next(name for name in sorted(state) if state[name].ndim == 1 and ("decoder" in name) == (part == "vae"))
    state[name][0] = float("nan")
    save_file(state, path, {"format": "pt"})
    model = {"name": "Own", "architecture": "t2v_1.3B", "URLs": "nano_t2v", "components": str(components)}
    (root / "finetunes" / "own.json").write_text(json.dumps({"resolution": "64x64", "model": model}))
    with Engine(load_catalog(root)["own"], preferences=BF16) as engine:
        error = DecodeFailed if part == "vae" else NotFinite
        with pytest.raises(error, match=f"{part}.* damaged") as caught:
            engine.generate("a red circle", **FAST)
    assert "`reeltune verify own`" in caught.value.hint
    if part == "vae":
        assert caught.value.latents.is_file()


def test_fp16_may_be_what_is_too_small():
    with pytest.raises(NotFinite, match="--dtype bf16"):
        finite.check_finite(torch.tensor([float("inf")]), "The latents", [Path("x.safetensors")], "x", "fp16")


# --- memory ---------------------------------------------------------------------------------------------------


def test_a_video_no_memory_holds_is_refused_before_anything_is_loaded(root, monkeypatch):
    monkeypatch.setattr("reeltune.engine.engine.read_inputs", None)
    monkeypatch.setattr("reeltune.engine.ready.pull", None)
    with (
        Engine(load_catalog(root)["nano_t2v"], machine=Machine(ram=10**6, ram_free=10**6)) as engine,
        pytest.raises(NotEnoughMemory, match="17 frames of 64x64 take") as caught,
    ):
        engine.generate("a red circle", seed=1)
    assert caught.value.needed == 17 * 64 * 64 * 15
    assert caught.value.available == 10**6


@pytest.mark.parametrize("stage", ["engine.read_inputs", "run.encode", "run.denoise"])
def test_what_the_allocator_cannot_serve_is_an_error_in_words(root, monkeypatch, stage):
    def full(*_, **__):
        if stage == "engine.read_inputs":
            raise MemoryError
        torch.empty(2**55)

    monkeypatch.setattr(f"reeltune.engine.{stage}", full)
    with Engine(load_catalog(root)["nano_t2v"], preferences=BF16) as engine, pytest.raises(NotEnoughMemory):
        engine.generate("a red circle", **FAST)


# --- what is kept, and what is known --------------------------------------------------------------------------


def test_latents_stay_where_no_name_can_be_had_for_the_video(root, monkeypatch):
    def full(*_):
        raise MediaError("Nothing can be written.")

    with Engine(load_catalog(root)["nano_t2v"], preferences=BF16) as engine:
        video = engine.generate("a red circle", **FAST)
        monkeypatch.setattr("reeltune.engine.outputs.free_name", full)
        with pytest.raises(MediaError):
            engine.output_path(video)
        latents = video.latents
        del video
        assert latents.is_file()


def test_the_files_in_use_are_reported_before_they_are_loaded(root, define, parts):
    events = []
    definition, settings = write_case("vace_14B", root, define, parts)
    with Engine(definition, preferences=BF16, listener=events.append) as engine:
        engine.generate(**settings)
    using = next(event for event in events if isinstance(event, FilesUsed))
    for file in using.files:
        assert Path(file.path).stat().st_size == file.bytes
    names = {
        Path(file.path).parent.name if file.path.endswith("config.json") else Path(file.path).suffix
        for file in using.files
    }
    assert {"vae", "text_encoder", ".safetensors"} <= names
    assert events.index(using) < next(
        index for index, event in enumerate(events) if getattr(event, "stage", "") == "encode"
    )
    assert os.fspath(root)
