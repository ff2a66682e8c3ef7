"""The vocabulary of generation settings (WanGP's key names): kinds, meanings, values that ask for nothing.

Keys have their newest names; `reeltune.settings` reads the older ones.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from types import MappingProxyType
from typing import Any

from reeltune.errors import SettingsError
from reeltune.families.values import (
    ANY,
    BLOCKS,
    LENGTH,
    MULTIPLIERS,
    NAMES,
    NUMBER,
    OFF_OR_COUNT,
    PATHS,
    POSITIVE,
    PROMPT_MODE,
    RATE,
    REPEATS,
    SEED,
    SIZE,
    SOLVER,
    SWITCH,
    TEXT,
    TEXTS,
    WHOLE,
    Kind,
)

_SHOWN = 60  # characters of a value in a message


@dataclass(frozen=True)
class Key:
    """One setting: its kind, what it means, the values that ask for nothing, and the key it depends on."""

    kind: Kind
    help: str
    neutral: tuple[Any, ...] = ()
    only_with: str = ""  # matters only while that other key is not neutral
    display: bool = False  # describes the file; asks for nothing


_BLANK: tuple[Any, ...] = (None, "", [])
_SPEECH = {"speech_speed": 1.0, "text_normalization": "Yes"}
_CUSTOM = {"scail2_inject_ref_frames_in_video": "No", "animate2_kv_cache": "Disabled", **_SPEECH}
_GUIDES = "How strongly a control video counts."

KEYS: Mapping[str, Key] = MappingProxyType(
    {
        "prompt": Key(TEXTS, "What the video shows; lines that begin with # are comments.", ("",)),
        "negative_prompt": Key(TEXT, "What the video should not show.", ("",)),
        "resolution": Key(SIZE, "Width and height in pixels, WIDTHxHEIGHT."),
        "video_length": Key(LENGTH, "Number of frames, or a duration such as 10s."),
        "seed": Key(SEED, "Start of the random numbers; -1 picks one.", (-1,)),
        "num_inference_steps": Key(REPEATS, "Denoising steps."),
        "guidance_scale": Key(NUMBER, "Guidance; 1 turns it off. Hunyuan: with a negative prompt only.", (1, 5)),
        "embedded_guidance_scale": Key(NUMBER, "Hunyuan's distilled guidance.", (6,)),
        "guidance2_scale": Key(NUMBER, "Guidance of the second phase (Wan 2.2).", (), "guidance_phases"),
        "guidance3_scale": Key(NUMBER, "Guidance of the third phase.", (5,), "switch_threshold2"),
        "guidance_phases": Key(WHOLE, "Phases of guidance, 1 or 2; 1: the first transformer makes all steps.", (0, 1)),
        "switch_threshold": Key(WHOLE, "Timestep, 0 to 1000, where phase two starts.", (0,), "guidance_phases"),
        "switch_threshold2": Key(WHOLE, "Timestep where phase three starts.", (0,), "guidance_phases"),
        "model_switch_phase": Key(WHOLE, "Phase after which the second transformer works.", (0, 1), "guidance_phases"),
        "flow_shift": Key(POSITIVE, "Shift of the noise schedule.", (3, 5)),
        "sample_solver": Key(SOLVER, "Solver: unipc, euler or dpm++.", ("",)),
        "repeat_generation": Key(REPEATS, "Videos per prompt.", (1,)),
        "multi_prompts_gen_type": Key(
            PROMPT_MODE, "G: each line of the prompt is a video; PG: each paragraph; FG: all is one.", ("G", "PG")
        ),
        "multi_images_gen_type": Key(WHOLE, "How several start images are paired.", (0,)),
        "image_prompt_type": Key(TEXT, "Letters: S start image, E end image, T text only.", ("", "T")),
        "image_start": Key(PATHS, "Start image(s).", _BLANK),
        "image_end": Key(PATHS, "End image(s).", _BLANK),
        "video_source": Key(PATHS, "Video to continue.", _BLANK),
        "keep_frames_video_source": Key(ANY, "How much of it is kept.", _BLANK, "video_source"),
        "input_video_strength": Key(NUMBER, "How closely its frames are kept.", (1,), "video_source"),
        "model_mode": Key(ANY, "A number with a meaning of its own in each architecture.", (None, "", 0)),
        "video_prompt_type": Key(TEXT, "Letters: V control video, A mask, I reference images …", ("", "U")),
        "video_guide": Key(PATHS, "Control video.", _BLANK),
        "video_guide2": Key(PATHS, "A second control video.", _BLANK),
        "custom_guide": Key(PATHS, "A control file of another kind.", _BLANK),
        "image_guide": Key(PATHS, "Control image.", _BLANK),
        "image_mask": Key(PATHS, "Mask of the control image.", _BLANK),
        "keep_frames_video_guide": Key(ANY, "Frames of it to keep.", _BLANK, "video_guide"),
        "video_guide_outpainting": Key(ANY, "Percent added around the control video.", (*_BLANK, "#"), "video_guide"),
        "video_guide_outpainting_ratio": Key(TEXT, "Aspect ratio that is added around it.", ("",), "video_guide"),
        "control_net_weight": Key(NUMBER, _GUIDES, (1,), "video_guide"),
        "control_net_weight2": Key(NUMBER, _GUIDES, (1,), "video_guide2"),
        "control_net_weight_alt": Key(NUMBER, _GUIDES, (1,), "video_guide"),
        "motion_amplitude": Key(NUMBER, "How much moves.", (1,)),
        "video_mask": Key(PATHS, "Mask video.", _BLANK),
        "mask_expand": Key(NUMBER, "Pixels by which the mask grows.", (0,), "video_mask"),
        "masking_strength": Key(NUMBER, "How long the mask holds.", (1,), "video_mask"),
        "denoising_strength": Key(NUMBER, "How much of the source is redone.", (1,), "video_source"),
        "image_refs": Key(PATHS, "Reference images.", _BLANK),
        "frames_positions": Key(ANY, "Where injected frames go.", _BLANK, "image_refs"),
        "image_refs_relative_size": Key(NUMBER, "Size of reference images in percent.", (50,), "image_refs"),
        "remove_background_images_ref": Key(WHOLE, "Cut the subject out of reference images.", (0,), "image_refs"),
        "min_frames_if_references": Key(WHOLE, "Frames at least, with reference images.", (0, 1), "image_refs"),
        "audio_prompt_type": Key(TEXT, "Letters: how audio is used.", ("",)),
        "audio_guide": Key(PATHS, "Audio to follow.", _BLANK),
        "audio_guide2": Key(PATHS, "Audio of a second speaker.", _BLANK),
        "audio_source": Key(PATHS, "Audio to add to the video.", _BLANK),
        "audio_guidance_scale": Key(NUMBER, "How closely the audio is followed.", (1,), "audio_guide"),
        "audio_scale": Key(NUMBER, "How strongly the audio counts.", (1,), "audio_guide"),
        "speakers_locations": Key(ANY, "Where the speakers are.", _BLANK, "audio_guide"),
        "duration_seconds": Key(NUMBER, "Length of audio that is made.", (0,)),
        "pause_seconds": Key(NUMBER, "Pauses in speech that is made.", (0,)),
        "replace_voice_method": Key(TEXT, "How voices are replaced.", ("",)),
        "replace_voice_sample": Key(PATHS, "Voice that replaces another.", _BLANK, "replace_voice_method"),
        "replace_voice_sample2": Key(PATHS, "Voice that replaces a second one.", _BLANK, "replace_voice_method"),
        "postprocess_audio": Key(TEXT, "Audio made for the video.", ("",)),
        "postprocess_audio_prompt": Key(TEXT, "What is heard.", ("",), "postprocess_audio"),
        "postprocess_audio_neg_prompt": Key(TEXT, "What is not.", ("",), "postprocess_audio"),
        "sliding_window_size": Key(WHOLE, "Frames of a window of a long video.", (0, 129)),
        "sliding_window_overlap": Key(WHOLE, "Frames two windows share.", (5,), "sliding_window_size"),
        "sliding_window_overlap_noise": Key(NUMBER, "Noise added to shared frames.", (0,), "sliding_window_size"),
        "sliding_window_color_correction_strength": Key(NUMBER, "Colors matched.", (0,), "sliding_window_size"),
        "sliding_window_discard_last_frames": Key(WHOLE, "Frames dropped at its end.", (0,), "sliding_window_size"),
        "sliding_window_trim_first_frames": Key(WHOLE, "Frames dropped at its start.", (0,), "sliding_window_size"),
        "keep_intermediate_sliding_windows": Key(SWITCH, "Keep each window's video.", (0, 1)),
        "sub_parallel_window_size": Key(WHOLE, "Frames of windows made in parallel.", (0,)),
        "sub_parallel_window_overlap": Key(WHOLE, "Frames they share.", (17,), "sub_parallel_window_size"),
        "activated_loras": Key(NAMES, "LoRA files to apply.", _BLANK),
        "loras_multipliers": Key(MULTIPLIERS, "One weight for each LoRA.", _BLANK, "activated_loras"),
        "skip_steps_cache_type": Key(TEXT, "Step cache: empty is off; tea and mag turn it on.", ("",)),
        "skip_steps_multiplier": Key(NUMBER, "Speed factor the step cache aims at.", (1.75,), "skip_steps_cache_type"),
        "skip_steps_start_step_perc": Key(NUMBER, "Percent of steps before it starts.", (0,), "skip_steps_cache_type"),
        "RIFLEx_setting": Key(WHOLE, "RIFLEx, for videos longer than trained: 0 auto, 1 on, 2 off.", (0, 2)),
        "perturbation_switch": Key(SWITCH, "Skip-layer guidance, 0 or 1: blocks left out without the prompt.", (0,)),
        "perturbation_layers": Key(BLOCKS, "Blocks it leaves out; usually 9.", ([], [9]), "perturbation_switch"),
        "perturbation_start_perc": Key(NUMBER, "Percent of steps where it starts.", (10,), "perturbation_switch"),
        "perturbation_end_perc": Key(NUMBER, "Percent of steps where it ends.", (90,), "perturbation_switch"),
        "apg_switch": Key(SWITCH, "Adaptive projected guidance, 0 or 1.", (0,)),
        "cfg_star_switch": Key(SWITCH, "CFG-Zero*, 0 or 1: guidance scaled to fit each step.", (0,)),
        "cfg_zero_step": Key(OFF_OR_COUNT, "Last step, from 0, that it leaves out; -1 none.", (-1,), "cfg_star_switch"),
        "NAG_scale": Key(NUMBER, "Normalized attention guidance; 1 is off.", (0, 1)),
        "NAG_tau": Key(NUMBER, "Its bound.", (3.5,), "NAG_scale"),
        "NAG_alpha": Key(NUMBER, "Its share.", (0.5,), "NAG_scale"),
        "self_refiner_setting": Key(WHOLE, "Self-refining steps; 0 is off.", (0,)),
        "self_refiner_plan": Key(ANY, "Which steps are refined.", _BLANK, "self_refiner_setting"),
        "self_refiner_f_uncertainty": Key(NUMBER, "Its uncertainty.", (0,), "self_refiner_setting"),
        "self_refiner_certain_percentage": Key(NUMBER, "Its certainty.", (0.999,), "self_refiner_setting"),
        "alt_prompt": Key(TEXT, "A second prompt, of some architectures.", ("",)),
        "alt_guidance_scale": Key(NUMBER, "Guidance of a second kind, of some architectures.", (1,)),
        "alt_scale": Key(NUMBER, "A scale of a second kind, of some architectures.", (0,)),
        "temperature": Key(NUMBER, "How freely a language model chooses.", (0.8, 1)),
        "top_p": Key(NUMBER, "Share of words it chooses from.", (0.9, 1)),
        "top_k": Key(WHOLE, "Number of words it chooses from.", (0, 50)),
        "temporal_upsampling": Key(TEXT, "Frame interpolation: rife2, rife4.", ("",)),
        "spatial_upsampling": Key(TEXT, "Enlarging: lanczos1.5, lanczos2.", ("",)),
        "film_grain_intensity": Key(NUMBER, "Film grain.", (0,)),
        "film_grain_saturation": Key(NUMBER, "Its color.", (0.5,), "film_grain_intensity"),
        "prompt_enhancer": Key(TEXT, "A language model rewrites the prompt.", ("",)),
        "force_fps": Key(RATE, "Frames a second: a number, or control, as the control video.", (None, "", 0, "auto")),
        "image_mode": Key(WHOLE, "1: images in place of a video.", (0,)),
        "batch_size": Key(WHOLE, "Images at once.", (0, 1)),
        "custom_settings": Key(ANY, "Settings of single architectures.", (*_BLANK, {}, _CUSTOM)),
        "config": Key(TEXT, "Variant of the model.", ("",)),
        "override_profile": Key(ANY, "Another program's memory profile.", (*_BLANK, -1)),
        "override_attention": Key(ANY, "Another program's attention.", _BLANK),
        "attention_sparsity": Key(NUMBER, "Share of attention that is computed.", (1,)),
        "output_filename": Key(TEXT, "Name of the file.", ("",)),
        "settings_version": Key(ANY, "Version of the settings file.", display=True),
        "type": Key(ANY, "What wrote the file.", display=True),
        "model_type": Key(ANY, "Id of the definition.", display=True),
        "model_filename": Key(ANY, "Weight file that was used.", display=True),
        "client_id": Key(ANY, "What asked for the video.", display=True),
    }
)  # fmt: skip

# What counts where a setting isn't given, of those that no architecture has a value of its own for.
ASSUMED: Mapping[str, Any] = MappingProxyType(
    {
        "switch_threshold": 875,
        "skip_steps_multiplier": 1.75,
        "skip_steps_start_step_perc": 0.0,
        "perturbation_layers": [9],
        "perturbation_start_perc": 10.0,
        "perturbation_end_perc": 90.0,
        "cfg_zero_step": -1,
    }
)

INPUT_KEYS = (
    "image_start", "image_end", "video_source", "video_guide", "video_guide2", "custom_guide", "image_guide",
    "image_mask", "video_mask", "image_refs", "audio_guide", "audio_guide2", "audio_source",
    "replace_voice_sample", "replace_voice_sample2",
)  # fmt: skip


def coerce(key: str, value: Any) -> Any:
    """`value` as the setting's kind. Raises SettingsError naming key, value and what it must be, and nothing else."""
    try:
        return KEYS[key].kind.convert(value)
    except ValueError as error:
        wanted = str(error)
        raise SettingsError(f"Invalid value {shown(value)} for {key}.", hint=f"It must be {wanted}.") from None


def shown(value: Any) -> str:
    """A value as it is written, shortened for a message."""
    if isinstance(value, str | bytes):
        value = value[: 2 * _SHOWN]
    try:
        text = repr(value)
    except (ValueError, RecursionError):  # a number of thousands of digits, or endless nesting
        text = f"of type {type(value).__name__}"
    return text if len(text) <= _SHOWN else text[: _SHOWN - 3] + "…"
