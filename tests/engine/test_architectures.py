"""Every architecture makes a video from a definition like the real one, and the same one diffusers makes."""

import inspect
from dataclasses import replace
from pathlib import Path

import diffusers
import numpy as np
import pytest
import torch
from cases import CASES, architecture_of, write_case
from ltx2_reference import by_diffusers as sound_by_diffusers
from ltx_reference import load_pipelines, two_scale_frames, two_scale_latents
from wan_reference import IDS, Video, add_vace_lora

from reeltune import Engine, Notice, Preferences
from reeltune.engine.solvers import scheduler
from reeltune.engine.stages import assemble, load_component
from reeltune.errors import MediaError, NotRunnable, SettingsError
from reeltune.families import ARCHITECTURES
from reeltune.machine import probe
from reeltune.media.mp4 import read_metadata, write_mp4
from reeltune.weights.load import load_transformer
from reeltune.weights.wide import products_in_fp32


@pytest.fixture
def case(root, define, parts, request):
    """A definition with its files and inputs in the root; returns it and the settings."""
    return write_case(request.param, root, define, parts)


def make(definition, settings, events=None):
    heard = events.append if events is not None else (lambda event: None)
    with Engine(definition, preferences=Preferences(quantization="bf16"), listener=heard) as engine:
        video = engine.generate(**settings)
        return video, engine


@pytest.mark.parametrize("case", CASES, indirect=True)
def test_it_makes_the_video_that_diffusers_makes(case, tmp_path):
    definition, settings = case
    video, _ = make(definition, settings)
    size = int(settings["resolution"].split("x")[0])
    frames = 1 if definition.architecture.image_outputs else settings["video_length"]
    assert video.frames.shape == (frames, size, size, 3)
    assert video.frames.std() > 0
    stored = read_metadata(video.save(tmp_path / "out.mp4"))
    assert stored["architecture"] == definition.architecture.id
    if definition.architecture.family.name == "ltx2":
        reference, sound = by_diffusers_with_sound(definition, settings)
        assert np.array_equal(video.sound.samples, sound)
    else:
        reference = by_diffusers(definition, settings)
    tolerance = 0 if definition.architecture.family.name in ("hunyuan_1_5", "kandinsky_5", "ltx2") else 1
    assert np.abs(video.frames.astype(int) - reference.astype(int)).max() <= tolerance


