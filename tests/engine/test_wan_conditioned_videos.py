"""Phantom, SVI 2.0 Pro, Wan-Move and Ditto through the engine, against their rules in `wan_reference`."""

import numpy as np
import pytest
import tiny_parts
from cases import CASES, write_case
from test_architectures import by_diffusers, make
from wan_reference import IDS, Video

from reeltune import Engine, Notice, Preferences, load_catalog
from reeltune.engine import run
from reeltune.errors import MediaError, NotRunnable, SettingsError
from reeltune.events import Preview, Progress
from reeltune.planning.plan import explain
from reeltune.request.parse import parse

NAMES = [name for name in CASES if name.partition(",")[0] in IDS]


def notices(events):
    return " ".join(event.message for event in events if isinstance(event, Notice))


@pytest.fixture
def latents(monkeypatch):
    """The latents of each video that is made, without those of sound."""
    made = []

    def keeping(inner):
        def keep(*rest):
            found = inner(*rest)
            made.append(getattr(found, "video", found))
            return found

        return keep

    for name in ("denoise", "denoise_in_windows"):
        monkeypatch.setattr(run, name, keeping(getattr(run, name)))
    return made


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("layout", ["original", "diffusers"])
def test_the_latents_follow_the_rule_bit_for_bit(name, layout, root, define, parts, latents):
    definition, settings = write_case(name, root, define, parts, layout)
    frames = make(definition, settings)[0].frames
    reference = Video(definition, settings)
    assert np.array_equal(latents[0].numpy(), reference.latents.float().numpy())
    assert np.abs(frames.astype(int) - reference.frames.astype(int)).max() <= 1


@pytest.mark.parametrize("name", NAMES)
def test_int8_stays_close_to_the_rule(name, root, define, parts, latents):
    definition, settings = write_case(name, root, define, parts)
    for scale in (1.0, 2.0):
        scales = {"guidance_scale": scale, "guidance2_scale": scale}
        reference = Video(definition, settings | scales).latents.float().numpy()
        with Engine(definition, preferences=Preferences(quantization="int8"), save_quantized=True) as engine:
            engine.generate(**settings | scales)
        made = latents.pop().numpy()
        assert not np.array_equal(made, reference)
        assert np.linalg.norm(made - reference) < 0.015 * np.linalg.norm(reference)


# --- Phantom --------------------------------------------------------------------------------------------------------


def test_one_pass_without_guidance_and_three_with_it(root, define, parts, monkeypatch):
    from reeltune.engine.denoiser import Denoiser

    definition, settings = write_case("phantom_14B", root, define, parts)
    passes, inner = [], Denoiser._pass
    monkeypatch.setattr(Denoiser, "_pass", lambda self, *rest: passes.append(rest[0]) or inner(self, *rest))
    guided = make(definition, settings)[0].frames
    assert passes == ["cond", "uncond", "bare"] * settings["num_inference_steps"]
    passes.clear()
    plain = make(definition, settings | {"guidance_scale": 1.0})[0].frames
    assert passes == ["cond"] * settings["num_inference_steps"]
    assert np.abs(plain.astype(int) - Video(definition, settings | {"guidance_scale": 1.0}).frames).max() <= 1
    assert not np.array_equal(guided, plain)


def test_each_reference_image_counts_and_is_required(root, define, parts):
    definition, settings = write_case("phantom_14B", root, define, parts)
    both = make(definition, settings)[0].frames
    assert both.shape == (5, 32, 32, 3)
    assert not np.array_equal(both, make(definition, settings | {"image_refs": ["end.png"]})[0].frames)
    with pytest.raises(SettingsError, match=r"phantom_14B needs image_refs: .* \(People and objects\)"):
        make(definition, settings | {"image_refs": []})
    for key in ("cfg_star_switch", "perturbation_switch"):
        with pytest.raises(NotRunnable, match=f"does not support {key}=1: its guidance has a third pass"):
            make(definition, settings | {key: 1})


def test_the_step_cache_of_three_passes(root, define, parts, monkeypatch):
    definition, settings = write_case("phantom_14B", root, define, parts)
    settings |= {"num_inference_steps": 4}
    cached = settings | {"skip_steps_cache_type": "tea", "skip_steps_multiplier": 2.0}
    plain = make(definition, settings)[0].frames
    monkeypatch.setattr("reeltune.engine.stepcache.threshold", lambda speed: -1.0)
    assert np.array_equal(make(definition, cached)[0].frames, plain)
    monkeypatch.setattr("reeltune.engine.stepcache.threshold", lambda speed: 100.0)
    events = []
    make(definition, cached, events)
    assert "The step cache skipped most of 6 passes of 12." in notices(events)


