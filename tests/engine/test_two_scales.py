"""LTX Video at two scales: equal to diffusers' own pipelines, and guided as its published configurations say."""

from dataclasses import replace

import numpy as np
import pytest
import tiny_parts
import torch
from cases import write_case
from ltx_reference import load_pipelines, two_scale_frames, two_scale_latents

from reeltune import Engine, Notice, Preferences, load_catalog
from reeltune.definitions.model import Definition
from reeltune.engine.guidance import optimal_scale
from reeltune.engine.inputs import read_inputs
from reeltune.engine.reporting import Reporter
from reeltune.errors import Cancelled, NotEnoughMemory
from reeltune.events import CancelToken, Preview, Progress
from reeltune.families.scales import DEV, DISTILLED, GuidanceRange, config_named
from reeltune.planning.estimate import estimate
from reeltune.planning.memory import MemoryProfile, activations
from reeltune.planning.plan import explain
from reeltune.request.parse import parse
from reeltune.request.steps import step_table

SETTINGS = {"resolution": "96x96", "video_length": 9, "seed": 3, "prompt": "a cat walks", "negative_prompt": ""}
IMAGES = {"image_start": "start.png", "image_end": "end.png"}
FIRST, SECOND = (1000.0, 993.7, 987.5, 981.2, 975.0, 909.4, 725.0), (909.4, 725.0, 421.9)


@pytest.fixture
def ltx(root, define, parts, monkeypatch):
    """A tiny LTX Video with three blocks, by the name of its configuration."""
    monkeypatch.setattr(tiny_parts, "LTX_CONFIG", {**tiny_parts.LTX_CONFIG, "num_layers": 3})

    def write(config: str) -> Definition:
        write_case("ltxv_13B", root, define, parts)
        urls = [str(root / "ckpts" / "x_bf16.safetensors")]
        model = {"architecture": "ltxv_13B", "components": str(parts("ltx")), "URLs": urls, "LTXV_config": config}
        define("mine", model)
        return load_catalog(root)["mine"]

    return write


def make(definition, settings, events=None, **preferences):
    listener = events.append if events is not None else (lambda event: None)
    preferences = Preferences(quantization="bf16", **preferences)
    with Engine(definition, preferences=preferences, listener=listener, previews=events is not None) as engine:
        return engine.generate(**settings)


def prepared(definition, settings):
    request = parse(definition, settings).requests[0]
    return request, read_inputs(request, Reporter(lambda event: None))


@pytest.mark.parametrize("inputs", [{}, IMAGES], ids=["text", "images"])
def test_it_equals_diffusers_two_pipelines(ltx, inputs):
    definition = ltx("ltxv-13b-0.9.8-distilled.yaml")
    settings = {key: value for key, value in SETTINGS.items() if key != "negative_prompt"} | inputs
    request, images = prepared(definition, settings)
    pipelines = load_pipelines(definition, request)
    latents = two_scale_latents(pipelines, request, images, list(FIRST), list(SECOND))
    expected = two_scale_frames(pipelines, request, latents)
    made = make(definition, settings).frames
    assert made.shape == (9, 96, 96, 3)
    assert np.array_equal(made, expected)


class Guided:
    """A transformer that makes all passes of a step in one batch, as Lightricks' release does."""

    def __init__(self, model, ranges, negative):
        self.model, self.ranges, self.negative = model, list(ranges), negative
        self.config, self.dtype, self.cache_context = model.config, model.dtype, model.cache_context

    def __call__(self, hidden_states, encoder_hidden_states, encoder_attention_mask, **options):
        guidance, model = self.ranges.pop(0), self.model

        def velocity(embeds, mask):
            return model(
                hidden_states=hidden_states, encoder_hidden_states=embeds, encoder_attention_mask=mask, **options
            )[0]

        result = positive = velocity(encoder_hidden_states, encoder_attention_mask)
        if guidance.scale > 1:
            other = velocity(*self.negative)
            other = (optimal_scale(positive, other) * other.float()).to(other.dtype)
            result = other + guidance.scale * (positive - other)
        if guidance.perturbation:
            hooks = []
            for block in guidance.blocks:
                attention = model.transformer_blocks[block].attn1

                def values_only(module, args, kwargs, output):
                    states = kwargs["hidden_states"] if "hidden_states" in kwargs else args[0]
                    return module.to_out[0](module.to_v(states))

                hooks.append(attention.register_forward_hook(values_only, with_kwargs=True))
            perturbed = velocity(encoder_hidden_states, encoder_attention_mask)
            for hook in hooks:
                hook.remove()
            result = result + guidance.perturbation * (positive - perturbed)
            if guidance.rescaling:
                factor = positive.float().std() / result.float().std()
                result = result * (guidance.rescaling * factor + 1 - guidance.rescaling).to(result.dtype)
        return (result,)


