"""LoRAs in videos: every family and memory profile, weights by step, two transformers, and engines that stay warm."""

import shutil

import numpy as np
import pytest
import torch
from cases import CASES, write_case
from safetensors.torch import save_file
from torch import nn

from reeltune import Engine, Preferences, load_catalog
from reeltune.engine import models, placing
from reeltune.errors import CheckpointError, FetchError, LoraMismatch
from reeltune.events import Notice
from reeltune.planning.memory import MemoryProfile
from reeltune.planning.plan import explain
from reeltune.weights.load import load_transformer
from reeltune.weights.lora.branches import LoraLinear

COMPILER = shutil.which("g++") or shutil.which("clang++")
RANK = 2
NANO = {"num_inference_steps": 3, "resolution": "32x32", "video_length": 5, "seed": 3, "prompt": "a red circle"}


def write_lora(path, files, config=None, *, seed=0, scale=0.3, differences=True):
    """A random LoRA for the transformer in `files`, with norms and modulations too."""
    model = load_transformer(files[0], "bf16", modules=files[1:], config=config)
    torch.manual_seed(seed)
    state = {}
    for name, module in model.named_modules():
        if isinstance(module, nn.Linear) and "block" in name:
            state[f"transformer.{name}.lora_A.weight"] = torch.randn(RANK, module.in_features) * scale
            state[f"transformer.{name}.lora_B.weight"] = torch.randn(module.out_features, RANK) * scale
    if differences:
        for name, row in model.named_parameters():
            if row.ndim == 1 and name.endswith("weight"):
                state[f"transformer.{name.removesuffix('.weight')}.diff"] = torch.randn(row.shape) * 0.1
    path.parent.mkdir(parents=True, exist_ok=True)
    save_file(state, path)
    return path


def files_of(definition, slot="transformer"):
    return explain(definition, Preferences(quantization="bf16"), loras=[]).files(slot)


def style(root, definition, name="style.safetensors", **options):
    folder = root / "loras" / definition.architecture.loras
    return write_lora(folder / name, files_of(definition), definition.architecture.config, **options)


def frames(definition, settings, events=None, **wishes):
    preferences = Preferences(**{"quantization": "bf16"} | wishes)
    heard = events.append if events is not None else (lambda event: None)
    with Engine(definition, preferences=preferences, listener=heard) as engine:
        return engine.generate(**settings).frames


@pytest.fixture
def nano(root):
    return load_catalog(root)["nano_t2v"]


@pytest.mark.parametrize(
    "name",
    ["t2v", "vace_14B", "i2v", "hunyuan", "hunyuan_i2v_token", "ltxv_13B, images", "lucy_edit", "sky_df_14B", "animate",
     "chrono_edit", "phantom_14B", "wanmove", "i2v_2_2_svi2pro", "hunyuan_1_5_t2v", "k5_lite_t2v", "ltx2_19B"],
)  # fmt: skip
@pytest.mark.parametrize("quantization", ["bf16", "int8"])
def test_every_family_under_every_memory_profile(root, define, parts, name, quantization, monkeypatch):
    definition, settings = write_case(name, root, define, parts)
    style(root, definition)
    offloaded = []
    inner = placing.offload
    monkeypatch.setattr(placing, "offload", lambda model, *rest: (offloaded.append(type(model)), inner(model, *rest)))
    lora = {"activated_loras": ["style.safetensors"], "loras_multipliers": "0.5"}
    wish = {"quantization": quantization}
    plain = frames(definition, settings, **wish)
    events = []
    styled = frames(definition, settings | lora, events, **wish)
    assert not np.array_equal(plain, styled)
    assert any(
        "style.safetensors on transformer: applied " in str(event) for event in events if isinstance(event, Notice)
    )
    for profile in tuple(MemoryProfile)[1:]:
        assert np.array_equal(frames(definition, settings | lora, memory_profile=profile, **wish), styled), profile
    assert offloaded
    without = frames(definition, settings | lora | {"loras_multipliers": "0"}, **wish)
    assert np.array_equal(without, plain)


