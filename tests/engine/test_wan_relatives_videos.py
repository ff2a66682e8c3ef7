"""Lucy Edit, SkyReels V2, Wan Animate and ChronoEdit through the engine."""

import numpy as np
import pytest
import torch
from cases import CASES, MOTION, REPLACED, write_case
from PIL import Image
from test_architectures import by_diffusers, make

from reeltune import Engine, Notice, Preferences
from reeltune.engine import run
from reeltune.errors import MediaError, NotRunnable, SettingsError
from reeltune.events import Preview, Progress
from reeltune.media.mp4 import write_mp4
from reeltune.request.parse import parse

NAMES = [name for name in CASES if name.startswith(("lucy", "sky", "animate", "chrono"))]


def notices(events):
    return " ".join(event.message for event in events if isinstance(event, Notice))


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("layout", ["original", "diffusers"])
def test_the_latents_are_those_of_diffusers_pipeline_bit_for_bit(name, layout, root, define, parts, monkeypatch):
    definition, settings = write_case(name, root, define, parts, layout)
    made, theirs = [], []
    inner = run.denoise
    monkeypatch.setattr(run, "denoise", lambda *rest: made.append(inner(*rest)) or made[-1])
    frames = make(definition, settings)[0].frames

    def step_end(pipeline, index, timestep, values):
        if index == 0:
            theirs.append(None)
        theirs[-1] = values["latents"].clone()
        return values

    reference = by_diffusers(definition, settings, step_end)
    skipped = 1 if name.startswith("animate") else 0
    if name.startswith("sky") and len(theirs) > 1:  # the later windows begin with frames of the one before
        overlap = (settings.get("sliding_window_overlap", 17) - 1) // 4 + 1
        theirs[1:] = [latents[:, :, overlap:] for latents in theirs[1:]]
    expected = torch.cat([latents[:, :, skipped:] for latents in theirs], dim=2)
    assert torch.equal(made[0].video, expected.float())
    assert np.abs(frames.astype(int) - reference.astype(int)).max() <= 1


# --- windows --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", ["sky_df_14B", "sky_df_14B, blocks", "animate, replaced"])
def test_steps_and_previews_of_all_windows(name, root, define, parts, monkeypatch):
    definition, settings = write_case(name, root, define, parts)
    request = parse(definition, settings).requests[0]
    assert request.windows == {"sky_df_14B": 2, "sky_df_14B, blocks": 2, "animate, replaced": 3}[name]
    monkeypatch.setattr("reeltune.engine.preview._SECONDS", 0.0)
    events = []
    with Engine(
        definition, preferences=Preferences(quantization="bf16"), listener=events.append, previews=True
    ) as engine:
        engine.generate(**settings)
    steps = [(event.done, event.total) for event in events if isinstance(event, Progress) and event.stage == "denoise"]
    total = request.windows * request.steps
    assert steps[0] == (0, total)
    assert steps[-1] == (total, total)
    assert [done for done, _ in steps] == sorted(done for done, _ in steps)
    assert any(isinstance(event, Preview) for event in events)
    assert "No further previews" not in notices(events)


@pytest.mark.parametrize("name", ["sky_df_14B", "sky_df_14B, blocks", "animate, replaced"])
def test_each_window_has_a_prompt_of_its_own(name, root, define, parts, monkeypatch):
    definition, settings = write_case(name, root, define, parts)
    settings |= {"prompt": "a red circle\na blue square", "multi_prompts_gen_type": "W"}
    made, theirs = [], []
    inner = run.denoise
    monkeypatch.setattr(run, "denoise", lambda *rest: made.append(inner(*rest)) or made[-1])
    make(definition, settings)

    def step_end(pipeline, index, timestep, values):
        if index + 1 < pipeline.num_timesteps:
            return values
        theirs.append(values["latents"].clone())
        text = pipeline.encode_prompt("a blue square", max_sequence_length=512)[0]
        return {**values, "prompt_embeds": text.to(pipeline.transformer.dtype)}

    by_diffusers(definition, settings, step_end)
    assert torch.equal(made[0].video[:, :, -1:], theirs[-1][:, :, -1:].float())
    make(definition, settings | {"multi_prompts_gen_type": "FG"})
    assert not torch.equal(made[0].video, made[1].video)
    windows = parse(definition, settings).requests[0].windows
    in_reverse = settings | {"prompt": "\n".join(["a blue square"] * (windows - 1) + ["a red circle"])}
    make(definition, in_reverse)
    assert not torch.equal(made[0].video[:, :, :1], made[2].video[:, :, :1])


def test_a_step_of_each_window_has_its_own_weights_of_loras(root, define, parts, monkeypatch):
    from reeltune.engine.models import LoadedTransformer

    definition, settings = write_case("sky_df_14B", root, define, parts)
    used = []
    monkeypatch.setattr(LoadedTransformer, "set_lora_weights", lambda self, step, device: used.append(step))
    make(definition, settings | {"guidance_scale": 1.0})
    assert used == [0, 1, 0, 1]


def test_shared_frames_have_noise_that_follows_from_the_seed(root, define, parts):
    definition, settings = write_case("sky_df_14B", root, define, parts)
    state = torch.random.get_rng_state()
    first = make(definition, settings)[0].frames
    torch.randn(7)
    assert not torch.equal(torch.random.get_rng_state(), state)
    assert np.array_equal(make(definition, settings)[0].frames, first)
    plain = make(definition, settings | {"sliding_window_overlap_noise": 0})[0].frames
    assert np.array_equal(plain[:9], first[:9])
    assert not np.array_equal(plain, first)