TINY_DEV = replace(
    DEV,
    first=replace(
        DEV.first,
        guidance=(
            GuidanceRange(1.0), GuidanceRange(0.99, 6.0, 4.0, 0.5, (0, 2)), GuidanceRange(0.9, 3.0, 0.0),
            GuidanceRange(0.5, 1.0, 2.0, 0.0, (1,)),
        ),
    ),
    second=replace(DEV.second, guidance=(GuidanceRange(1.0, 1.0, 1.0, 0.0, (1,)),)),
)  # fmt: skip


def test_each_step_is_guided_as_its_configuration_says(ltx):
    definition = ltx("models/ltx_video/configs/ltxv-13b-0.9.8-dev.yaml")
    assert definition.architecture.scales == DEV
    definition = replace(definition, architecture=replace(definition.architecture, scales=TINY_DEV))
    settings = SETTINGS | {"num_inference_steps": 8, "negative_prompt": "blurry"}
    request, images = prepared(definition, settings)
    assert [scale.steps for scale in request.passes] == [7, 3]
    used = [request.guidance_of_step(step) for step in range(request.steps)]
    assert {(row.scale, row.perturbation) for row in used} == {(1, 0), (6, 4), (3, 0), (1, 2), (1, 1)}
    pipelines = load_pipelines(definition, request)
    embeds, mask, *negative = pipelines[0].encode_prompt("a cat walks", "blurry", max_sequence_length=256)
    del embeds, mask
    pipelines[0].transformer = Guided(pipelines[0].transformer, used, negative)
    latents = two_scale_latents(
        pipelines, request, images, list(request.passes[0].timesteps), list(request.passes[1].timesteps)
    )
    expected = two_scale_frames(pipelines, request, latents)
    made = make(definition, settings).frames
    assert np.abs(made.astype(int) - expected.astype(int)).max() <= 1
    unguided = make(ltx("ltxv-13b-0.9.8-distilled"), SETTINGS | {"negative_prompt": ""}).frames
    assert np.abs(made.astype(int) - unguided.astype(int)).max() > 10


# --- configurations -------------------------------------------------------------------------------------------------


def test_the_published_steps():
    """The values of Lightricks' files ltxv-13b-0.9.8-dev.yaml and -distilled.yaml at their 30 steps."""
    catalog = load_catalog()
    request = parse(catalog["ltxv_13B"], {"resolution": "1216x704"}).requests[0]
    first, second = request.passes
    assert (first.steps, second.steps) == (30 - 3, 30 - 17)
    assert (first.width, first.height, second.width, second.height) == (800, 448, 1600, 896)
    assert first.timesteps[0] == 1000
    assert first.timesteps[17:] == second.timesteps[: len(first.timesteps) - 17]
    scales = [guidance.scale for guidance in first.guidance]
    assert scales == [1] * 3 + [6] * 2 + [8] * 5 + [6] * 4 + [1] * 13
    assert [guidance.perturbation for guidance in first.guidance] == [0] * 3 + [4] * 11 + [2] * 5 + [1] * 8
    assert first.guidance[3].blocks == (22, 35, 39)
    assert second.guidance[0] == GuidanceRange(1.0, 1.0, 1.0, 0.0, (27,))
    assert request.guidance.zero_star
    assert request.tone_mapping == 0
    request = parse(catalog["ltxv_distilled"], {}).requests[0]
    assert [time / 1000 for scale in request.passes for time in scale.timesteps] == pytest.approx(
        [1.0, 0.9937, 0.9875, 0.9812, 0.975, 0.9094, 0.725, 0.9094, 0.725, 0.4219]
    )
    assert not request.guided
    assert request.tone_mapping == 0.6
    rows = step_table(request)
    assert [(row.steps, row.size) for row in rows] == [("1-7", "544x320"), ("8-10", "1088x640")]


