"""What the page calls each setting, and what it says about it: a label that says everything needs no help text."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from reeltune.families import Architecture
from reeltune.families.vocabulary import KEYS

_LABELS = {
    "num_inference_steps": "Steps",
    "video_length": "Frames",
    "guidance_scale": "Guidance",
    "embedded_guidance_scale": "Distilled guidance",
    "guidance2_scale": "Second guidance",
    "multi_prompts_gen_type": "Prompt lines",
    "repeat_generation": "Videos per prompt",
    "sample_solver": "Solver",
    "force_fps": "Frame rate",
    "skip_steps_cache_type": "Step cache",
    "skip_steps_multiplier": "Step cache speed",
    "skip_steps_start_step_perc": "Step cache start (%)",
    "perturbation_switch": "Skip-layer guidance",
    "perturbation_layers": "Skipped blocks",
    "perturbation_start_perc": "Skipping start (%)",
    "perturbation_end_perc": "Skipping end (%)",
    "cfg_star_switch": "CFG-Zero*",
    "cfg_zero_step": "Zeroed steps",
    "RIFLEx_setting": "RIFLEx (long videos)",
    "image_refs": "Reference images",
    "image_start": "Start image",
    "image_end": "End image",
    "video_guide": "Control video",
    "video_mask": "Mask video",
}
_HELP = {
    "prompt": "A new line starts another video; see “Prompt lines”.",
    "negative_prompt": "What should not appear.",
    "resolution": "Width and height in pixels.",
    "num_inference_steps": "More take longer.",
    "guidance_scale": "How closely the prompt is followed; 1 turns it off.",
    "embedded_guidance_scale": "How closely the prompt is followed.",
    "guidance2_scale": "Used from the switch threshold on.",
    "guidance_phases": "With two, the low-noise model takes over at the switch threshold.",
    "switch_threshold": "Noise level, from 1000 down to 0, at which the second phase begins.",
    "seed": "The same number makes the same video again; -1 picks a new one.",
    "repeat_generation": "Each gets the next seed.",
    "multi_prompts_gen_type": "",
    "sample_solver": "The method that removes the noise step by step.",
    "flow_shift": "Higher values spend more of the steps on layout and motion.",
    "skip_steps_cache_type": "Reuses results between steps.",
    "skip_steps_multiplier": "2 aims at twice the speed.",
    "skip_steps_start_step_perc": "Share of the steps that are computed in full first.",
    "RIFLEx_setting": "Keeps a video that is longer than those the model learned from repeating itself.",
    "perturbation_switch": "Leaves blocks out where the model works without the prompt, which can sharpen structure.",
    "perturbation_layers": "Their numbers, counted from 0 and separated by commas; usually 9.",
    "perturbation_start_perc": "Share of the steps after which blocks are left out.",
    "perturbation_end_perc": "Share of the steps after which all blocks are used again.",
    "cfg_star_switch": "Scales the guidance to fit each step.",
    "cfg_zero_step": "The last step, counted from 0, that CFG-Zero* leaves out; -1 for none.",
}
_PLACEHOLDERS = {"prompt": "Describe the video."}
_NEGATIVE_ONLY = "Takes effect with a negative prompt only; 1 turns it off."
_WORDS: Mapping[str, tuple[tuple[str, Any], ...]] = {
    "multi_prompts_gen_type": (("A video each", "G"), ("A video per paragraph", "PG"), ("One prompt", "FG")),
    "skip_steps_cache_type": (("Off", ""), ("On", "tea")),
    "guidance_phases": (("One", 1), ("Two", 2)),
    "perturbation_switch": (("Off", 0), ("On", 1)),
    "cfg_star_switch": (("Off", 0), ("On", 1)),
    "RIFLEx_setting": (("Automatic", 0), ("On", 1), ("Off", 2)),
}
PREFERENCES = {
    "quantization": "Transformer Model Quantization",
    "dtype": "Transformer Data Type",
    "text_encoder_quantization": "Text encoder quantization",
    "save_quantized": "Save quantized models",
    "memory_profile": "Memory profile",
    "attention": "Attention",
    "compile": "Compile",
    "int8": "Int8 computation",
    "device": "Device",
    "threads": "Threads",
    "outputs": "Output folder",
    "model_folders": "Model folders",
    "connections": "Connections per download",
    "rate_limit": "Download limit (MB/s)",
    "stall_seconds": "Reconnect after (seconds)",
}


def label_of(key: str) -> str:
    """A setting as people call it."""
    return _LABELS.get(key, key.replace("_", " ").capitalize())


def help_of(key: str, architecture: Architecture) -> str:
    """What a label leaves open; empty where it says everything."""
    if key == "guidance_scale" and "embedded_guidance_scale" in architecture.settings:
        return _NEGATIVE_ONLY
    if key == "force_fps":
        return f"Frames per second of the file. Empty: {architecture.frame_rate}."
    if key in _HELP:
        return _HELP[key]
    return KEYS[key].help


def placeholder_of(key: str) -> str:
    """What an empty field shows."""
    return _PLACEHOLDERS.get(key, "")


def choices_of(key: str) -> tuple[tuple[str, Any], ...]:
    """The values of a setting in words, as (words, value); empty where any value may be entered."""
    return _WORDS.get(key, ())


def value_in_words(key: str, value: Any) -> Any:
    """A value as the form shows it."""
    for words, known in choices_of(key):
        if known == value:
            return words
    return ", ".join(map(str, value)) if isinstance(value, list) else value


def length(frames: int, rate: int) -> str:
    """A number of frames as a duration; `assets/page.js` says the same while a slider is moved."""
    return f"{frames / rate:.1f} s at {rate} frames per second"
