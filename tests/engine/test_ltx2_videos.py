"""LTX-2: its sound, its guidance, the LoRA of its second pass, and what is stored of a video."""

import base64

import numpy as np
import pytest
import tiny_parts
from cases import write_case
from diffusers import LTX2InContextPipeline
from diffusers.pipelines.ltx2 import LTX2LatentUpsamplerModel

from reeltune import Engine, Notice, Preferences
from reeltune.errors import DecodeFailed, SettingsError
from reeltune.events import Preview
from reeltune.families.scales import LTX2_LEVELS
from reeltune.planning.memory import MemoryProfile
from reeltune.request.parse import parse
from reeltune.request.steps import step_table
from reeltune.weights._libraries import is_int8
from serving import chromium
from sounding import decoded

SMALL = {
    "resolution": "64x64",
    "video_length": 9,
    "num_inference_steps": 2,
    "seed": 3,
    "prompt": "a cat",
    "guidance_phases": 1,
}


@pytest.fixture
def ltx2(root, define, parts):
    """A tiny model of LTX-2, by the name of its case."""
    return lambda name: write_case(name, root, define, parts)[0]


def make(definition, settings, events=None, **wishes):
    heard = events.append if events is not None else (lambda event: None)
    preferences = Preferences(**{"quantization": "bf16"} | wishes)
    with Engine(definition, preferences=preferences, listener=heard, previews=events is not None) as engine:
        return engine.generate(**settings)


def equal(one, other):
    return np.array_equal(one.frames, other.frames) and np.array_equal(one.sound.samples, other.sound.samples)


# --- sound --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("name", "rate"), [("ltx2_19B", 24000), ("ltx2_22B", 48000)])
def test_the_sound_in_the_file_is_as_long_as_the_video(ltx2, tmp_path, name, rate):
    video = make(ltx2(name), SMALL | {"video_length": 25})
    assert video.sound.rate == rate
    assert video.sound.samples.dtype == np.float32
    assert video.sound.samples.std() > 1e-4
    assert abs(video.sound.samples.shape[1] / rate - 25 / 24) < 0.1
    samples, stored_rate = decoded(video.save(tmp_path / "x.mp4"))
    assert stored_rate == rate
    assert abs(samples.shape[1] / rate - 25 / 24) < 1 / 24


# Decodes a file with WebAudio, and with a video element that plays it to its end.
PLAY = """async address => {
  const content = await (await fetch(address)).arrayBuffer();
  const sound = await new OfflineAudioContext(2, 48000, 48000).decodeAudioData(content);
  const video = Object.assign(document.createElement('video'), { src: address, muted: true });
  await new Promise((resolve, reject) => { video.onended = resolve; video.onerror = reject; video.play(); });
  return {
    samples: [...sound.getChannelData(0)], seconds: sound.duration, length: video.duration,
    bytes: video.webkitAudioDecodedByteCount, frames: video.webkitDecodedFrameCount,
  };
}"""


@pytest.mark.parametrize("name", ["ltx2_19B", "ltx2_22B"])
def test_chromium_plays_the_sound_with_its_frames(ltx2, chromium, tmp_path, name):
    video = make(ltx2(name), SMALL | {"video_length": 25})
    content = video.save(tmp_path / "x.mp4").read_bytes()
    page = chromium.new_page()
    played = page.evaluate(PLAY, f"data:video/mp4;base64,{base64.b64encode(content).decode()}")
    page.close()
    frame = 1 / 24
    assert played["seconds"] == pytest.approx(25 * frame, abs=frame)
    assert played["length"] == pytest.approx(25 * frame, abs=frame)
    assert (played["frames"], played["bytes"] > 0) == (25, True)
    heard, made = np.array(played["samples"]), video.sound.samples[0]
    heard = np.interp(np.arange(len(made)) / video.sound.rate, np.arange(len(heard)) / 48000, heard)
    lags = np.correlate(heard, made, "full")
    assert abs(int(lags.argmax()) - (len(made) - 1)) / video.sound.rate < frame


@pytest.mark.parametrize("name", ["ltx2_19B", "ltx2_22B"])
@pytest.mark.parametrize("quantization", ["bf16", "int8"])
def test_every_memory_profile_makes_the_same_sound(ltx2, name, quantization):
    definition = ltx2(name)
    settings = SMALL | {"guidance_phases": 2, "resolution": "128x128", "perturbation_layers": [1]}
    expected = make(definition, settings, quantization=quantization, memory_profile="resident")
    for profile in tuple(MemoryProfile)[1:]:
        assert equal(make(definition, settings, quantization=quantization, memory_profile=profile), expected), profile