def by_diffusers(definition, settings, step_end=None):
    """The same video by the pipeline in one go, all parts in memory. `step_end`: called after each step."""
    from reeltune.engine.inputs import read_inputs
    from reeltune.engine.reporting import Reporter
    from reeltune.request.build import build_request
    from reeltune.request.parse import complete_settings

    architecture = definition.architecture
    if architecture.id in IDS:
        return Video(definition, settings).frames
    whole, _ = complete_settings(definition, settings)
    request, _ = build_request(definition, whole)
    images = read_inputs(request, Reporter(print))
    if architecture.family.name == "ltx":
        pipelines = load_pipelines(definition, request)
        latents = two_scale_latents(pipelines, request, images, *(list(scale.timesteps) for scale in request.passes))
        return two_scale_frames(pipelines, request, latents)
    whole_models = {"kandinsky_5": {"text_encoder": "Qwen2_5_VLForConditionalGeneration"}}
    loaded = {
        row.name: load_component(
            replace(row, class_name=whole_models.get(architecture.family.name, {}).get(row.name, row.class_name)),
            Path(definition.components) / row.name,
            torch.float32 if row.name in ("vae", "image_encoder") else torch.bfloat16,
        )
        for row in architecture.parts
    }  # fmt: skip
    modules = [Path(rows[0].url) for slot, rows in definition.slots.items() if slot.startswith("modules")]
    for slot in ("transformer", "transformer_2"):
        if slot in definition.slots:
            path = Path(definition.slots[slot][0].url)
            loaded[slot] = load_transformer(path, "bf16", modules=modules, config=architecture.config)
    options = dict(architecture.options) | ({"boundary_ratio": 0.9} if "transformer_2" in loaded else {})
    name = architecture.image_pipeline if architecture.image_pipeline and images.start else architecture.pipeline
    pipeline = assemble(
        getattr(diffusers, name), {**loaded, **options, "scheduler": scheduler(request, architecture.family)}
    )
    pipeline.set_progress_bar_config(disable=True)
    if (
        architecture.id.startswith(("fun_inp", "i2v")) and "image_encoder" in loaded
    ):  # the pipeline would look at the end image too, and fail
        look = pipeline.encode_image
        pipeline.encode_image = lambda _, device: look(images.start, device)
    wanted = inspect.signature(pipeline.__call__).parameters
    call = {
        "prompt": request.prompt, "height": request.height, "width": request.width, "num_frames": request.frames,
        "num_inference_steps": request.steps, "generator": torch.Generator().manual_seed(request.seed),
        "output_type": "np", "max_sequence_length": architecture.family.max_text_tokens,
        "guidance_scale": request.guidance_scale, "negative_prompt": request.negative_prompt,
    }  # fmt: skip
    if architecture.family.name == "wan":
        call["guidance_scale_2"] = whole.get("guidance2_scale") if "transformer_2" in loaded else None
        call |= {"image": images.start, "last_image": images.end} if images.start else {}
        call |= {"video": list(images.control), "mask": list(images.mask)} if images.control else {}
        call |= {"reference_images": list(images.references)} if images.references else {}
        call |= of_relatives(architecture.id, whole, images, request)
    if architecture.id == "vace_ditto_14B":
        of_mode = definition.root / "loras" / "wan" / definition.preload[request.mode].url
        add_vace_lora(loaded["transformer"], of_mode)
    if architecture.family.name == "hunyuan":
        true = bool(request.negative_prompt)
        call |= {
            "guidance_scale": whole["embedded_guidance_scale"], "true_cfg_scale": request.guidance_scale if true else 1.0,
            "negative_prompt": request.negative_prompt if true else None,
        }  # fmt: skip
        call |= {"image": images.start} if images.start else {}
        call["num_frames"] += 4 * (loaded["transformer"].config.image_condition_type == "latent_concat")
    if architecture.family.name == "hunyuan_1_5":
        pipeline.register_modules(guider=diffusers.ClassifierFreeGuidance(guidance_scale=request.guidance_scale))
        pipeline.target_size = request.width  # it chooses the size itself, among those of about as many pixels
        call |= {"image": images.start} if images.start else {}
    if architecture.family.name == "kandinsky_5":
        call |= {"image": images.start} if images.start else {}
        whole_encode = loaded["vae"].encode  # it hands the image to its VAE in the transformer's data type
        loaded["vae"].encode = lambda pixels, **options: whole_encode(pixels.float(), **options)
    slow = probe().products_in_fp32(
        "cpu", "bf16"
    )  # then the engine multiplies in fp32: the same arithmetic on both sides
    if step_end is not None:
        call["callback_on_step_end"] = step_end
    torch.manual_seed(request.seed)
    with torch.inference_mode(), products_in_fp32(slow):
        frames = pipeline(**{key: value for key, value in call.items() if key in wanted}).frames[0]
    if architecture.image_outputs:
        frames = frames[-1:]
    return (np.asarray(frames) * 255).round().clip(0, 255).astype(np.uint8)


def by_diffusers_with_sound(definition, settings):
    """Frames and samples of LTX-2."""
    from reeltune.engine.inputs import read_inputs
    from reeltune.engine.reporting import Reporter
    from reeltune.request.parse import parse

    images = read_inputs(parse(definition, settings).requests[0], Reporter(print))
    return sound_by_diffusers(definition, settings, images)


def of_relatives(id, settings, images, request):
    """Further arguments of the pipelines of Wan's relatives."""
    windows = {
        "base_num_frames": settings.get("sliding_window_size"), "overlap_history": settings.get("sliding_window_overlap"),
        "addnoise_condition": 20 if request.frames > settings.get("sliding_window_size", 0) else 0,
    }  # fmt: skip
    if id.startswith("sky"):
        mode = settings["model_mode"]
        return windows | {"ar_step": mode, "causal_block_size": 5 if mode else 1, "fps": request.fps}
    if id == "animate":
        return {
            "image": images.references[0], "pose_video": list(images.control), "face_video": list(images.face),
            "segment_frame_length": min(request.frames, settings["sliding_window_size"]),
            "mode": "replace" if images.background else "animate", "background_video": list(images.background) or None,
            "mask_video": list(images.mask) or None,
        }  # fmt: skip
    if id == "chrono_edit":
        reasoning = settings["model_mode"] == 1
        return {
            "num_frames": 29, "enable_temporal_reasoning": reasoning, "num_temporal_reasoning_steps": request.steps * reasoning,
        }  # fmt: skip
    if id == "vace_ditto_14B":
        return {"mask": None}  # everything changes
    return {}


def test_every_architecture_is_tried():
    assert {architecture_of(name) for name in CASES} == set(ARCHITECTURES)


@pytest.mark.parametrize("case", ["hunyuan_1_5_i2v"], indirect=True)
def test_hunyuan_1_5_makes_the_size_that_is_asked_for(case):
    """Its pipeline would choose one of the sizes of training, of about 640x640 pixels."""
    definition, settings = case
    video, _ = make(definition, settings | {"resolution": "64x48"})
    assert video.frames.shape == (5, 48, 64, 3)


