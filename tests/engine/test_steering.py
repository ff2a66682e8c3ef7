"""CFG-Zero*, skip-layer guidance, RIFLEx and the step cache: each against its formula, and what it does to a video."""

import math
from itertools import pairwise

import numpy as np
import pytest
import torch
from cases import write_case
from torch import nn

from reeltune import Engine, Notice, Preferences, load_catalog
from reeltune.engine.denoiser import Denoiser, steering
from reeltune.engine.families import hunyuan, wan
from reeltune.engine.guidance import optimal_scale, rescaled, schedule_of, without
from reeltune.engine.reporting import Reporter
from reeltune.engine.riflex import Stretch, intrinsic, lowered, stretch, stretched
from reeltune.engine.stepcache import step_cache, threshold
from reeltune.errors import NotRunnable, SettingsError
from reeltune.families import ARCHITECTURES
from reeltune.request.build import guidance_of, step_skipping_of
from reeltune.request.parse import parse

FAST = {"num_inference_steps": 4, "guidance_scale": 3.0, "seed": 3, "video_length": 5}
SWITCHES = {
    "skip_steps_cache_type": "tea",
    "cfg_star_switch": 1,
    "perturbation_switch": 1,
    "RIFLEx_setting": 1,
}


@pytest.fixture
def nano(root):
    return load_catalog(root)["nano_t2v"]


def make(definition, events=None, **settings):
    heard = events.append if events is not None else (lambda event: None)
    with Engine(definition, preferences=Preferences(quantization="bf16"), listener=heard) as engine:
        return engine.generate(**FAST | settings).frames


def said(events):
    return " ".join(event.message for event in events if isinstance(event, Notice))


@pytest.fixture
def passes(monkeypatch):
    """Names of the passes a transformer really makes, in order."""
    names = []
    inner = Denoiser._pass

    def noted(self, branch, options):
        names.append(branch)
        return inner(self, branch, options)

    monkeypatch.setattr(Denoiser, "_pass", noted)
    return names


# --- CFG-Zero* --------------------------------------------------------------------------------------------------------


def test_the_optimal_scale_projects_one_prediction_on_the_other():
    rng = np.random.default_rng(0)
    c, u = rng.standard_normal((2, 2, 4, 3, 5, 5)).astype(np.float32)
    wanted = [float((c[row] * u[row]).sum() / (u[row] ** 2).sum()) for row in range(2)]
    found = optimal_scale(torch.from_numpy(c), torch.from_numpy(u))
    assert found.shape == (2, 1, 1, 1, 1)
    assert found.flatten().tolist() == pytest.approx(wanted, rel=1e-5)
    # the pipeline's mix of what the passes give is the paper's v = s u + w (c - s u)
    given = rescaled(torch.from_numpy(c), torch.from_numpy(u)).numpy()
    mixed = given + 5.0 * (c - given)
    paper = np.stack([s * u[row] + 5.0 * (c[row] - s * u[row]) for row, s in enumerate(wanted)])
    assert np.allclose(mixed, paper, atol=1e-4)


def test_zero_init_leaves_out_the_first_steps(nano, passes):
    plain = make(nano)
    assert passes == ["cond", "uncond"] * 4
    passes.clear()
    scaled = make(nano, cfg_star_switch=1)
    assert len(passes) == 8
    assert not np.array_equal(scaled, plain)
    passes.clear()
    zeroed = make(nano, cfg_star_switch=1, cfg_zero_step=1)
    assert passes == ["cond", "uncond"] * 2
    assert not np.array_equal(zeroed, scaled)
    assert np.array_equal(make(nano, cfg_zero_step=1), plain)  # without its switch it asks for nothing


# --- skip-layer guidance ----------------------------------------------------------------------------------------------


def test_blocks_are_left_out_and_come_back():
    blocks = nn.ModuleList([nn.Linear(3, 3) for _ in range(3)])
    x = torch.randn(2, 3)

    def run():
        y = x
        for block in blocks:
            y = block(y)
        return y

    whole = run()
    with without(blocks, (1,)):
        assert torch.equal(run(), blocks[2](blocks[0](x)))
    assert torch.equal(run(), whole)
    assert not any("forward" in vars(block) for block in blocks)