# --- windows of SVI 2.0 Pro -----------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", ["i2v_2_2_svi2pro, windows", "phantom_14B"])
def test_steps_and_previews(name, root, define, parts, monkeypatch):
    definition, settings = write_case(name, root, define, parts)
    request = parse(definition, settings).requests[0]
    assert request.windows == (3 if "svi" in name else 1)  # 13 frames, and 8 more in each
    monkeypatch.setattr("reeltune.engine.preview._SECONDS", 0.0)
    events = []
    with Engine(
        definition, preferences=Preferences(quantization="bf16"), listener=events.append, previews=True
    ) as engine:
        video = engine.generate(**settings)
        again = engine.decode(video.latents)
    steps = [(event.done, event.total) for event in events if isinstance(event, Progress) and event.stage == "denoise"]
    total = request.windows * request.steps
    assert [done for done, _ in steps] == list(range(total + 1))
    assert {total for _, total in steps} == {total}
    assert any(isinstance(event, Preview) for event in events)
    assert "No further previews" not in notices(events)
    assert np.array_equal(video.frames, again.frames)


def test_the_first_window_is_a_video_of_its_own(root, define, parts):
    definition, settings = write_case("i2v_2_2_svi2pro, windows", root, define, parts)
    whole = make(definition, settings)[0].frames
    assert whole.shape == (29, 32, 32, 3)
    assert np.array_equal(make(definition, settings | {"video_length": 13})[0].frames, whole[:13])
    short = make(definition, settings | {"video_length": 25})[0].frames
    assert np.array_equal(short, whole[:25])


def test_each_window_has_a_prompt_of_its_own(root, define, parts, latents):
    definition, settings = write_case("i2v_2_2_svi2pro, windows", root, define, parts)
    make(definition, settings)
    prompts = {"prompt": "a red circle\na blue square", "multi_prompts_gen_type": "W"}
    make(definition, settings | prompts)
    reference = Video(definition, settings | prompts)
    assert len(reference.windows) == 3  # the last prompt is also that of the third
    assert np.array_equal(latents[1].numpy(), reference.latents.float().numpy())
    assert not np.array_equal(latents[0].numpy(), latents[1].numpy())


def test_the_step_cache_starts_over_in_each_window(root, define, parts, monkeypatch):
    definition, settings = write_case("i2v_2_2_svi2pro, windows", root, define, parts)
    monkeypatch.setattr("reeltune.engine.stepcache.threshold", lambda speed: 100.0)
    cached = settings | {"skip_steps_cache_type": "tea", "skip_steps_multiplier": 2.0, "guidance_phases": 1}
    events = []
    whole = make(definition, cached, events)[0].frames
    assert "The step cache skipped most of 12 passes of 24." in notices(events)
    assert np.array_equal(make(definition, cached | {"video_length": 13})[0].frames, whole[:13])


def test_what_svi_does_not_take(root, define, parts):
    definition, settings = write_case("i2v_2_2_svi2pro", root, define, parts)
    with pytest.raises(SettingsError, match="i2v_2_2_svi2pro does not accept image_end"):
        make(definition, settings | {"image_end": "end.png"})
    with pytest.raises(NotRunnable, match="does not support RIFLEx_setting=1"):
        make(definition, settings | {"RIFLEx_setting": 1})


# --- trajectories ---------------------------------------------------------------------------------------------------


def test_fractions_and_pixels_are_the_same_points(root, define, parts):
    definition, settings = write_case("wanmove", root, define, parts)
    points = np.array([[[4, 4], [20, 12]], *[[[28, 4], [20, 28]]] * 12], np.float64)
    np.save(root / "pixels.npy", points)
    np.save(root / "fractions.npy", (points / 32)[None])
    np.save(root / "columns.npy", np.asfortranarray(points.astype(np.int16)))
    videos = [make(definition, settings | {"custom_guide": f"{name}.npy"})[0].frames for name in
              ("pixels", "fractions", "columns")]  # fmt: skip
    assert np.array_equal(videos[0], videos[1])
    assert np.array_equal(videos[0], videos[2])
    np.save(root / "still.npy", points[:1].repeat(13, 0))
    assert not np.array_equal(videos[0], make(definition, settings | {"custom_guide": "still.npy"})[0].frames)


