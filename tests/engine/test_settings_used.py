"""Settings files and prompts through the whole engine, on nano and on tiny models."""

import json

import numpy as np
import pytest
from cases import write_case

from conftest import DATA
from reeltune import Engine, Notice, Preferences, load_catalog
from reeltune.engine.models import Models
from reeltune.errors import SettingsError

FAST = {"num_inference_steps": 2, "resolution": "64x64", "video_length": 5, "seed": 3, "guidance_scale": 3.0}
BASELINE = json.loads((DATA / "settings.json").read_text(encoding="utf-8"))


def run(definition, **settings):
    """The video, and the notices that came with it."""
    events = []
    with Engine(definition, preferences=Preferences(quantization="bf16"), listener=events.append) as engine:
        video = engine.generate(**settings)
    return video, [event.message for event in events if isinstance(event, Notice)]


def test_todays_baseline_settings_file_generates_without_a_notice_of_its_own(root):
    plain, usual = run(load_catalog(root)["nano_t2v"], prompt="a red circle", **FAST)
    path = root / "settings" / "nano_t2v_settings.json"
    path.parent.mkdir()
    path.write_text(json.dumps(BASELINE | {"settings_version": 2.74, "model_type": "nano_t2v"}))
    video, notices = run(load_catalog(root)["nano_t2v"], prompt="a red circle", **FAST)
    assert set(notices) == set(usual)
    assert np.array_equal(video.frames, plain.frames)
    path.write_text(json.dumps(BASELINE | {"seed": "x", "NAG_scale": 2, "video_length": -5, "new": {"a": 1}}))
    video, notices = run(load_catalog(root)["nano_t2v"], prompt="a red circle", **FAST)
    assert len(set(notices) - set(usual)) == 2  # the odd values; what isn't done
    assert np.array_equal(video.frames, plain.frames)


@pytest.mark.parametrize("names", [("tea_cache_setting",), ("skip_steps_cache_type", "skip_steps_multiplier")])
def test_the_step_cache_is_the_same_by_its_old_and_new_names(root, names):
    values = {"tea_cache_setting": 3, "skip_steps_cache_type": "mag", "skip_steps_multiplier": 3}
    settings = FAST | {"num_inference_steps": 8} | {name: values[name] for name in names}
    _, notices = run(load_catalog(root)["nano_t2v"], prompt="a red circle", **settings)
    assert any("step cache skipped" in line for line in notices)


def test_newer_names_of_skip_layer_guidance_leave_out_the_block_they_name(root):
    nano = load_catalog(root)["nano_t2v"]
    older, _ = run(nano, **FAST, slg_switch=1, slg_layers=[2], slg_start_perc=0, slg_end_perc=100)
    newer, _ = run(
        nano,
        **FAST,
        perturbation_switch=1,
        perturbation_layers=[2],
        perturbation_start_perc=0,
        perturbation_end_perc=100,
    )
    other, _ = run(
        nano,
        **FAST,
        perturbation_switch=1,
        perturbation_layers=[3],
        perturbation_start_perc=0,
        perturbation_end_perc=100,
    )
    assert np.array_equal(older.frames, newer.frames)
    assert not np.array_equal(older.frames, other.frames)


def test_a_prompt_longer_than_the_text_encoder_takes_is_one_notice_with_both_numbers(root):
    nano = load_catalog(root)["nano_t2v"]
    events = []
    with Engine(nano, preferences=Preferences(quantization="bf16"), listener=events.append) as engine:
        engine.generate("a red circle " * 40, **FAST)
        engine.switch(nano)
        engine.generate("a red circle " * 40, **FAST)  # from embeddings that are kept
    lines = [event.message for event in events if isinstance(event, Notice) and "tokens" in event.message]
    assert len(lines) == 2
    assert lines[0] == lines[1]
    assert "takes 40" in lines[0]
    _, notices = run(nano, prompt="a red circle", **FAST)
    assert not any("tokens" in line for line in notices)


@pytest.mark.parametrize("settings", [{"resolution": "1280x720"}, {"video_length": 300}])
def test_nothing_is_loaded_for_a_video_beyond_the_models_positions(root, monkeypatch, settings):
    monkeypatch.setattr("reeltune.engine.run.load_component", lambda *_, **__: pytest.fail("something was loaded"))
    with pytest.raises(SettingsError, match="at most"):
        run(load_catalog(root)["nano_t2v"], **FAST | settings)


def test_with_one_phase_the_second_transformer_is_never_loaded(root, define, parts, monkeypatch):
    definition, settings = write_case("t2v_2_2", root, define, parts)
    loaded = []
    inner = Models._load_anew
    monkeypatch.setattr(
        Models, "_load_anew", lambda self, plan, slot, *rest: (loaded.append(slot), inner(self, plan, slot, *rest))[1]
    )
    both, _ = run(definition, **settings)
    assert loaded == ["transformer", "transformer_2"]
    loaded.clear()
    first, notices = run(definition, **settings, guidance_phases=1)
    assert loaded == ["transformer"]
    assert not np.array_equal(first.frames, both.frames)
    assert any("guidance_phases is 1" in line for line in notices)