@pytest.mark.parametrize("profile", list(MemoryProfile))
def test_switching_loras_loads_nothing_of_the_model_again_and_gives_what_a_fresh_start_gives(
    root, nano, profile, monkeypatch
):
    style(root, nano, "a.safetensors")
    style(root, nano, "b.safetensors", seed=1)
    loads = []
    inner = models.load_transformer
    monkeypatch.setattr(
        models, "load_transformer", lambda *args, **options: (loads.append(1), inner(*args, **options))[1]
    )
    turns = [
        {},
        {"activated_loras": ["a.safetensors"]},
        {"activated_loras": ["a.safetensors"], "loras_multipliers": "0.3"},
        {"activated_loras": ["b.safetensors", "a.safetensors"], "loras_multipliers": "1,0 0,0.5"},
        {},
        {"activated_loras": ["b.safetensors"]},
    ]
    preferences = Preferences(quantization="int8", memory_profile=profile)
    with Engine(nano, preferences=preferences) as engine:
        warm = [engine.generate(**NANO, **turn).frames for turn in turns]
    assert len(loads) == 1
    for turn, made in zip(turns, warm, strict=True):
        with Engine(nano, preferences=preferences) as engine:
            assert np.array_equal(engine.generate(**NANO, **turn).frames, made)
    assert np.array_equal(warm[0], warm[4])
    assert len({made.tobytes() for made in warm}) == 5


def test_a_lora_that_changed_on_the_disk_is_read_again(root, nano):
    style(root, nano)
    lora = {"activated_loras": ["style.safetensors"]}
    with Engine(nano, preferences=Preferences(quantization="bf16")) as engine:
        first = engine.generate(**NANO, **lora).frames
        style(root, nano, seed=5)
        second = engine.generate(**NANO, **lora).frames
    assert not np.array_equal(first, second)


def test_weights_change_from_step_to_step(root, nano, monkeypatch):
    style(root, nano)
    used = []
    inner = models.LoadedTransformer.set_lora_weights
    monkeypatch.setattr(
        models.LoadedTransformer,
        "set_lora_weights",
        lambda self, step, device: (used.append((step, self.loras[0].weights[step])), inner(self, step, device))[1],
    )
    frames(
        nano, NANO | {"activated_loras": ["style.safetensors"], "loras_multipliers": "1,0.5,0", "guidance_scale": 1.0}
    )
    assert used == [(0, 1.0), (1, 0.5), (2, 0.0)]


def test_each_of_two_transformers_has_the_loras_with_a_weight_in_its_steps(root, define, parts):
    definition, settings = write_case("t2v_2_2", root, define, parts)
    style(root, definition, "high.safetensors")
    style(root, definition, "low.safetensors", seed=1)
    loras = {"activated_loras": ["high.safetensors", "low.safetensors"]}
    events = []
    made = frames(definition, settings | loras | {"loras_multipliers": "1;0 0;1"}, events)
    told = {
        event.message.partition(":")[0] for event in events if isinstance(event, Notice) and "applied" in str(event)
    }
    assert told == {"high.safetensors on transformer", "low.safetensors on transformer_2"}
    both = frames(definition, settings | loras | {"loras_multipliers": "1;0 0;0"})
    assert not np.array_equal(made, both)


def test_three_phases_of_guidance_and_one_transformer_after_the_second(root, define, parts):
    definition, settings = write_case("t2v_2_2", root, define, parts)
    three = settings | {
        "num_inference_steps": 6, "guidance_phases": 3, "switch_threshold": 965, "switch_threshold2": 800,
        "model_switch_phase": 2, "guidance_scale": 3.0, "guidance2_scale": 2.0, "guidance3_scale": 1.0, "flow_shift": 5.0,
    }  # fmt: skip
    first = frames(definition, three)
    assert not np.array_equal(first, frames(definition, three | {"guidance2_scale": 1.0}))
    assert not np.array_equal(first, frames(definition, three | {"model_switch_phase": 1}))
    assert np.array_equal(first, frames(definition, three | {"guidance3_scale": 0.5}))  # neither guides


def test_the_definitions_loras_come_before_the_users(root, define, nano):
    for number, name in enumerate(("own", "users")):
        style(root, nano, f"{name}.safetensors", seed=number)
    define(
        "styled",
        {"architecture": "t2v_1.3B", "URLs": "nano_t2v", "components": "reeltune/nano",
         "loras": ["loras/wan_1.3B/own.safetensors"], "loras_multipliers": [0.5]},
    )  # fmt: skip
    styled = load_catalog(root)["styled"]
    settings = NANO | {"guidance_scale": 3.0, "flow_shift": 3.0}
    by_definition = frames(styled, settings)
    own = {"activated_loras": ["own.safetensors"], "loras_multipliers": "0.5"}
    assert np.array_equal(by_definition, frames(nano, settings | own))
    both = frames(styled, settings | {"activated_loras": ["users.safetensors"], "loras_multipliers": "0.25"})
    same = {"activated_loras": ["own.safetensors", "users.safetensors"], "loras_multipliers": "0.5 0.25"}
    assert np.array_equal(both, frames(nano, settings | same))