def test_stored_latents_have_the_sound(ltx2, monkeypatch):
    definition = ltx2("ltx2_19B")
    expected = make(definition, SMALL)
    for broken in ("VaeAtWork.decode", "Run._sound"):
        with Engine(definition, preferences=Preferences(quantization="bf16")) as engine:
            with monkeypatch.context() as patch:
                patch.setattr(f"reeltune.engine.run.{broken}", lambda *rest: 1 / 0)
                with pytest.raises(DecodeFailed) as caught:
                    engine.generate(**SMALL)
            assert equal(engine.decode(caught.value.latents), expected)


def test_previews_show_the_video(ltx2):
    events = []
    settings = SMALL | {"image_start": "start.png", "guidance_phases": 2, "resolution": "128x128"}
    make(ltx2("ltx2_19B, images"), settings, events)
    assert any(isinstance(event, Preview) for event in events)


# --- guidance ------------------------------------------------------------------------------------------------------

KEYS = {
    "guidance_scale": 1.0, "audio_guidance_scale": 1.0, "alt_guidance_scale": 1.0, "alt_scale": 0.0,
    "perturbation_switch": 0, "perturbation_layers": [0],
}  # fmt: skip


def test_every_setting_of_guidance_changes_the_video(ltx2):
    definition = ltx2("ltx2_19B")
    base = SMALL | {"perturbation_layers": [1], "num_inference_steps": 3}
    made = [make(definition, base)] + [make(definition, base | {key: value}) for key, value in KEYS.items()]
    assert len({video.frames.tobytes() for video in made}) == len(made)
    assert len({video.sound.samples.tobytes() for video in made}) == len(made)


def test_spatiotemporal_guidance_has_its_steps(ltx2):
    definition = ltx2("ltx2_19B")
    base = SMALL | {"perturbation_layers": [1], "num_inference_steps": 4}
    without = make(definition, base | {"perturbation_switch": 0})
    nowhere = make(definition, base | {"perturbation_end_perc": 0})
    half = make(definition, base | {"perturbation_start_perc": 50})
    whole = make(definition, base)
    assert equal(without, nowhere)
    assert not equal(half, whole)
    assert not equal(half, without)
    rows = step_table(parse(definition, base | {"perturbation_start_perc": 50}).requests[0])
    assert [(row.steps, row.perturbation) for row in rows] == [("1-2", 0.0), ("3-4", 1.0)]


def test_layers_that_the_model_does_not_have_are_reported(ltx2):
    events = []
    made = make(ltx2("ltx2_19B"), SMALL | {"perturbation_layers": [28]}, events)
    assert any("guidance is off: the model has" in event.message for event in events if isinstance(event, Notice))
    assert equal(made, make(ltx2("ltx2_19B"), SMALL | {"perturbation_switch": 0}))


# --- passes ---------------------------------------------------------------------------------------------------------


def lora_weights(definition, **settings):
    request = parse(definition, SMALL | settings).requests[0]
    return [lora.weights for lora in request.loras]


def test_the_lora_of_the_second_pass_has_its_steps(ltx2):
    definition = ltx2("ltx2_19B")
    assert lora_weights(definition, guidance_phases=2) == [(0.0, 0.0, 1.0, 1.0, 1.0)]
    assert lora_weights(definition) == []
    assert lora_weights(definition, sample_solver="distilled_8_steps") == [(0.5,) * 8]
    assert lora_weights(definition, sample_solver="distilled_8_steps_ancestral", guidance_phases=2) == [(0.5,) * 11]
    users = {"activated_loras": ["x-distilled-lora-384.safetensors"], "loras_multipliers": "0;0.7"}
    assert lora_weights(definition, guidance_phases=2, **users) == [(0.0, 0.0, 0.7, 0.7, 0.7)]


def test_what_a_distilled_model_fixes_is_not_a_setting(ltx2):
    definition = ltx2("ltx2_22B, distilled")
    request = parse(definition, SMALL | {"guidance_phases": 2}).requests[0]
    levels = [time / 1000 for scale in request.passes for time in scale.timesteps]
    assert levels == pytest.approx([*LTX2_LEVELS, *LTX2_LEVELS[-3:]])
    assert [(scale.width, scale.height) for scale in request.passes] == [(32, 32), (64, 64)]
    assert not request.guided
    assert request.loras == ()
    notices = parse(definition, SMALL | {"guidance_scale": 4.0, "num_inference_steps": 20}).notices
    assert any("guidance_scale" in notice for notice in notices)