def test_the_length_of_trajectories_and_hidden_points_are_reported(root, define, parts):
    definition, settings = write_case("wanmove", root, define, parts)
    tracks = np.load(root / "tracks.npy")
    for name, rows, words in (
        ("short", tracks[:5], "custom_guide has 5 frames of 13: nothing is guided after its last one."),
        ("long", tracks.repeat(2, 0), "custom_guide is longer than the video: its first 13 frames are used."),
        ("hidden", np.full((13, 2, 2), -1.0), "custom_guide moves nothing: the first frame shows none of its points."),
        ("numbers", np.full((13, 2, 2), np.nan), "custom_guide moves nothing"),
    ):
        np.save(root / f"{name}.npy", rows)
        events = []
        make(definition, settings | {"custom_guide": f"{name}.npy"}, events)
        assert words in notices(events)


def test_inputs_of_wan_move_that_are_missing_or_wrong(root, define, parts):
    definition, settings = write_case("wanmove", root, define, parts)
    for key in ("image_start", "custom_guide"):
        with pytest.raises(SettingsError, match=f"wanmove needs {key}"):
            make(definition, settings | {key: ""})
    with pytest.raises(SettingsError, match="doesn't exist"):
        make(definition, settings | {"custom_guide": "nothing.npy"})
    with pytest.raises(MediaError, match="is a PNG image, not a NumPy file"):
        make(definition, settings | {"custom_guide": "start.png"})
    with pytest.raises(SettingsError, match="wanmove does not accept video_mask"):
        make(definition, settings | {"video_mask": "mask.mp4"})


# --- Ditto ----------------------------------------------------------------------------------------------------------


def test_each_mode_has_its_lora(root, define, parts):
    definition, settings = write_case("vace_ditto_14B", root, define, parts)
    with Engine(definition, preferences=Preferences(quantization="bf16")) as engine:
        videos = [engine.generate(**settings | {"model_mode": mode}).frames for mode in (0, 1, 2, 0)]
    assert np.array_equal(videos[0], videos[3])
    assert not np.array_equal(videos[0], videos[1])
    assert not np.array_equal(videos[1], videos[2])
    assert np.abs(videos[1].astype(int) - by_diffusers(definition, settings).astype(int)).max() <= 1
    with pytest.raises(SettingsError, match="Invalid value 3 for model_mode"):
        make(definition, settings | {"model_mode": 3})
    with pytest.raises(SettingsError, match="vace_ditto_14B needs video_guide: a video \\(Video to edit\\)"):
        make(definition, settings | {"video_guide": ""})
    with pytest.raises(SettingsError, match="does not accept video_mask"):
        make(definition, settings | {"video_mask": "mask.mp4"})


def test_the_mode_is_the_lora_of_vace_with_the_same_name(root, define, parts):
    definition, settings = write_case("vace_ditto_14B", root, define, parts)
    edited = make(definition, settings)[0].frames
    plain, _ = write_case("vace_14B", root, define, parts)
    own = {"activated_loras": ["edit1.safetensors"], "video_guide": "guide.mp4"}
    same = {key: value for key, value in settings.items() if key != "model_mode"}
    assert np.array_equal(make(plain, same | own)[0].frames, edited)
    events = []
    with_own = make(definition, settings | {"activated_loras": ["edit2.safetensors"]}, events)[0].frames
    assert not np.array_equal(with_own, edited)


def test_a_definition_with_fewer_loras_than_modes(root, define, parts):
    definition, settings = write_case("vace_ditto_14B", root, define, parts)
    lists = {"URLs": [definition.slots["transformer"][0].url], "modules": [[definition.slots["modules[0]"][0].url]]}
    define("mine", {"architecture": "vace_ditto_14B", "components": str(definition.components),
                    "preload_URLs": ["edit0.safetensors"], **lists})  # fmt: skip
    fewer = load_catalog(root)["mine"]
    explain(fewer)
    make(fewer, settings | {"model_mode": 0})
    with pytest.raises(SettingsError, match="model_mode is 1, and mine lists 1 LoRAs under preload_URLs"):
        make(fewer, settings)


def test_the_loras_are_found_where_wangp_stores_them(root, tmp_path):
    folder = tmp_path / "WanGP" / "ckpts"
    tiny_parts.vace_lora(folder / "ditto_global.safetensors", 0)
    definition = load_catalog(root)["vace_ditto_14B"]
    plan = explain(definition, Preferences(model_folders=(str(folder),)))
    found = next(item for item in plan.items if "ditto" in item.path.name)
    assert (found.path, found.present) == (folder / "ditto_global.safetensors", True)


def test_only_the_lora_of_the_mode_is_downloaded():
    definition = load_catalog("/nonexistent")["vace_ditto_14B"]
    for loras, name in (
        (None, "ditto_global.safetensors"),
        ([definition.preload[2].url], "ditto_sim2real.safetensors"),
    ):
        plan = explain(definition, loras=loras)
        assert [item.path.name for item in plan.items if "ditto" in item.path.name] == [name]
        assert "preload" not in " ".join(plan.notices)