def schedule(settings, steps, blocks):
    return schedule_of(guidance_of(settings), steps, blocks)


def cache(settings):
    return step_cache(step_skipping_of(settings), 20)


def test_the_step_cache_needs_two_blocks(nano):
    settings = {"skip_steps_cache_type": "tea", "skip_steps_multiplier": 2.0}
    request = parse(nano, settings).requests[0]
    with pytest.raises(SettingsError, match="can't be used with a model of one block"):
        steering(nano.architecture, request, {"num_layers": 1}, Reporter(print))


def test_only_the_pass_without_the_prompt_skips_in_its_window():
    found = schedule(
        {
            "perturbation_switch": 1,
            "perturbation_layers": [1, 3],
            "perturbation_start_perc": 25,
            "perturbation_end_perc": 75,
        },
        8,
        5,
    )
    assert [found.skipped(step) for step in range(8)] == [(), ()] + [(1, 3)] * 4 + [(), ()]
    assert schedule({"perturbation_switch": 1}, 10, 30).skipped(5) == (9,)
    assert schedule({"perturbation_switch": 1, "perturbation_layers": [1, 2]}, 10, 5).skipped(5) == (1, 2)
    assert schedule({"perturbation_layers": [1]}, 10, 5).skipped(5) == ()
    with pytest.raises(SettingsError, match="5 blocks"):
        schedule({"perturbation_switch": 1, "perturbation_layers": [9]}, 10, 5)


def test_skip_layer_guidance_in_a_video(nano, monkeypatch):
    plain, skipping = make(nano), []
    monkeypatch.setattr(
        "reeltune.engine.denoiser.without", lambda blocks, layers: (skipping.append(layers), without(blocks, layers))[1]
    )
    other = make(
        nano, perturbation_switch=1, perturbation_layers=[2], perturbation_start_perc=0, perturbation_end_perc=50
    )
    assert skipping == [(2,)] * 2  # once in each of two steps
    assert not np.array_equal(other, plain)
    events = []
    make(nano, events, perturbation_switch=1, perturbation_layers=[2], guidance_scale=1.0)
    assert "turns guidance off" in said(events)


# --- RIFLEx -----------------------------------------------------------------------------------------------------------


def test_the_intrinsic_frequency_is_the_papers():
    """RIFLEx, arXiv 2502.15894: component 6 of Wan's temporal axis, component 4 of Hunyuan's, counted from 1."""
    assert intrinsic([10_000.0 ** (-2 * index / 44) for index in range(22)]) == 6 - 1
    assert intrinsic([256.0 ** (-2 * index / 16) for index in range(8)]) == 4 - 1


@pytest.mark.parametrize("frames", [66, 21])
def test_wans_positions_are_stretched_by_the_formula(frames):
    from diffusers.models.transformers.transformer_wan import WanRotaryPosEmbed

    rope = WanRotaryPosEmbed(128, (1, 2, 2), 1024)
    hidden = torch.zeros(1, 16, frames, 4, 4)
    plain = rope(hidden)
    axis = wan.temporal_axis(rope)
    by = stretch(axis, frames)
    if frames == 21:  # turns slowly enough
        assert by is None
        return
    assert by == Stretch(5, pytest.approx(0.9 * 2 * math.pi / frames))
    with stretched(rope, axis, by):
        cos, sin = rope(hidden)
    frame = np.repeat(np.arange(frames), 4)
    for values, function, before in ((cos, np.cos, plain[0]), (sin, np.sin, plain[1])):
        assert np.allclose(values[0, :, 0, 10:12].numpy(), function(frame * by.frequency)[:, None], atol=1e-6)
        rest = [index for index in range(128) if index not in (10, 11)]
        assert torch.equal(values[..., rest], before[..., rest])
    assert all(torch.equal(*pair) for pair in zip(rope(hidden), plain, strict=True))  # and as it was afterwards