@pytest.mark.parametrize(
    ("config", "scales", "warned"),
    [("models/ltx_video/configs/ltxv-13b-0.9.8-distilled.yaml", DISTILLED, False),
     ("C:\\x\\LTXV-13b-0.9.8-dev.yaml", DEV, False), ("ltxv-13b-0.9.7-dev.original.yaml", None, False),
     ("my-distilled.yaml", DISTILLED, True), ("other.yaml", DEV, True), (None, DEV, False)],
)  # fmt: skip
def test_configurations_are_found_by_name(root, define, config, scales, warned):
    model = {"architecture": "ltxv_13B", "URLs": ["https://h/x_bf16.safetensors"]}
    define("mine", model | ({"LTXV_config": config} if config else {}))
    definition = load_catalog(root)["mine"]
    assert definition.architecture.scales == (scales or config_named(config))
    assert [problem.where for problem in definition.notices] == (["model.LTXV_config"] if warned else [])
    if warned:
        assert definition.architecture.scales.name in definition.notices[0].message


def test_finetunes_follow_their_base_model_or_their_files(root, define):
    urls = ["https://h/mine_bf16.safetensors"]
    define("derived", {"architecture": "ltxv_distilled", "URLs": urls})
    define("shared", {"architecture": "ltxv_13B", "URLs": "ltxv_distilled"})
    define("other", {"architecture": "t2v", "URLs": urls, "LTXV_config": "ltxv-13b-0.9.8-dev.yaml"})
    define("odd", {"architecture": "ltxv_13B", "URLs": urls, "LTXV_config": 3})
    catalog = load_catalog(root)
    assert catalog["derived"].architecture.scales == DISTILLED
    assert catalog["shared"].architecture.scales == DISTILLED
    assert [problem.where for problem in catalog["other"].notices] == ["model.LTXV_config"]
    assert catalog["odd"].architecture.scales == DEV
    assert [problem.where for problem in catalog["odd"].notices] == ["model.LTXV_config"]


def test_what_a_distilled_model_fixes_is_not_a_setting(root):
    definition = load_catalog(root)["ltxv_distilled"]
    assert not {"num_inference_steps", "negative_prompt", "guidance_scale"} & definition.architecture.settings
    assert parse(definition, {}).notices == ()
    (notice,) = parse(definition, {"num_inference_steps": 20, "guidance_scale": 3.0}).notices
    assert notice == "ltxv_13B does not use: num_inference_steps=20, guidance_scale=3.0."


# --- the plan -------------------------------------------------------------------------------------------------------


def test_the_plan_has_the_upsampler_and_no_ic_loras(root):
    plan = explain(load_catalog(root)["ltxv_distilled"])
    items = {item.subject: item for item in plan.items}
    upsampler = items["latent_upsampler"]
    assert upsampler.repository == "Lightricks/ltxv-spatial-upscaler-0.9.8"
    assert upsampler.url.endswith("/Lightricks/ltxv-spatial-upscaler-0.9.8/tree/main/latent_upsampler")
    assert upsampler.path == root / "ckpts" / "Lightricks--ltxv-spatial-upscaler-0.9.8" / "latent_upsampler"
    assert "preload" not in items
    assert "Not downloaded: 3 IC-LoRAs of preload_URLs, which nothing in reeltune uses." in plan.notices


def test_other_preloaded_files_are_downloaded(root, define):
    urls = ["https://h/x_bf16.safetensors"]
    define("mine", {"architecture": "ltxv_13B", "URLs": urls, "preload_URLs": ["https://h/map.json", "https://h/a-IC-LoRA-b.x"]})  # fmt: skip
    plan = explain(load_catalog(root)["mine"])
    assert [item.url for item in plan.items if item.subject == "preload"] == ["https://h/map.json"]


def test_an_upsampler_of_another_program_is_used_in_place(ltx, root, monkeypatch):
    from safetensors.torch import load_file, save_file

    definition = ltx("ltxv-13b-0.9.8-distilled")
    settings = {key: value for key, value in SETTINGS.items() if key != "negative_prompt"}
    expected = make(definition, settings).frames
    folder = root / "other" / "latent_upsampler"
    (root / "other").mkdir()
    (definition_folder := __import__("pathlib").Path(definition.components) / "latent_upsampler")
    weights = load_file(definition_folder / "diffusion_pytorch_model.safetensors")
    save_file(weights, root / "ckpts" / "ltxv_0.9.7_spatial_upscaler.safetensors")
    moved = definition_folder.rename(folder)
    try:
        plan = explain(definition)
        assert plan.path("latent_upsampler") == root / "ckpts" / "ltxv_0.9.7_spatial_upscaler.safetensors"
        assert np.array_equal(make(definition, settings).frames, expected)
    finally:
        moved.rename(definition_folder)


