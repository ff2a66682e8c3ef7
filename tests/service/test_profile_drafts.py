"""Profiles in forms: chosen, replaced, removed, with what somebody has typed in between."""

import pytest

from published_profiles import published, write
from reeltune.errors import DefinitionError, SettingsError
from reeltune.service.drafts import new_draft
from reeltune.service.profiles import (
    draft_with_lora_preset,
    draft_with_profile,
    offered_lora_presets,
    offered_profiles,
    profile_of_draft,
)

TYPED = {"prompt": "a fox", "seed": 7, "num_inference_steps": 25, "resolution": "640x480", "negative_prompt": None}


def test_profiles_of_a_model_are_read_again_when_files_change(workspace, root):
    definition = workspace.catalog()["ti2v_2_2"]
    assert [profile.name for profile in offered_profiles(workspace, definition).profiles] == ["FastWan, 3 steps"]
    write(root / "profiles", published())
    names = [profile.name for profile in offered_profiles(workspace, definition).profiles]
    assert names == ["FastWan 3 Steps", "FastWan, 3 steps"]


def test_a_profile_is_chosen_replaced_and_removed(workspace):
    draft = new_draft(workspace, "t2v")
    assert profile_of_draft(workspace, draft, TYPED) is None
    fast = draft_with_profile(workspace, draft, TYPED, "lightx2v, 4 steps")
    assert fast.version != draft.version
    assert (fast.settings["num_inference_steps"], fast.settings["flow_shift"]) == (4, 2)
    assert {key: fast.settings[key] for key in ("prompt", "seed", "resolution")} == {
        key: TYPED[key] for key in ("prompt", "seed", "resolution")
    }
    assert "lightx2v" in fast.settings["activated_loras"][0]
    assert fast.message.text == "The form uses lightx2v, 4 steps."
    assert profile_of_draft(workspace, fast, {"prompt": "a bear"}).name == "lightx2v, 4 steps"

    other = draft_with_profile(workspace, fast, {"prompt": "a bear"}, "FusioniX, 10 steps")
    assert (other.settings["num_inference_steps"], other.settings["prompt"]) == (10, "a bear")
    assert len(other.settings["activated_loras"]) == 1

    none = draft_with_profile(workspace, other, {"num_inference_steps": 12})
    assert none.settings["activated_loras"] == []
    assert none.settings["num_inference_steps"] == draft.initial["num_inference_steps"]
    assert none.settings["flow_shift"] == draft.initial["flow_shift"]
    assert none.settings["prompt"] == "a bear"
    assert none.message.text == "The form uses no profile."


def test_the_own_loras_stay_and_a_repeated_one_is_reported(workspace, root):
    draft = new_draft(workspace, "t2v")
    typed = {
        "activated_loras": ["mine.safetensors", "wan21_t2v_14b_lightx2v_cfg_step_distill_lora_rank32.safetensors"],
        "loras_multipliers": "0.8 0.5",
    }
    fast = draft_with_profile(workspace, draft, typed, "lightx2v")
    assert fast.settings["activated_loras"][1:] == ["mine.safetensors"]
    assert fast.settings["loras_multipliers"] == "1 | 0.8"
    assert "left out of your LoRAs" in fast.message.notices[0]

    write(root / "loras", {"wan/style.lset": {"loras": ["s.safetensors"], "loras_mult": "0.3", "later": 1}})
    definition = workspace.catalog()["t2v"]
    assert [preset.name for preset in offered_lora_presets(workspace, definition).profiles] == ["style"]
    styled = draft_with_lora_preset(workspace, fast, {}, "style")
    assert styled.settings["activated_loras"] == [fast.settings["activated_loras"][0], "s.safetensors"]
    assert styled.settings["loras_multipliers"] == "1 | 0.3"
    assert "later" in styled.message.notices[0]
    assert profile_of_draft(workspace, styled, {}).name == "lightx2v, 4 steps"


def test_model_folders_count(workspace, root, tmp_path):
    write(tmp_path / "wangp" / "profiles", published())
    (root / "reeltune.json").write_text(f'{{"model_folders": ["{tmp_path}/wangp/ckpts"]}}')
    definition = workspace.catalog()["i2v"]
    names = [profile.name for profile in offered_profiles(workspace, definition).profiles]
    assert names[:2] == ["Image2Video FusioniX - 10 Steps", "Image2Video lightx2v - 4 Steps"]


def test_names_that_do_not_exist_are_errors(workspace):
    draft = new_draft(workspace, "t2v")
    with pytest.raises(SettingsError, match="No profile 'x' found"):
        draft_with_profile(workspace, draft, {}, "x")
    with pytest.raises(SettingsError, match="No profile 'x' found"):
        draft_with_lora_preset(workspace, draft, {}, "x")
    with pytest.raises(SettingsError, match="several"):
        draft_with_profile(workspace, draft, {"loras_multipliers": "1|2|3", "activated_loras": ["a"]}, "lightx2v")
    with pytest.raises(DefinitionError):
        draft_with_profile(workspace, draft.with_changes(id="gone"), {}, "x")