def test_hunyuans_positions_are_stretched_by_the_formula():
    from diffusers.models.transformers.transformer_hunyuan_video import HunyuanVideoRotaryPosEmbed

    rope = HunyuanVideoRotaryPosEmbed(2, 1, [16, 56, 56], 256.0)
    cos, sin = rope(torch.zeros(1, 16, 70, 4, 4))
    found = lowered(cos, sin, stretch(hunyuan.temporal_axis(rope), 70), 70)
    frame = np.repeat(np.arange(70), 4)
    assert np.allclose(found[0][:, 6:8].numpy(), np.cos(frame * 0.9 * 2 * math.pi / 70)[:, None], atol=1e-6)
    assert torch.equal(found[0][:, 8:], cos[:, 8:])


def test_riflex_in_a_video(nano):
    long = {"video_length": 109, "num_inference_steps": 2, "resolution": "32x32"}
    plain = make(nano, **long)
    assert not np.array_equal(make(nano, **long, RIFLEx_setting=1), plain)
    assert np.array_equal(make(nano, **long, RIFLEx_setting=2), plain)
    events = []
    assert not np.array_equal(make(nano, events, **long, RIFLEx_setting=0), plain)
    assert "RIFLEx is on: 109 frames are more than the 81 of training" in said(events)
    short, events = make(nano), []
    assert np.array_equal(make(nano, events, RIFLEx_setting=0), short)  # only for videos longer than trained
    assert "RIFLEx" not in said(events)
    make(nano, events, RIFLEx_setting=1)
    assert "RIFLEx changed nothing: the video is not long enough" in said(events)


# --- step cache -------------------------------------------------------------------------------------------------------


def test_the_threshold_follows_the_speed():
    assert threshold(1) == 0
    assert threshold(1.5) < threshold(2) < threshold(2.5)
    assert step_skipping_of({}) is None
    on = {"skip_steps_cache_type": "mag", "skip_steps_multiplier": 2}
    assert step_skipping_of(on | {"skip_steps_cache_type": ""}) is None
    assert step_skipping_of(on | {"skip_steps_multiplier": 1}) is None
    assert cache(on | {"skip_steps_start_step_perc": 25}).start == 5
    assert cache(on).threshold == cache(on | {"skip_steps_cache_type": "tea"}).threshold
    assert 0 < cache({"skip_steps_cache_type": "tea"}).threshold < threshold(2)


def test_a_pass_is_skipped_by_the_formula(nano, monkeypatch):
    """mean|r - r'| / mean|r'| of the first block's effect against the last full pass, for each kind of pass."""
    from diffusers.models.transformers.transformer_wan import WanTransformerBlock

    calls, inner, names = [], WanTransformerBlock.forward, []

    def noted(self, hidden_states, *rest):
        out = inner(self, hidden_states, *rest)
        calls.append((id(self), out - hidden_states))
        return out

    monkeypatch.setattr(WanTransformerBlock, "forward", noted)
    whole = Denoiser._pass
    monkeypatch.setattr(
        Denoiser,
        "_pass",
        lambda self, branch, options: (names.append((branch, len(calls))), whole(self, branch, options))[1],
    )
    events = []
    make(nano, events, num_inference_steps=12, tea_cache_setting=3.0)
    names.append(("", len(calls)))
    before, skipped = {}, 0
    for number, ((branch, begin), (_, end)) in enumerate(pairwise(names)):
        effect, count = calls[begin][1], end - begin
        known = before.get(branch)
        change = 1.0 if known is None else ((effect - known).abs().mean() / known.abs().mean()).item()
        skips = number >= 2 and change <= threshold(3.0)
        assert (count == 1) == skips, number
        skipped += count == 1
        if count > 1 and number >= 2:  # from the second step on
            before[branch] = effect
    assert 0 < skipped < 22
    assert f"skipped most of {skipped} passes of 24" in said(events)