@pytest.mark.parametrize(
    "settings",
    [{"skip_steps_cache_type": "tea", "skip_steps_multiplier": 2.0, "num_inference_steps": 6},
     {"perturbation_switch": 1, "perturbation_layers": [1], "perturbation_start_perc": 0, "perturbation_end_perc": 100},
     {"cfg_star_switch": 1, "cfg_zero_step": 0}],
    ids=["step cache", "skipped layers", "CFG-Zero*"],
)  # fmt: skip
def test_what_steers_passes_works_with_loras(root, nano, settings):
    style(root, nano)
    lora = {"activated_loras": ["style.safetensors"], "loras_multipliers": "0.5"}
    assert not np.array_equal(frames(nano, NANO | settings | lora), frames(nano, NANO | settings))
    assert np.array_equal(frames(nano, NANO | settings | lora), frames(nano, NANO | settings | lora))


@pytest.mark.filterwarnings("ignore:`torch.jit:DeprecationWarning")  # inside torch
@pytest.mark.skipif(COMPILER is None, reason="NO C++ COMPILER HERE: COMPILED BLOCKS ARE NOT TESTED")
def test_compiled_blocks_compute_the_same_with_loras_and_after_them(root, nano):
    style(root, nano)
    turns = [{}, {"activated_loras": ["style.safetensors"], "loras_multipliers": "0.5,0.2,0"}, {}]
    made = {}
    for wish in (False, True):
        with Engine(nano, preferences=Preferences(quantization="bf16", compile=wish)) as engine:
            made[wish] = [engine.generate(**NANO, **turn).frames.astype(int) for turn in turns]
    assert np.array_equal(made[True][0], made[True][2])
    for plain, compiled in zip(made[False], made[True], strict=True):
        assert np.abs(plain - compiled).mean() < 2
    assert np.abs(made[True][0] - made[True][1]).mean() > 5


def test_out_of_memory_in_the_middle_gives_the_same_video(root, nano):
    style(root, nano)
    lora = NANO | {"activated_loras": ["style.safetensors"], "loras_multipliers": "1,0.5,0"}
    wanted = frames(nano, lora)
    calls = [0]

    def hook(module, inputs):
        if isinstance(module, LoraLinear):
            calls[0] += 1
            if calls[0] in (30, 200):
                raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 1 GiB.")

    handle = torch.nn.modules.module.register_module_forward_pre_hook(hook)
    try:
        assert np.array_equal(frames(nano, lora, memory_profile="resident"), wanted)
    finally:
        handle.remove()
    assert calls[0] > 200


@pytest.mark.parametrize("kind", ["other size", "other family", "pickle", "truncated", "NaN", "HTML", "missing"])
def test_loras_that_cannot_be_used_are_errors_before_anything_is_loaded(root, nano, kind, monkeypatch):
    path = root / "loras" / "wan_1.3B" / "bad.safetensors"
    path.parent.mkdir(parents=True)
    pair = {
        "blocks.0.self_attn.q.lora_A.weight": torch.ones(2, 5120),
        "blocks.0.self_attn.q.lora_B.weight": torch.ones(5120, 2),
    }
    if kind == "other size":
        save_file(pair, path)
    elif kind == "other family":
        save_file(
            {key.replace("blocks.0.self_attn.q", "double_blocks.0.img_attn_qkv"): row for key, row in pair.items()},
            path,
        )
    elif kind == "pickle":
        torch.save(pair, path)
    elif kind == "truncated":
        path.write_bytes(style(root, nano).read_bytes()[:-100])
    elif kind == "HTML":
        path.write_text("<!DOCTYPE html><html><body>Log in</body></html>")
    elif kind == "NaN":
        style(root, nano, "bad.safetensors", scale=float("nan"))
    loads = []
    monkeypatch.setattr(models, "load_transformer", lambda *args, **options: loads.append(1))
    expected = {"other size": LoraMismatch, "other family": LoraMismatch, "NaN": CheckpointError}.get(kind, FetchError)
    words = {"pickle": "can run code", "truncated": "truncated", "HTML": "web page", "missing": "existing file"}.get(
        kind, ""
    )
    with pytest.raises(expected, match=rf"bad\.safetensors.*{words}"):
        frames(nano, NANO | {"activated_loras": ["bad.safetensors"]})
    assert not loads


