"""Labels, help texts and choices of settings and preferences, as users see them."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from reeltune._text import shortened
from reeltune.checkpoints.names import lora_name
from reeltune.families import Architecture
from reeltune.families.values import Settings
from reeltune.families.vocabulary import KEYS

_LABELS = {
    "num_inference_steps": "Steps",
    "video_length": "Frames",
    "guidance_scale": "Guidance",
    "embedded_guidance_scale": "Distilled guidance",
    "audio_guidance_scale": "Guidance of the sound",
    "alt_guidance_scale": "Modality guidance",
    "alt_scale": "Rescaling",
    "guidance2_scale": "Guidance of phase 2",
    "guidance3_scale": "Guidance of phase 3",
    "guidance_phases": "Phases",
    "switch_threshold": "Start of phase 2",
    "switch_threshold2": "Start of phase 3",
    "model_switch_phase": "Second model takes over",
    "activated_loras": "LoRAs",
    "loras_multipliers": "LoRA weights",
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
    "video_guide2": "Face video",
    "custom_guide": "Background video",
    "sliding_window_size": "Window (frames)",
    "sliding_window_overlap": "Shared frames",
    "sliding_window_overlap_noise": "Noise on shared frames",
}
_HELP = {
    "prompt": "Every line makes a video of its own; see “Prompt lines”.",
    "negative_prompt": "What the video should not show.",
    "resolution": "Width and height in pixels.",
    "num_inference_steps": "More steps take longer and show more detail.",
    "guidance_scale": "How closely the video follows the prompt; 1 turns guidance off.",
    "embedded_guidance_scale": "How closely the video follows the prompt.",
    "audio_guidance_scale": "How closely the sound follows the prompt; 1 turns it off.",
    "alt_guidance_scale": "How closely video and sound follow each other; 1 turns it off.",
    "alt_scale": "Keeps strong guidance from overexposing; 0 to 1.",
    "guidance2_scale": "",
    "guidance3_scale": "",
    "guidance_phases": "Parts of a video with their own guidance, LoRA weights and, with two models, their own model.",
    "switch_threshold": "The noise level, from 1000 down to 0, at which the phase begins.",
    "switch_threshold2": "The noise level, from 1000 down to 0, at which the phase begins.",
    "model_switch_phase": "",
    "activated_loras": "Type to search. A URL or a path may be entered, too.",
    "loras_multipliers": "One for each LoRA: 0.8 1 · by step: 1,0.5,0 · by phase: 1;0",
    "seed": "The same number makes the same video again; -1 chooses a random number.",
    "repeat_generation": "Each video uses the next seed.",
    "multi_prompts_gen_type": "",
    "sample_solver": "The method that removes the noise in each step.",
    "flow_shift": "Higher values spend more steps on layout and motion.",
    "skip_steps_cache_type": "Reuses results of earlier steps, which is faster and less exact.",
    "skip_steps_multiplier": "2 means about twice as fast.",
    "skip_steps_start_step_perc": "Percentage of the steps that are computed in full first.",
    "RIFLEx_setting": "Prevents repetition in videos that are longer than those the model was trained on.",
    "perturbation_switch": "Skips blocks in the prediction without the prompt, which can make structures sharper.",
    "perturbation_layers": "Numbers of the blocks, counted from 0 and separated by commas; usually 9.",
    "perturbation_start_perc": "Percentage of the steps after which blocks are skipped.",
    "perturbation_end_perc": "Percentage of the steps after which no blocks are skipped.",
    "cfg_star_switch": "Adjusts the strength of guidance in each step.",
    "cfg_zero_step": "The last step, counted from 0, whose result is set to zero; -1 for none.",
    "model_mode": "How the model works; other modes than the first take longer.",
    "sliding_window_size": "Longer videos are made in several windows of this length.",
    "sliding_window_overlap": "Each window begins with so many frames of the one before.",
    "sliding_window_overlap_noise": "A little noise keeps windows from drifting apart; about 20.",
}
_MAX_NAME, _MAX_NAMES = 40, 3  # characters, and LoRAs, in a line about a video
_PLACEHOLDERS = {"prompt": "Describe the video."}
_NEGATIVE_ONLY = "Only used with a negative prompt; 1 turns guidance off."
_CHOICES: Mapping[str, tuple[tuple[str, Any], ...]] = {
    "multi_prompts_gen_type": (
        ("Video per line", "G"),
        ("Video per paragraph", "PG"),
        ("One prompt", "FG"),
        ("Window per line", "W"),
        ("Window per paragraph", "PW"),
    ),
    "skip_steps_cache_type": (("Off", ""), ("On", "tea")),
    "guidance_phases": (("One", 1), ("Two", 2), ("Three", 3)),
    "model_switch_phase": (("After phase 1", 1), ("After phase 2", 2)),
    "perturbation_switch": (("Off", 0), ("On", 1)),
    "cfg_star_switch": (("Off", 0), ("On", 1)),
    "RIFLEx_setting": (("Automatic", 0), ("On", 1), ("Off", 2)),
}


def label_of(key: str) -> str:
    """The label of a setting."""
    return _LABELS.get(key, key.replace("_", " ").capitalize())


def help_of(key: str, architecture: Architecture) -> str:
    """The help text of a setting; empty if the label is clear enough."""
    if key == "guidance_scale" and "embedded_guidance_scale" in architecture.settings:
        return _NEGATIVE_ONLY
    if key == "force_fps":
        return f"Frames per second of the video file. Empty: {architecture.frame_rate}."
    return _HELP.get(key, KEYS[key].help)


def placeholder_of(key: str) -> str:
    """The text that an empty field shows."""
    return _PLACEHOLDERS.get(key, "")


def choices_of(key: str) -> tuple[tuple[str, Any], ...]:
    """Pairs of label and value; none if any value may be entered."""
    return _CHOICES.get(key, ())


def value_in_words(key: str, value: Any) -> Any:
    """A value of a setting as a form shows it."""
    for label, choice in choices_of(key):
        if choice == value:
            return label
    return ", ".join(map(str, value)) if isinstance(value, list) else value


def loras_in_words(settings: Settings) -> str:
    """The names of the LoRAs in settings, without suffixes; empty if there are none."""
    sources = settings.get("activated_loras") or []
    sources = [sources] if isinstance(sources, str) else sources
    if not isinstance(sources, list | tuple):
        return ""
    names = [shortened(lora_name(str(source)), _MAX_NAME) for source in sources]
    more = [f"{len(names) - _MAX_NAMES} more"] if len(names) > _MAX_NAMES else []
    return ", ".join([*names[:_MAX_NAMES], *more])


def length_in_words(frames: int, rate: int) -> str:
    """A number of frames as a duration; `assets/page.js` builds the same text while a slider moves."""
    return f"{frames / rate:.1f} s at {rate} frames per second"


def printable(text: object) -> str:
    """Text in which every character that can't be displayed is replaced by U+FFFD."""
    return "".join(character if character.isprintable() or character in "\n\t" else "\ufffd" for character in str(text))