def test_only_the_upsampler_makes_the_second_pass(ltx2, monkeypatch):
    """A video in one pass needs no upsampler."""
    used = []
    inner = LTX2LatentUpsamplerModel.forward
    monkeypatch.setattr(LTX2LatentUpsamplerModel, "forward", lambda *args: (used.append(1), inner(*args))[1])
    definition = ltx2("ltx2_19B")
    make(definition, SMALL)
    assert not used
    make(definition, SMALL | {"guidance_phases": 2})
    assert used == [1]


def test_sizes_are_multiples_of_both_passes(ltx2):
    parsed = parse(ltx2("ltx2_19B"), SMALL | {"resolution": "832x480"})
    assert (parsed.requests[0].width, parsed.requests[0].height) == (832, 448)
    assert any("multiples of 64" in notice for notice in parsed.notices)


def test_sound_as_an_input_is_refused(ltx2):
    with pytest.raises(SettingsError, match="audio"):
        parse(ltx2("ltx2_19B"), SMALL | {"audio_guide": "x.wav"})


# --- reference images -----------------------------------------------------------------------------------------------

CLIP = SMALL | {"video_length": 17, "resolution": "128x128", "image_refs": ["start.png", "end.png"]}


def test_reference_images_are_seen_in_both_passes(ltx2, monkeypatch):
    seen = []
    inner = LTX2InContextPipeline.prepare_latents

    def prepare(self, **options):
        seen.append((options["width"], options["height"], len(options["reference_conditions"][0].frames)))
        return inner(self, **options)

    monkeypatch.setattr(LTX2InContextPipeline, "prepare_latents", prepare)
    video = make(ltx2("ltx2_22B_msr, distilled"), CLIP | {"guidance_phases": 2, "video_prompt_type": "KI"})
    assert seen == [(64, 64, 17), (128, 128, 17)]
    assert video.frames.shape == (17, 128, 128, 3)
    assert video.sound.samples.std() > 1e-4


def test_each_reference_image_and_its_place_count(ltx2):
    definition = ltx2("ltx2_22B_msr, distilled")
    letters = [CLIP | {"video_prompt_type": kind} for kind in ("KI", "I")]
    others = [CLIP | {"image_refs": names, "video_length": 33} for names in (["start.png"], ["end.png", "start.png"])]
    settings = [letters[0], letters[1] | {"video_length": 33}, *(row | {"video_prompt_type": "I"} for row in others)]
    made = [make(definition, row).frames[:17].tobytes() for row in settings]
    assert len(set(made)) == len(made)


@pytest.mark.parametrize("quantization", ["bf16", "int8"])
def test_every_memory_profile_makes_the_same_video_of_references(ltx2, quantization):
    definition = ltx2("ltx2_22B_msr, distilled")
    settings = CLIP | {"guidance_phases": 2, "video_prompt_type": "KI"}
    expected = make(definition, settings, quantization=quantization, memory_profile="resident")
    for profile in tuple(MemoryProfile)[1:]:
        assert equal(make(definition, settings, quantization=quantization, memory_profile=profile), expected), profile


def test_latents_and_previews_of_references_show_the_video_alone(ltx2):
    events = []
    definition = ltx2("ltx2_22B_msr, distilled")
    video = make(definition, CLIP | {"video_prompt_type": "KI"}, events)
    previews = [event for event in events if isinstance(event, Preview)]
    assert previews
    assert not any("No further previews" in event.message for event in events if isinstance(event, Notice))
    with Engine(definition, preferences=Preferences(quantization="bf16")) as engine:
        assert equal(engine.decode(video.latents), video)


# --- the text encoder -----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", ["ltx_2", "ltx_2_5"])
def test_the_text_encoder_becomes_int8_where_its_kind_is_known(parts, kind):
    from reeltune.engine.stages import load_component
    from reeltune.families import ARCHITECTURES

    architecture = ARCHITECTURES["ltx2_25_22B" if kind == "ltx_2_5" else "ltx2_19B"]
    component = next(row for row in architecture.parts if row.name == "text_encoder")
    folder = parts(kind) / "text_encoder"
    model = load_component(component, folder, tiny_parts.BF16, quantize=True)
    int8 = [name for name, row in model.named_parameters() if is_int8(row.data)]
    assert len(int8) == (0 if kind == "ltx_2_5" else 2 * 7)