def test_the_settings_of_the_video_name_its_loras(root, nano, tmp_path):
    from reeltune.media.origin import read_stored

    style(root, nano)
    lora = {"activated_loras": ["style.safetensors"], "loras_multipliers": "1,0.5,0"}
    with Engine(nano, preferences=Preferences(quantization="bf16")) as engine:
        video = engine.generate(**NANO, **lora)
        path = video.save(tmp_path / "out.mp4")
        stored = read_stored(path)
        assert {key: stored.settings[key] for key in lora} == lora
        again = engine.generate(
            **{key: value for key, value in stored.settings.items() if key in CASES or key in NANO or key in lora}
        )
    assert np.array_equal(again.frames, video.frames)


@pytest.mark.parametrize(("name", "modules"), [("t2v", 0), ("vace_14B", 1)])
@pytest.mark.parametrize("quantization", ["bf16", "int8"])
def test_merging_while_loading_is_preferred_where_weights_are_constant(
    root, define, parts, name, modules, quantization
):
    definition, settings = write_case(name, root, define, parts)
    style(root, definition)
    lora = {"activated_loras": ["style.safetensors"], "loras_multipliers": "0.5"}
    events = []
    wishes = {"quantization": quantization, "merge_loras": True}
    merged = frames(definition, settings | lora, events, **wishes)
    assert not any("beside" in str(event) or "aren't merged" in str(event) for event in events)
    beside = frames(definition, settings | lora, quantization=quantization)
    plain = frames(definition, settings, **wishes)
    distance = np.abs(merged.astype(int) - beside).mean()
    assert distance < 0.2 * np.abs(merged.astype(int) - plain).mean()
    changing = frames(definition, settings | lora | {"loras_multipliers": "0.5,0.2"}, events, **wishes)
    assert any("their weights change" in event.message for event in events if isinstance(event, Notice))
    assert np.array_equal(
        changing, frames(definition, settings | lora | {"loras_multipliers": "0.5,0.2"}, quantization=quantization)
    )


def test_merged_loras_leave_with_the_next_video(root, nano):
    style(root, nano)
    preferences = Preferences(quantization="bf16", merge_loras=True)
    lora = {"activated_loras": ["style.safetensors"], "loras_multipliers": "0.5"}
    with Engine(nano, preferences=preferences) as engine:
        before = engine.generate(**NANO).frames
        styled = engine.generate(**NANO, **lora).frames
        after = engine.generate(**NANO).frames
    assert np.array_equal(before, after)
    assert not np.array_equal(before, styled)


def test_an_engine_goes_from_two_transformers_to_one_with_loras(root, define, nano):
    style(root, nano)
    define("two", {"architecture": "t2v_2_2", "URLs": "nano_t2v", "URLs2": "nano_neon", "components": "reeltune/nano"})
    catalog = load_catalog(root)
    lora = {"activated_loras": ["loras/wan_1.3B/style.safetensors"]}
    with Engine(catalog["two"], preferences=Preferences(quantization="bf16")) as engine:
        engine.generate(**NANO, switch_threshold=900)
        engine.switch(nano)
        made = engine.generate(**NANO, **lora).frames
        assert list(engine._warm.models._loaded) == ["transformer"]
    assert np.array_equal(made, frames(nano, NANO | lora))


def test_merged_loras_are_reported_and_those_that_depend_on_others_are_not_merged(root, nano):
    path = style(root, nano)
    loras = {"activated_loras": ["style.safetensors"], "loras_multipliers": "0.5"}
    events = []
    frames(nano, NANO | loras, events, merge_loras=True)
    told = [event.message for event in events if isinstance(event, Notice)]
    assert any("style.safetensors × 0.5 is merged into the transformer: applied " in line for line in told)
    name = "blocks.0.attn1.to_q"
    layer = load_transformer(files_of(nano)[0], "bf16").get_submodule(name)
    save_file(
        {f"{name}.set_weight": torch.randn(layer.out_features, layer.in_features) * 0.1},
        path.with_name("whole.safetensors"),
    )
    both = {"activated_loras": ["style.safetensors", "whole.safetensors"], "loras_multipliers": "0.5 0.5"}
    merged = frames(nano, NANO | both, events, merge_loras=True)
    told = [event.message for event in events if isinstance(event, Notice)]
    assert any("aren't merged" in line and "replaces or rescales" in line for line in told)
    assert np.array_equal(merged, frames(nano, NANO | both))