@pytest.mark.parametrize("case", ["hunyuan_1_5_t2v"], indirect=True)
def test_texts_in_quotation_marks_are_read_by_letters(case):
    definition, settings = case
    videos = [make(definition, settings | {"prompt": f"a sign {text}"})[0] for text in ('"cat"', '"dog"', '"cat"')]
    assert np.array_equal(videos[0].frames, videos[2].frames)
    assert not np.array_equal(videos[0].frames, videos[1].frames)


@pytest.mark.parametrize("case", ["k5_lite_i2v"], indirect=True)
@pytest.mark.parametrize("frames", [1, 5, 13])
def test_short_videos_of_kandinsky(case, frames):
    """Its pipeline fits the first four latent frames to later ones: to nothing, NaN, in videos this short."""
    definition, settings = case
    video, _ = make(definition, settings | {"video_length": frames})
    assert video.frames.shape == (frames, 32, 32, 3)


@pytest.mark.parametrize("case", ["t2v", "i2v", "vace_14B", "hunyuan_i2v_token"], indirect=True)
def test_inputs_that_are_missing_wrong_or_not_taken_are_named(case, root):
    definition, settings = case
    (root / "text.png").write_text("no image")
    takes = [row.key for row in definition.architecture.inputs]
    with Engine(definition, preferences=Preferences(quantization="bf16")) as engine:
        for key, wrong in (("image_start", "nothing.png"), ("video_guide", "nothing.mp4")):
            message = f"{key}: .*nothing" if key in takes else f"{definition.architecture.id} does not accept {key}"
            with pytest.raises(SettingsError, match=message):
                engine.generate(**settings | {key: wrong})
        if "image_start" in takes:
            with pytest.raises(SettingsError, match="needs image_start"):
                engine.generate(**settings | {"image_start": ""})
            with pytest.raises(MediaError, match="not an image"):
                engine.generate(**settings | {"image_start": "text.png"})
            with pytest.raises(MediaError, match="is an MP4 or MOV video, not an image"):
                engine.generate(**settings | {"image_start": "guide.mp4"})
            with pytest.raises(SettingsError, match="2 files"):
                engine.generate(**settings | {"image_start": ["start.png", "end.png"]})
        if "video_guide" in takes:
            with pytest.raises(MediaError, match="not a video"):
                engine.generate(**settings | {"video_guide": "text.png"})
            with pytest.raises(SettingsError, match="needs a video_guide"):
                engine.generate(**settings | {"video_guide": None})
            with pytest.raises(NotRunnable, match="P converts the control video to poses"):
                engine.generate(**settings | {"video_prompt_type": "PV"})
            with pytest.raises(SettingsError, match="I needs image_refs"):
                engine.generate(**settings | {"video_prompt_type": "VMI", "image_refs": []})


@pytest.mark.parametrize("case", ["i2v"], indirect=True)
def test_paths_are_stored_as_text(case, root, tmp_path):
    definition, settings = case
    video, _ = make(definition, settings | {"image_start": root / "start.png"})
    stored = read_metadata(video.save(tmp_path / "out.mp4"))
    assert stored["settings"]["image_start"] == str(root / "start.png")


@pytest.mark.parametrize("case", ["vace_14B"], indirect=True)
def test_inputs_are_fitted_aloud(case, root):
    definition, settings = case
    write_mp4(root / "long.mp4", np.zeros((30, 48, 64, 3), np.uint8), 32, {})
    write_mp4(root / "short.mp4", np.zeros((3, 32, 32, 3), np.uint8), 16, {})
    events = []
    make(definition, settings | {"video_guide": "long.mp4", "video_mask": "short.mp4"}, events)
    said = " ".join(event.message for event in events if isinstance(event, Notice))
    assert "video_guide of 64x48 is scaled to 32x32, 16 pixels of its width cut off" in said
    assert "video_guide has 32 frames a second: 16 are taken of each" in said
    assert "video_guide is longer than the video: its first 5 frames are used" in said
    assert "video_mask has 3 frames of 5: its last one is used for the rest" in said
    events.clear()
    make(definition, settings | {"video_guide": "short.mp4", "video_mask": ""}, events)
    said = " ".join(event.message for event in events if isinstance(event, Notice))
    assert "video_guide has 3 frames of 5: the model makes up the other 2" in said


@pytest.mark.parametrize("case", ["t2v_2_2"], indirect=True)
def test_two_transformers_take_turns_where_they_do_not_fit(case, monkeypatch):
    definition, settings = case
    both, _ = make(definition, settings)
    monkeypatch.setattr("reeltune.engine.models.fits", lambda size, device: False)
    events = []
    turns, _ = make(definition, settings, events)
    assert np.array_equal(both.frames, turns.frames)
    said = [event.message for event in events if isinstance(event, Notice)]
    assert "transformer makes room for transformer_2: they don't both fit." in said