def test_the_estimate_knows_both_scales(ltx):
    plan = explain(ltx("ltxv-13b-0.9.8-distilled"))
    sizes = estimate(plan)
    upsampler = next(item for item in plan.items if item.subject == "latent_upsampler")
    assert sizes.upsampler == 2 * upsampler.bytes > 0
    assert sizes.encoders + upsampler.bytes == sum(item.bytes for item in plan.items if item.repository)
    small = replace(plan.definition, architecture=replace(plan.definition.architecture, scales=None))
    assert activations(plan) > 1.6 * activations(replace(plan, definition=small))


# --- the engine -----------------------------------------------------------------------------------------------------


def test_steps_and_previews_of_both_scales(ltx, monkeypatch):
    monkeypatch.setattr("reeltune.engine.preview._SECONDS", 0.0)
    events = []
    settings = {key: value for key, value in SETTINGS.items() if key != "negative_prompt"}
    make(ltx("ltxv-13b-0.9.8-distilled"), settings, events)
    steps = [(event.done, event.total) for event in events if isinstance(event, Progress) and event.stage == "denoise"]
    assert steps == [(done, 10) for done in range(11)]
    assert sum(isinstance(event, Preview) for event in events) == 6 + 2  # not after the first step of each scale


@pytest.mark.parametrize("profile", list(MemoryProfile))
def test_every_memory_profile_makes_the_same_video(ltx, profile):
    definition = ltx("ltxv-13b-0.9.8-dev")
    definition = replace(definition, architecture=replace(definition.architecture, scales=TINY_DEV))
    settings = SETTINGS | IMAGES | {"num_inference_steps": 4}
    expected = make(definition, settings, memory_profile="resident").frames
    assert np.array_equal(make(definition, settings, memory_profile=profile).frames, expected)


def test_the_second_scale_can_be_cancelled(ltx):
    cancel = CancelToken()
    done = []

    def listen(event):
        if isinstance(event, Progress) and event.stage == "denoise":
            done.append(event.done)
            if event.done == 8:
                cancel.cancel()

    preferences = Preferences(quantization="bf16")
    settings = {key: value for key, value in SETTINGS.items() if key != "negative_prompt"}
    with Engine(ltx("ltxv-13b-0.9.8-distilled"), preferences=preferences, listener=listen) as engine:
        with pytest.raises(Cancelled):
            engine.generate(**settings, cancel=cancel)
        assert done[-1] == 8
        assert engine.generate(**settings).frames.shape == (9, 96, 96, 3)


def test_the_step_cache_starts_over_at_each_scale(ltx, monkeypatch):
    definition = ltx("ltxv-13b-0.9.8-distilled")
    settings = {key: value for key, value in SETTINGS.items() if key != "negative_prompt"}
    plain = make(definition, settings).frames
    monkeypatch.setattr("reeltune.engine.stepcache.threshold", lambda speed: -1.0)
    assert np.array_equal(make(definition, settings | {"skip_steps_cache_type": "tea"}).frames, plain)
    monkeypatch.setattr("reeltune.engine.stepcache.threshold", lambda speed: 100.0)
    events = []
    make(definition, settings | {"skip_steps_cache_type": "tea"}, events)
    messages = [event.message for event in events if isinstance(event, Notice)]
    assert "The step cache skipped most of 7 passes of 10." in messages  # not the 1st, 2nd and 8th


def test_an_upsampler_without_memory_computes_on_the_cpu(ltx, monkeypatch):
    definition = ltx("ltxv-13b-0.9.8-distilled")
    settings = {key: value for key, value in SETTINGS.items() if key != "negative_prompt"}

    def fail(*args):
        raise torch.OutOfMemoryError("CUDA out of memory.")

    monkeypatch.setattr("reeltune.engine.run.upsampled", fail)
    with pytest.raises((torch.OutOfMemoryError, NotEnoughMemory)):
        make(definition, settings)


def test_stored_latents_are_decoded_at_the_size_of_the_video(ltx, monkeypatch):
    from reeltune.errors import DecodeFailed

    definition = ltx("ltxv-13b-0.9.8-distilled")
    settings = {key: value for key, value in SETTINGS.items() if key != "negative_prompt"}
    expected = make(definition, settings).frames
    with Engine(definition, preferences=Preferences(quantization="bf16")) as engine:
        with monkeypatch.context() as broken:
            broken.setattr("reeltune.engine.run.VaeAtWork.decode", lambda *rest: 1 / 0)
            with pytest.raises(DecodeFailed) as caught:
                engine.generate(**settings)
        assert np.array_equal(engine.decode(caught.value.latents).frames, expected)
