"""Videos from files in fp8 and scaled int8: the same as from decoded weights, under every memory profile."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from cases import write_case
from safetensors.torch import load_file, save_file
from test_lora_videos import write_lora

from reeltune import Engine, Preferences, explain, load_catalog
from reeltune.checkpoints.header import read_header
from reeltune.engine.speed import dynamic_fp8
from reeltune.errors import ChoiceError
from reeltune.events import Notice
from reeltune.library.inventory import PACKAGE_FILES
from reeltune.machine import Gpu, Machine, probe
from reeltune.planning.estimate import estimate
from reeltune.planning.memory import MemoryProfile
from reeltune.weights._libraries import is_fp8, is_int8
from reeltune.weights.quantize import quantize

NANO = {"num_inference_steps": 3, "resolution": "32x32", "video_length": 5, "seed": 3, "prompt": "a red circle"}
FILE = PACKAGE_FILES / "nano_t2v_bf16.safetensors"


@pytest.fixture
def definition(root, define):
    """Nano, of which only a version in scaled fp8 is listed."""
    path = root / "ckpts" / "nano_fp8_e4m3fn_scaled.safetensors"
    path.parent.mkdir(exist_ok=True)
    quantize(FILE, path, to="fp8", scales="row")
    return nano_of(root, define, path)


def nano_of(root, define, path):
    define("mine", {"architecture": "t2v_1.3B", "components": "reeltune/nano", "URLs": [f"ckpts/{path.name}"]})
    return load_catalog(root)["mine"]


def frames(definition, events=None, models=None, settings=None, **wishes):
    heard = events.append if events is not None else (lambda event: None)
    with Engine(definition, preferences=Preferences(**wishes), listener=heard) as engine:
        video = engine.generate(**NANO | (settings or {}))
        if models is not None:
            models += [loaded.model for loaded in engine._warm.models._loaded.values()]
        return video.frames


def test_fp8_stays_fp8_and_makes_the_video_of_decoded_weights(definition):
    models, events = [], []
    kept = frames(definition, events, models)
    assert any(is_fp8(parameter) for parameter in models[0].parameters())
    assert not any(is_int8(parameter) for parameter in models[0].parameters())
    heard = [event.message for event in events if isinstance(event, Notice)]
    assert any("scaled fp8, no usable int8 version is listed, its weights stay in 8 bits" in text for text in heard)
    assert np.array_equal(kept, frames(definition, quantization="bf16"))
    assert np.array_equal(kept, frames(definition, quantization="fp8"))


@pytest.mark.parametrize("scales", ["row", "tensor", "none"])
@pytest.mark.parametrize(
    "name", ["lucy_edit", "sky_df_1.3B", "animate, replaced", "chrono_edit", "hunyuan_1_5_t2v", "hunyuan_1_5_i2v_step",
             "k5_lite_t2v", "k5_pro_i2v"],
)  # fmt: skip
def test_fp8_of_each_family_makes_the_video_of_decoded_weights(name, scales, root, define, parts):
    definition, settings = write_case(name, root, define, parts)
    ((slot, (version,)),) = definition.slots.items()
    word = "fp8_e4m3fn" if scales == "none" else "fp8_e4m3fn_scaled"
    path = quantize(Path(version.url), root / "ckpts" / f"x_{word}.safetensors", to="fp8", scales=scales).path
    in_fp8 = replace(definition, slots={slot: [replace(version, url=str(path))]})
    models = []
    kept = frames(in_fp8, models=models, settings=settings)
    assert sum(is_fp8(parameter) for parameter in models[0].parameters()) >= 8
    assert np.array_equal(kept, frames(in_fp8, settings=settings, quantization="bf16"))
    assert not np.array_equal(kept, frames(definition, settings=settings, quantization="bf16"))


def test_every_memory_profile_with_loras_and_the_step_cache(root, definition):
    write_lora(root / "loras" / definition.architecture.loras / "style.safetensors", [FILE])
    for settings in (
        {"activated_loras": ["style.safetensors"], "loras_multipliers": "0.5"},
        {"skip_steps_cache_type": "tea", "skip_steps_multiplier": 2, "num_inference_steps": 6},
    ):
        reference = frames(definition, settings=settings, quantization="bf16")
        assert not np.array_equal(reference, frames(definition))
        for profile in MemoryProfile:
            found = frames(definition, settings=settings, memory_profile=profile)
            assert np.array_equal(found, reference), (profile, settings)


def test_loras_are_not_merged_into_weights_that_stay_fp8(root, definition):
    write_lora(root / "loras" / definition.architecture.loras / "style.safetensors", [FILE])
    events = []
    settings = {"activated_loras": ["style.safetensors"], "loras_multipliers": "0.5"}
    beside = frames(definition, events, settings=settings, merge_loras=True)
    assert any("aren't merged" in event.message for event in events if isinstance(event, Notice))
    assert np.array_equal(beside, frames(definition, settings=settings))


def test_products_in_fp8_make_nearly_the_same_video(definition, monkeypatch):
    """On a CPU torch computes what a card does, though slowly."""
    exact = frames(definition).astype(int)
    monkeypatch.setattr("reeltune.engine.speed.computes_fp8", lambda device: True)
    layers = []
    monkeypatch.setattr(
        "reeltune.engine.speed.dynamic_fp8", lambda *arguments: layers.append(dynamic_fp8(*arguments)) or layers[-1]
    )
    models = []
    found = frames(definition, models=models).astype(int)
    assert layers[0] > 0
    assert 0 < np.abs(found - exact).mean() < 12
    for profile in tuple(MemoryProfile)[1:]:
        assert np.array_equal(frames(definition, memory_profile=profile).astype(int), found), profile
    assert np.array_equal(frames(definition, fp8="weights").astype(int), exact)


def test_the_plan_knows_what_stays_fp8(definition):
    ada = Machine(2**36, 2**35, (Gpu("an Ada card", 2**34, 8.9),))
    ampere = Machine(2**36, 2**35, (Gpu("an Ampere card", 2**34, 8.6),))
    plan = explain(definition, machine=ada)
    assert (plan.keeps_fp8, plan.products_in_fp8) == (True, True)
    assert plan.as_json()["products_in_fp8"]
    assert plan.as_json()["choices"]["transformer"]["keep"]
    assert not explain(definition, Preferences(fp8="weights"), machine=ada).products_in_fp8
    assert not explain(definition, Preferences(dtype="fp16"), machine=ada).products_in_fp8
    assert not explain(definition, machine=ampere).products_in_fp8
    sixteen = explain(definition, Preferences(quantization="bf16"), machine=ada)
    assert not sixteen.keeps_fp8
    header = read_header(plan.path("transformer"))
    kept = estimate(plan).transformer
    in_fp8 = sum(tensor.elements for tensor in header.tensors.values() if tensor.dtype == "F8_E4M3")
    assert estimate(sixteen).transformer - kept == pytest.approx(0.97 * in_fp8, rel=1e-3)
    apple = Machine(2**36, 2**35, apple=True)
    on_apple = explain(definition, machine=apple).transformer
    assert (on_apple.keep, on_apple.quantize_on_load) == (False, True)


def test_scaled_int8_makes_the_video_of_its_own_weights(root, define):
    state = load_file(FILE)
    stored, stands_for = {}, {}
    for name, tensor in state.items():
        if tensor.ndim != 2 or not name.startswith("blocks.") or not name.endswith(".weight"):
            stored[name] = stands_for[name] = tensor
            continue
        scale = (tensor.float().abs().amax(dim=1, keepdim=True) / 127).to(torch.bfloat16).float()
        stored[name] = (tensor.float() / scale).round().clamp(-127, 127).to(torch.int8)
        stored[name.removesuffix("weight") + "weight_scale"] = scale
        stands_for[name] = (stored[name].float() * scale).to(torch.bfloat16)
    metadata = dict(read_header(FILE).metadata)
    (root / "ckpts").mkdir(exist_ok=True)
    save_file(stored, root / "ckpts" / "nano_int8_lightx2v.safetensors", metadata)
    save_file(stands_for, root / "ckpts" / "nano_decoded_bf16.safetensors", metadata)
    definition = nano_of(root, define, root / "ckpts" / "nano_int8_lightx2v.safetensors")
    decoded = nano_of(root, define, root / "ckpts" / "nano_decoded_bf16.safetensors")
    assert np.array_equal(frames(definition, quantization="bf16"), frames(decoded, quantization="bf16"))
    models = []
    int8 = frames(definition, models=models).astype(int)
    assert any(is_int8(parameter) for parameter in models[0].parameters())
    assert np.abs(int8 - frames(decoded, quantization="bf16").astype(int)).mean() < 2


def test_a_scaled_file_without_its_scales_is_refused_before_it_is_loaded(root, define):
    (root / "ckpts").mkdir(exist_ok=True)
    path = root / "ckpts" / "nano_fp8_scaled.safetensors"
    quantize(FILE, root / "ckpts" / "plain.safetensors", to="fp8", scales="none").path.rename(path)
    definition = nano_of(root, define, path)
    with pytest.raises(ChoiceError, match="says that it is scaled, and it contains no scales") as caught:
        explain(definition, machine=probe())
    assert caught.value.rejected[0].version.file_name == path.name