def test_the_cache_of_a_step_that_ran_out_of_memory_is_taken_back(nano):
    settings = {"num_inference_steps": 12, "tea_cache_setting": 3.0}
    reference = make(nano, **settings)
    calls = [0]

    def hook(module, inputs):
        if type(module).__name__ == "WanTransformerBlock":
            calls[0] += 1
            if calls[0] in (48, 60, 61):
                raise torch.OutOfMemoryError("CUDA out of memory.")

    handle = torch.nn.modules.module.register_module_forward_pre_hook(hook)
    try:
        assert np.array_equal(make(nano, **settings), reference)
    finally:
        handle.remove()
    assert calls[0] > 61


def test_the_cache_ends_with_its_video(nano):
    plain = make(nano)
    with Engine(nano, preferences=Preferences(quantization="bf16")) as engine:
        cached = engine.generate(**FAST | {"num_inference_steps": 12, "tea_cache_setting": 3.0}).frames
        assert np.array_equal(
            engine.generate(**FAST | {"num_inference_steps": 12, "tea_cache_setting": 3.0}).frames, cached
        )
        assert np.array_equal(engine.generate(**FAST).frames, plain)
    with pytest.raises(SettingsError, match="first or the last block"):
        make(nano, tea_cache_setting=2.0, perturbation_switch=1, perturbation_layers=[0])


@pytest.mark.parametrize("name", ["hunyuan, negative", "hunyuan_i2v_token", "ltxv_13B, images", "i2v", "t2v_2_2",
                                  "hunyuan_1_5_t2v", "k5_lite_t2v", "ltx2_19B, images"])  # fmt: skip
def test_the_cache_is_right_on_what_takes_it(name, root, define, parts, monkeypatch):
    """At a threshold nothing falls below, the video is that without a cache; at one all fall below, passes are skipped."""
    monkeypatch.setattr("tiny_parts.LTX_CONFIG", {**__import__("tiny_parts").LTX_CONFIG, "num_layers": 3})
    definition, settings = write_case(name, root, define, parts)
    settings = settings | {"num_inference_steps": 6}
    plain = make(definition, **settings)
    monkeypatch.setattr("reeltune.engine.stepcache.threshold", lambda speed: -1.0)
    assert np.array_equal(make(definition, **settings, tea_cache_setting=2.0), plain)
    monkeypatch.setattr("reeltune.engine.stepcache.threshold", lambda speed: 100.0)
    events = []
    make(definition, events, **settings, tea_cache_setting=2.0)
    counts = [
        int(word) for word in said(events).split("skipped most of ")[1].replace(".", "").split() if word.isdigit()
    ]
    assert 0 < counts[0] < counts[1]


# --- what takes what --------------------------------------------------------------------------------------------------


def test_every_architecture_takes_or_refuses_each():
    for architecture in ARCHITECTURES.values():
        for key in SWITCHES:
            assert (key in architecture.settings) != (key in architecture.refused), (architecture.id, key)


@pytest.mark.parametrize(
    ("name", "key"),
    [("vace_1.3B", "skip_steps_cache_type"), ("hunyuan", "cfg_star_switch"), ("hunyuan", "perturbation_switch"),
     ("ltxv_13B", "cfg_star_switch"), ("ltxv_13B", "perturbation_switch"), ("ltxv_13B", "RIFLEx_setting"),
     ("sky_df_14B", "skip_steps_cache_type"), ("animate", "skip_steps_cache_type"), ("chrono_edit", "RIFLEx_setting"),
     ("hunyuan_1_5_t2v", "perturbation_switch"), ("k5_lite_t2v", "RIFLEx_setting"),
     ("k5_lite_t2v", "perturbation_switch"), ("ltx2_19B", "RIFLEx_setting"), ("ltx2_19B", "cfg_star_switch")],
)  # fmt: skip
def test_the_wrong_architecture_refuses_in_words(name, key, root, define, parts):
    definition, settings = write_case(name, root, define, parts)
    with pytest.raises(NotRunnable, match=f"does not support {key}=.*: ") as caught:
        make(definition, **settings | {key: SWITCHES[key]})
    off = {"RIFLEx_setting": "2", "skip_steps_cache_type": "''"}
    assert f"Set {key}={off.get(key, '0')}" in caught.value.hint
