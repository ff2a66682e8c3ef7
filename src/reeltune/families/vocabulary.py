"""All generation settings under WanGP's key names: their kinds of values, help texts and neutral values.

The keys are the newest names; `reeltune.settings` also reads the older ones.
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
    COUNT,
    INTEGER,
    LENGTH,
    MULTIPLIERS,
    NAMES,
    NUMBER,
    PATHS,
    POSITIVE,
    PROMPT_MODE,
    RATE,
    SEED,
    SIZE,
    SOLVER,
    STEP_OR_NONE,
    SWITCH,
    TEXT,
    TEXTS,
    Settings,
    ValueKind,
)
from reeltune.net import without_secrets

_MAX_SHOWN = 60  # characters of a value in a message
_MAX_URL = 4096  # characters of a text that are searched for a token


@dataclass(frozen=True)
class Setting:
    """The declaration of one setting.

    `neutral`: the values that have no effect. `depends_on`: the setting without which this one has no effect, if any.
    `descriptive`: whether it describes the file it is in, and never has an effect.
    """

    kind: ValueKind
    help: str
    neutral: tuple[Any, ...] = ()
    depends_on: str = ""
    descriptive: bool = False


_BLANK: tuple[Any, ...] = (None, "", [])
_SPEECH = {"speech_speed": 1.0, "text_normalization": "Yes"}
_CUSTOM = {"scail2_inject_ref_frames_in_video": "No", "animate2_kv_cache": "Disabled", **_SPEECH}
_GUIDES = "Strength of the control video."

KEYS: Mapping[str, Setting] = MappingProxyType(
    {
        "prompt": Setting(TEXTS, "What the video shows; lines that begin with # are comments.", ("",)),
        "negative_prompt": Setting(TEXT, "What the video should not show.", ("",)),
        "resolution": Setting(SIZE, "Width and height in pixels, WIDTHxHEIGHT."),
        "video_length": Setting(LENGTH, "Number of frames, or a duration such as 10s."),
        "seed": Setting(SEED, "Random seed; -1 picks one.", (-1,)),
        "num_inference_steps": Setting(COUNT, "Denoising steps."),
        "guidance_scale": Setting(
            NUMBER, "Guidance; 1 turns it off. Hunyuan 1.0: with a negative prompt only.", (1, 5)
        ),
        "embedded_guidance_scale": Setting(NUMBER, "Hunyuan's distilled guidance.", (6,)),
        "guidance2_scale": Setting(NUMBER, "Guidance of the second phase.", (), "guidance_phases"),
        "guidance3_scale": Setting(NUMBER, "Guidance of the third phase.", (5,), "switch_threshold2"),
        "guidance_phases": Setting(
            INTEGER, "Phases, 1 to 3; with 1 the first transformer makes all steps. LTX-2: passes.", (0, 1)
        ),
        "switch_threshold": Setting(INTEGER, "Timestep, 0 to 1000, where phase 2 starts.", (0,), "guidance_phases"),
        "switch_threshold2": Setting(INTEGER, "Timestep, 0 to 1000, where phase 3 starts.", (0,), "guidance_phases"),
        "model_switch_phase": Setting(
            INTEGER, "Phase, 1 or 2, after which the second transformer takes over.", (0, 1), "guidance_phases"
        ),
        "flow_shift": Setting(POSITIVE, "Shift of the noise schedule.", (3, 5)),
        "sample_solver": Setting(
            SOLVER,
            "Solver. Wan: unipc, euler, dpm++; for distilled LoRAs causvid, flowmatch_causvid, lcm. Others: euler; "
            "LTX-2 also distilled_8_steps, with its distilled LoRA.",
            ("",),
        ),
        "repeat_generation": Setting(COUNT, "Videos per prompt.", (1,)),
        "multi_prompts_gen_type": Setting(
            PROMPT_MODE,
            "G: each line of the prompt is a video; PG: each paragraph; FG: the whole text; W and PW: each line or "
            "paragraph is for a window of one video.",
            ("G", "PG"),
        ),
        "multi_images_gen_type": Setting(INTEGER, "How several start images are combined with prompts.", (0,)),
        "image_prompt_type": Setting(TEXT, "Letters: S start image, E end image, T text only.", ("", "T")),
        "image_start": Setting(PATHS, "Start image(s).", _BLANK),
        "image_end": Setting(PATHS, "End image(s).", _BLANK),
        "video_source": Setting(PATHS, "Video to continue.", _BLANK),
        "keep_frames_video_source": Setting(ANY, "Frames of the source to keep.", _BLANK, "video_source"),
        "input_video_strength": Setting(NUMBER, "How closely the source's frames are followed.", (1,), "video_source"),
        "model_mode": Setting(ANY, "A mode that depends on the architecture.", (None, "", 0)),
        "video_prompt_type": Setting(TEXT, "Letters: V control video, A mask, I reference images …", ("", "U")),
        "video_guide": Setting(PATHS, "Control video.", _BLANK),
        "video_guide2": Setting(PATHS, "A second control video, such as faces.", _BLANK),
        "custom_guide": Setting(PATHS, "A control file of another kind, such as a background video.", _BLANK),
        "image_guide": Setting(PATHS, "Control image.", _BLANK),
        "image_mask": Setting(PATHS, "Mask of the control image.", _BLANK),
        "keep_frames_video_guide": Setting(ANY, "Frames of the control video to keep.", _BLANK, "video_guide"),
        "video_guide_outpainting": Setting(
            ANY, "Percent added around the control video.", (*_BLANK, "#"), "video_guide"
        ),
        "video_guide_outpainting_ratio": Setting(TEXT, "Aspect ratio after outpainting.", ("",), "video_guide"),
        "control_net_weight": Setting(NUMBER, _GUIDES, (1,), "video_guide"),
        "control_net_weight2": Setting(NUMBER, _GUIDES, (1,), "video_guide2"),
        "control_net_weight_alt": Setting(NUMBER, _GUIDES, (1,), "video_guide"),
        "motion_amplitude": Setting(NUMBER, "Amount of motion.", (1,)),
        "video_mask": Setting(PATHS, "Mask video.", _BLANK),
        "mask_expand": Setting(NUMBER, "Pixels by which the mask grows.", (0,), "video_mask"),
        "masking_strength": Setting(NUMBER, "Share of the steps in which the mask applies.", (1,), "video_mask"),
        "denoising_strength": Setting(NUMBER, "How much of the source is changed.", (1,), "video_source"),
        "image_refs": Setting(PATHS, "Reference images.", _BLANK),
        "frames_positions": Setting(ANY, "Positions of injected frames.", _BLANK, "image_refs"),
        "image_refs_relative_size": Setting(NUMBER, "Size of reference images in percent.", (50,), "image_refs"),
        "remove_background_images_ref": Setting(
            INTEGER, "Cut the subject out of reference images.", (0,), "image_refs"
        ),
        "min_frames_if_references": Setting(INTEGER, "Minimum frames with reference images.", (0, 1), "image_refs"),
        "audio_prompt_type": Setting(TEXT, "Letters: how audio is used.", ("",)),
        "audio_guide": Setting(PATHS, "Audio that the video follows.", _BLANK),
        "audio_guide2": Setting(PATHS, "Audio of a second speaker.", _BLANK),
        "audio_source": Setting(PATHS, "Audio to add to the video.", _BLANK),
        "audio_guidance_scale": Setting(NUMBER, "Guidance of the sound, or of given audio.", (1,)),
        "audio_scale": Setting(NUMBER, "Strength of the audio.", (1,), "audio_guide"),
        "speakers_locations": Setting(ANY, "Where the speakers are.", _BLANK, "audio_guide"),
        "duration_seconds": Setting(NUMBER, "Duration of generated audio in seconds.", (0,)),
        "pause_seconds": Setting(NUMBER, "Pauses in generated speech in seconds.", (0,)),
        "replace_voice_method": Setting(TEXT, "How voices are replaced.", ("",)),
        "replace_voice_sample": Setting(PATHS, "Voice that replaces another.", _BLANK, "replace_voice_method"),
        "replace_voice_sample2": Setting(PATHS, "Voice that replaces a second one.", _BLANK, "replace_voice_method"),
        "postprocess_audio": Setting(TEXT, "Generated audio for the video.", ("",)),
        "postprocess_audio_prompt": Setting(TEXT, "Prompt of the generated audio.", ("",), "postprocess_audio"),
        "postprocess_audio_neg_prompt": Setting(
            TEXT, "Negative prompt of the generated audio.", ("",), "postprocess_audio"
        ),
        "sliding_window_size": Setting(INTEGER, "Frames of each window of a long video.", (0, 129)),
        "sliding_window_overlap": Setting(INTEGER, "Frames shared by two windows.", (5,), "sliding_window_size"),
        "sliding_window_overlap_noise": Setting(NUMBER, "Noise added to shared frames.", (0,), "sliding_window_size"),
        "sliding_window_color_correction_strength": Setting(NUMBER, "Color matching.", (0,), "sliding_window_size"),
        "sliding_window_discard_last_frames": Setting(
            INTEGER, "Frames dropped at its end.", (0,), "sliding_window_size"
        ),
        "sliding_window_trim_first_frames": Setting(
            INTEGER, "Frames dropped at its start.", (0,), "sliding_window_size"
        ),
        "keep_intermediate_sliding_windows": Setting(SWITCH, "Keep each window's video.", (0, 1)),
        "sub_parallel_window_size": Setting(INTEGER, "Frames of windows made in parallel.", (0,)),
        "sub_parallel_window_overlap": Setting(
            INTEGER, "Frames shared by these windows.", (17,), "sub_parallel_window_size"
        ),
        "activated_loras": Setting(NAMES, "LoRAs to apply: file names, paths or URLs.", _BLANK),
        "loras_multipliers": Setting(
            MULTIPLIERS, "Weights of the LoRAs, such as 1 0.5; by step 1,0.5; by phase 1;0.", _BLANK
        ),
        "skip_steps_cache_type": Setting(TEXT, "Step cache: empty is off; tea and mag turn it on.", ("",)),
        "skip_steps_multiplier": Setting(NUMBER, "Target speed factor of the cache.", (1.75,), "skip_steps_cache_type"),
        "skip_steps_start_step_perc": Setting(
            NUMBER, "Percent of steps without the cache.", (0,), "skip_steps_cache_type"
        ),
        "RIFLEx_setting": Setting(INTEGER, "RIFLEx, for videos longer than in training: 0 auto, 1 on, 2 off.", (0, 2)),
        "perturbation_switch": Setting(SWITCH, "1: skip-layer guidance; 2: spatiotemporal guidance; 0: none.", (0,)),
        "perturbation_layers": Setting(BLOCKS, "Blocks to skip; usually 9.", ([], [9]), "perturbation_switch"),
        "perturbation_start_perc": Setting(
            NUMBER, "Percent of steps where skipping starts.", (10,), "perturbation_switch"
        ),
        "perturbation_end_perc": Setting(NUMBER, "Percent of steps where skipping ends.", (90,), "perturbation_switch"),
        "apg_switch": Setting(SWITCH, "Adaptive projected guidance, 0 or 1.", (0,)),
        "cfg_star_switch": Setting(SWITCH, "CFG-Zero*, 0 or 1: guidance rescaled in each step.", (0,)),
        "cfg_zero_step": Setting(STEP_OR_NONE, "Last step, from 0, to skip; -1 for none.", (-1,), "cfg_star_switch"),
        "NAG_scale": Setting(NUMBER, "Normalized attention guidance; 1 is off.", (0, 1)),
        "NAG_tau": Setting(NUMBER, "Limit of the norm (tau).", (3.5,), "NAG_scale"),
        "NAG_alpha": Setting(NUMBER, "Blending factor (alpha).", (0.5,), "NAG_scale"),
        "self_refiner_setting": Setting(INTEGER, "Self-refining steps; 0 is off.", (0,)),
        "self_refiner_plan": Setting(ANY, "Which steps are refined.", _BLANK, "self_refiner_setting"),
        "self_refiner_f_uncertainty": Setting(NUMBER, "Uncertainty threshold.", (0,), "self_refiner_setting"),
        "self_refiner_certain_percentage": Setting(NUMBER, "Certainty threshold.", (0.999,), "self_refiner_setting"),
        "alt_prompt": Setting(TEXT, "A second prompt, for some architectures.", ("",)),
        "alt_guidance_scale": Setting(NUMBER, "LTX-2: guidance of video and sound by each other.", (1,)),
        "alt_scale": Setting(NUMBER, "LTX-2: how far guidance is rescaled, 0 to 1.", (0,)),
        "temperature": Setting(NUMBER, "Sampling temperature of a language model.", (0.8, 1)),
        "top_p": Setting(NUMBER, "Top-p sampling of a language model.", (0.9, 1)),
        "top_k": Setting(INTEGER, "Top-k sampling of a language model.", (0, 50)),
        "temporal_upsampling": Setting(TEXT, "Frame interpolation: rife2, rife4.", ("",)),
        "spatial_upsampling": Setting(TEXT, "Upscaling: lanczos1.5, lanczos2.", ("",)),
        "film_grain_intensity": Setting(NUMBER, "Film grain.", (0,)),
        "film_grain_saturation": Setting(NUMBER, "Color saturation of the film grain.", (0.5,), "film_grain_intensity"),
        "prompt_enhancer": Setting(TEXT, "A language model rewrites the prompt.", ("",)),
        "force_fps": Setting(
            RATE, "Frames per second: a number, or control for the control video's.", (None, "", 0, "auto")
        ),
        "image_mode": Setting(INTEGER, "1: images instead of a video.", (0,)),
        "batch_size": Setting(INTEGER, "Images generated at once.", (0, 1)),
        "custom_settings": Setting(ANY, "Settings specific to an architecture.", (*_BLANK, {}, _CUSTOM)),
        "config": Setting(TEXT, "Variant of the model: an id of the definition's configs.", ("",)),
        "override_profile": Setting(ANY, "Another program's memory profile.", (*_BLANK, -1)),
        "override_attention": Setting(ANY, "Another program's attention.", _BLANK),
        "attention_sparsity": Setting(NUMBER, "Share of attention that is computed.", (1,)),
        "output_filename": Setting(TEXT, "Name of the output file.", ("",)),
        "settings_version": Setting(ANY, "Version of the settings file.", descriptive=True),
        "type": Setting(ANY, "Program that wrote the file.", descriptive=True),
        "model_type": Setting(ANY, "Id of the definition.", descriptive=True),
        "model_filename": Setting(ANY, "Weight file that was used.", descriptive=True),
        "client_id": Setting(ANY, "Client that requested the video.", descriptive=True),
    }
)

# Default values of settings without a default in any architecture.
DEFAULTS: Settings = MappingProxyType(
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
    """The normalized value of a setting. Raises SettingsError with the key, the value and the valid values."""
    try:
        return KEYS[key].kind.convert(value)
    except ValueError as error:
        raise SettingsError(f"Invalid value {shown(value)} for {key}.", hint=f"It must be {error}.", key=key) from None


def shown(value: Any) -> str:
    """The representation of a value, shortened for a message, and without tokens in URLs."""
    if isinstance(value, list | tuple):
        value = [_without_tokens(item) for item in value[:_MAX_SHOWN]]
    value = _without_tokens(value)
    try:
        text = repr(value)
    except (ValueError, RecursionError):  # a number with thousands of digits, or deep nesting
        text = f"of type {type(value).__name__}"
    return text if len(text) <= _MAX_SHOWN else text[: _MAX_SHOWN - 3] + "…"


def _without_tokens(value: Any) -> Any:
    """The beginning of a text, without tokens if it is a URL; other values are unchanged."""
    if isinstance(value, str):
        value = without_secrets(value[:_MAX_URL])
    return value[: 2 * _MAX_SHOWN] if isinstance(value, str | bytes) else value