def test_modes_do_not_stay_with_a_warm_model(root, define, parts):
    definition, settings = write_case("sky_df_14B", root, define, parts)
    short = settings | {"video_length": 17, "sliding_window_size": 97}
    with Engine(definition, preferences=Preferences(quantization="bf16")) as engine:
        turns = [engine.generate(**short | {"model_mode": mode}).frames for mode in (0, 5, 0)]
    assert np.array_equal(turns[0], turns[2])
    one_block = engine.definition
    assert one_block.architecture.id == "sky_df_14B"
    longer = settings | {"video_length": 37, "sliding_window_size": 97}
    assert not np.array_equal(
        make(definition, longer)[0].frames, make(definition, longer | {"model_mode": 5})[0].frames
    )


def test_latents_of_windows_are_decoded_as_they_were(root, define, parts):
    definition, settings = write_case("animate, replaced", root, define, parts)
    with Engine(definition, preferences=Preferences(quantization="bf16")) as engine:
        video = engine.generate(**settings)
        again = engine.decode(video.latents)
    assert np.array_equal(video.frames, again.frames)
    assert video.frames.shape == (13, 32, 32, 3)


# --- inputs ---------------------------------------------------------------------------------------------------------


def test_videos_that_are_too_short_are_held(root, define, parts):
    write = np.zeros((3, 40, 40, 3), np.uint8)
    for name in ("lucy_edit", "animate, replaced"):
        definition, settings = write_case(name, root, define, parts)
        for key in ("video_guide", "video_guide2", "custom_guide", "video_mask"):
            if key in settings:
                write_mp4(root / f"{key}.mp4", write, definition.architecture.frame_rate, {})
                settings[key] = f"{key}.mp4"
                events = []
                frames = settings["video_length"]
                make(definition, settings, events)
                assert f"{key} has 3 frames of {frames}: its last one is used for the rest." in notices(events)


def test_what_replacing_a_person_needs(root, define, parts):
    definition, settings = write_case("animate", root, define, parts)
    with pytest.raises(SettingsError, match="custom_guide needs a video_mask"):
        make(definition, settings | {"custom_guide": "guide.mp4"})
    with pytest.raises(SettingsError, match="video_mask needs a custom_guide"):
        make(definition, settings | {"video_mask": "mask.mp4"})
    for key in MOTION:
        with pytest.raises(SettingsError, match=f"animate needs {key}"):
            make(definition, settings | {key: ""})
    with pytest.raises(SettingsError, match="2 files"):
        make(definition, settings | {"image_refs": ["start.png", "end.png"]})
    with pytest.raises(NotRunnable, match="P converts the control video to poses"):
        make(definition, settings | {"video_prompt_type": "PVBI"})
    with pytest.raises(MediaError, match="not a video"):
        make(definition, settings | {"video_guide2": "start.png"})
    changed = make(definition, settings | REPLACED)[0].frames
    assert not np.array_equal(changed, make(definition, settings)[0].frames)


def test_the_character_has_a_black_border_and_is_part_of_the_embeddings(root, define, parts, monkeypatch):
    from reeltune.engine import engine as engine_module

    definition, settings = write_case("animate", root, define, parts)
    seen = []
    inner = engine_module.read_inputs
    monkeypatch.setattr(engine_module, "read_inputs", lambda *rest: seen.append(inner(*rest)) or seen[-1])
    Image.new("RGB", (20, 40), (200, 100, 50)).save(root / "tall.png")
    with Engine(definition, preferences=Preferences(quantization="bf16")) as engine:
        first = engine.generate(**settings).frames
        second = engine.generate(**settings | {"image_refs": "tall.png"}).frames
        third = engine.generate(**settings).frames
    assert np.array_equal(first, third)
    assert not np.array_equal(first, second)
    character = np.asarray(seen[1].references[0])
    assert character.shape == (32, 32, 3)
    assert (character[:, 0] == 0).all()
    assert (character[16, 16] == (200, 100, 50)).all()
    assert {frame.size for frame in seen[0].face} == {(512, 512)}


def test_a_picture_is_one_frame(root, define, parts):
    definition, settings = write_case("chrono_edit", root, define, parts)
    video, _ = make(definition, settings)
    assert video.frames.shape == (1, 32, 32, 3)
    events = []
    reasoned, _ = make(definition, settings | {"model_mode": 1}, events)
    assert not np.array_equal(video.frames, reasoned.frames)
    with pytest.raises(SettingsError, match="Invalid value 2 for model_mode") as caught:
        make(definition, settings | {"model_mode": 2})
    assert "0 (off), 1 (on)" in caught.value.hint


def test_the_step_cache_of_an_edited_video(root, define, parts, monkeypatch):
    definition, settings = write_case("lucy_edit", root, define, parts)
    settings |= {"num_inference_steps": 4}
    cached = settings | {"skip_steps_cache_type": "tea", "skip_steps_multiplier": 2.0}
    plain = make(definition, settings)[0].frames
    monkeypatch.setattr("reeltune.engine.stepcache.threshold", lambda speed: -1.0)
    assert np.array_equal(make(definition, cached)[0].frames, plain)
    monkeypatch.setattr("reeltune.engine.stepcache.threshold", lambda speed: 100.0)
    events = []
    make(definition, cached, events)
    assert "The step cache skipped most of 4 passes of 8." in notices(events)
