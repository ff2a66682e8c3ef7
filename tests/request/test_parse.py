"""One parser for all callers: requests as values."""

import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import pytest

from reeltune import load_catalog
from reeltune.errors import NotRunnable, SettingsError
from reeltune.request.parse import parse, parse_latents
from reeltune.request.values import Riflex


@pytest.fixture
def nano(root):
    return load_catalog(root)["nano_t2v"]


def test_a_request_is_a_value(nano):
    first, second = (parse(nano, {"prompt": "a", "seed": 3}).requests[0] for _ in range(2))
    assert first == second
    assert replace(first, seed=4) != first
    assert (first.prompt, first.seed, first.width, first.height) == ("a", 3, 64, 64)


def test_one_request_for_each_prompt_and_repeat(nano):
    parsed = parse(nano, {"prompt": "a\nb", "repeat_generation": 2, "seed": 5})
    assert [(request.prompt, request.seed) for request in parsed.requests] == [("a", 5), ("a", 6), ("b", 5), ("b", 6)]
    for request in parsed.requests:
        assert (request.settings["prompt"], request.settings["seed"]) == (request.prompt, request.seed)
        assert request.settings["repeat_generation"] == 1


def test_each_video_without_a_seed_gets_one_of_its_own(nano):
    seeds = {request.seed for request in parse(nano, {"prompt": "a", "repeat_generation": 20}).requests}
    assert len(seeds) == 20


def test_what_was_stored_gives_the_same_request(nano):
    request = parse(nano, {"prompt": "a", "seed": 3, "num_inference_steps": 7}).requests[0]
    assert parse_latents(nano, request.settings) == request


@pytest.mark.parametrize("kept", [{}, {"seed": 3}, {"prompt": "a"}])
def test_latents_with_incomplete_settings_get_the_definitions(nano, kept):
    request = parse_latents(nano, kept)
    assert request.steps == parse(nano, {}).requests[0].steps
    assert request.seed >= 0


def test_settings_become_types(nano):
    asked = {
        "cfg_star_switch": 1, "cfg_zero_step": 1, "perturbation_switch": 1, "perturbation_layers": [1], "guidance_scale": 3,
        "skip_steps_cache_type": "tea", "skip_steps_multiplier": 2, "skip_steps_start_step_perc": 25, "RIFLEx_setting": 1,
    }  # fmt: skip
    request = parse(nano, {"prompt": "a", **asked}).requests[0]
    assert request.guided
    assert (request.guidance.zero_star, request.guidance.zero_steps) == (True, 2)
    assert request.guidance.skipped_layers.layers == (1,)
    assert (request.step_skipping.speed, request.step_skipping.start) == (2, 0.25)
    assert request.riflex is Riflex.ON
    assert request.inputs.none


def test_a_riflex_setting_without_a_meaning_is_reported(nano):
    parsed = parse(nano, {"prompt": "a", "RIFLEx_setting": 7})
    assert parsed.requests[0].riflex is Riflex.OFF
    assert any("RIFLEx_setting is 7, which has no meaning" in notice for notice in parsed.notices)


def test_what_no_model_can_do_is_an_error(nano):
    with pytest.raises(SettingsError, match="Unknown setting 'stps'"):
        parse(nano, {"stps": 3})
    with pytest.raises(SettingsError, match="does not accept image_start"):
        parse(nano, {"image_start": "x.png"})
    with pytest.raises(NotRunnable, match="a perturbation other than skip-layer guidance"):
        parse(nano, {"perturbation_switch": 2})


def test_loras_of_a_call_are_in_each_request_with_a_weight_for_each_step(nano):
    call = {
        "prompt": "a\nb",
        "num_inference_steps": 4,
        "activated_loras": ["x.safetensors", "y.safetensors"],
        "loras_multipliers": "1,0 -0.5",
    }
    parsed = parse(nano, call)
    assert len(parsed.requests) == 2
    for request in parsed.requests:
        assert [(lora.source, lora.weights) for lora in request.loras] == [
            ("x.safetensors", (1.0, 1.0, 0.0, 0.0)),
            ("y.safetensors", (-0.5, -0.5, -0.5, -0.5)),
        ]
        assert parse_latents(nano, request.settings) == request
    assert parse(nano, {"prompt": "a"}).requests[0].loras == ()


def test_the_parser_needs_no_torch():
    code = (
        "import sys, reeltune.request.parse; print(sorted({'torch', 'diffusers', 'transformers'} & set(sys.modules)))"
    )
    answer = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, cwd=Path("/"))
    assert answer.stdout.strip() == "[]"
