"""The vocabulary of generation settings (WanGP's key names): kinds, meanings, values that ask for nothing."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from types import MappingProxyType
from typing import Any

from reeltune.errors import SettingsError

_LARGEST = 10**9  # of everything but seeds
_LARGEST_SIDE = 8192
_LARGEST_SEED = 2**63 - 1  # a torch generator takes no more


@dataclass(frozen=True)
class Kind:
    """A kind of value: how it is checked, and its JSON Schema."""

    name: str
    convert: Callable[[Any], Any]  # raises ValueError with what is wrong
    schema: dict[str, Any]


def _whole(minimum: int, maximum: int = _LARGEST) -> Callable[[Any], int]:
    def convert(value: Any) -> int:
        try:  # never by way of a float, which can't hold every seed
            number = int(value) if isinstance(value, str) else value
        except ValueError:
            number = _number(value)
        if isinstance(number, bool) or not isinstance(number, int | float) or number != number // 1:
            raise ValueError(f"a whole number from {minimum}")
        if not minimum <= number <= maximum:
            raise ValueError(f"a whole number from {minimum} to {maximum}")
        return int(number)

    return convert


def _number(value: Any) -> float:
    if isinstance(value, bool) or not isinstance(value, int | float | str):
        raise ValueError("a number")
    try:
        number = float(value)
    except ValueError:
        raise ValueError("a number") from None
    if not -_LARGEST <= number <= _LARGEST:  # also refuses NaN
        raise ValueError("a finite number")
    return number


def _text(value: Any) -> str:
    if not isinstance(value, str):
        raise ValueError("text")
    return value


def _size(value: Any) -> str:
    found = re.fullmatch(r"\s*(\d{2,5})\s*[xX×]\s*(\d{2,5})\s*", value if isinstance(value, str) else "")
    if not found:
        raise ValueError('WIDTHxHEIGHT, such as "832x480"')
    if max(int(found[1]), int(found[2])) > _LARGEST_SIDE:
        raise ValueError(f"at most {_LARGEST_SIDE} pixels a side")
    return f"{int(found[1])}x{int(found[2])}"


def _anything(value: Any) -> Any:
    return value


WHOLE = Kind("whole", _whole(0), {"type": ["integer", "string"]})
COUNT = Kind("count", _whole(1, 100_000), {"type": ["integer", "string"]})
REPEATS = Kind("repeats", _whole(1, 1000), {"type": ["integer", "string"]})
SEED = Kind("seed", _whole(-1, _LARGEST_SEED), {"type": ["integer", "string"]})
OFF_OR_COUNT = Kind("whole from -1", _whole(-1), {"type": ["integer", "string"]})
NUMBER = Kind("number", _number, {"type": ["number", "string"]})
TEXT = Kind("text", _text, {"type": "string"})
SIZE = Kind("size", _size, {"type": "string", "pattern": r"^\s*\d{2,5}\s*[xX×]\s*\d{2,5}\s*$"})
ANY = Kind("any", _anything, {})


@dataclass(frozen=True)
class Key:
    """One setting: its kind, what it means, the values that ask for nothing, and the key it depends on."""

    kind: Kind
    help: str
    neutral: tuple[Any, ...] = ()
    only_with: str = ""  # matters only while that other key is not neutral
    display: bool = False  # describes the file; asks for nothing


KEYS: Mapping[str, Key] = MappingProxyType(
    {
        "prompt": Key(TEXT, "What the video shows; each line is a video of its own.", ("",)),
        "negative_prompt": Key(TEXT, "What the video should not show.", ("",)),
        "resolution": Key(SIZE, "Width and height in pixels, WIDTHxHEIGHT."),
        "video_length": Key(COUNT, "Number of frames."),
        "seed": Key(SEED, "Start of the random numbers; -1 picks one.", (-1,)),
        "num_inference_steps": Key(REPEATS, "Denoising steps."),
        "guidance_scale": Key(NUMBER, "Guidance; 1 turns it off. Hunyuan: with a negative prompt only.", (1,)),
        "embedded_guidance_scale": Key(NUMBER, "Hunyuan's distilled guidance.", (6,)),
        "guidance2_scale": Key(NUMBER, "Guidance of the second phase (Wan 2.2).", (), "guidance_phases"),
        "guidance_phases": Key(WHOLE, "Phases of guidance, 1 or 2.", (0, 1)),
        "switch_threshold": Key(WHOLE, "Timestep, 0 to 1000, where phase two starts.", (0,), "guidance_phases"),
        "flow_shift": Key(NUMBER, "Shift of the noise schedule."),
        "sample_solver": Key(TEXT, "Solver: unipc, euler or dpm++.", ("",)),
        "repeat_generation": Key(REPEATS, "Videos per prompt.", (1,)),
        "multi_prompts_gen_type": Key(WHOLE, "0: each line of the prompt is its own video; 1, 2: one video.", (0,)),
        "multi_images_gen_type": Key(WHOLE, "How several start images are paired.", (0,)),
        "image_prompt_type": Key(TEXT, "Letters: S start image, E end image.", ("",)),
        "image_start": Key(ANY, "Start image(s).", (None, "", [])),
        "image_end": Key(ANY, "End image(s).", (None, "", [])),
        "video_source": Key(ANY, "Video to continue.", (None, "")),
        "keep_frames_video_source": Key(ANY, "How much of it is kept.", (None, ""), "video_source"),
        "model_mode": Key(ANY, "A number with a meaning of its own in each architecture.", (None, "", 0)),
        "video_prompt_type": Key(TEXT, "Letters: V control video, M mask, I reference images …", ("",)),
        "video_guide": Key(ANY, "Control video.", (None, "")),
        "keep_frames_video_guide": Key(ANY, "Frames of it to keep.", (None, ""), "video_guide"),
        "video_mask": Key(ANY, "Mask video.", (None, "")),
        "mask_expand": Key(NUMBER, "Pixels by which the mask grows.", (0,), "video_mask"),
        "image_refs": Key(ANY, "Reference images.", (None, "", [])),
        "frames_positions": Key(ANY, "Where injected frames go.", (None, ""), "image_refs"),
        "remove_background_images_ref": Key(WHOLE, "Cut the subject out of reference images.", (0,), "image_refs"),
        "audio_guide": Key(ANY, "Audio to follow.", (None, "")),
        "audio_guidance_scale": Key(NUMBER, "How closely the audio is followed.", (), "audio_guide"),
        "sliding_window_size": Key(WHOLE, "Frames of a window of a long video.", (0,)),
        "sliding_window_overlap": Key(WHOLE, "Frames two windows share.", (), "sliding_window_size"),
        "sliding_window_overlap_noise": Key(NUMBER, "Noise added to shared frames.", (0,), "sliding_window_size"),
        "sliding_window_discard_last_frames": Key(WHOLE, "Frames dropped at its end.", (0,), "sliding_window_size"),
        "activated_loras": Key(ANY, "LoRA files to apply.", (None, "", [])),
        "loras_multipliers": Key(ANY, "One weight for each LoRA.", (None, "", []), "activated_loras"),
        "tea_cache_setting": Key(NUMBER, "Step cache: 0 off, else the speed factor aimed at, such as 2.", (0, 1)),
        "tea_cache_start_step_perc": Key(NUMBER, "Percent of steps before it starts.", (0,), "tea_cache_setting"),
        "RIFLEx_setting": Key(WHOLE, "RIFLEx, for videos longer than trained: 0 auto, 1 on, 2 off.", (0, 2)),
        "slg_switch": Key(WHOLE, "Skip-layer guidance, 0 or 1: blocks left out without the prompt.", (0,)),
        "perturbation_switch": Key(WHOLE, "Later name of slg_switch.", (0,)),
        "slg_layers": Key(ANY, "Blocks it leaves out, from 0 up; usually 9.", (None, "", []), "slg_switch"),
        "slg_start_perc": Key(NUMBER, "Percent of steps where it starts.", (), "slg_switch"),
        "slg_end_perc": Key(NUMBER, "Percent of steps where it ends.", (), "slg_switch"),
        "cfg_star_switch": Key(WHOLE, "CFG-Zero*, 0 or 1: guidance scaled to fit each step.", (0,)),
        "cfg_zero_step": Key(OFF_OR_COUNT, "Last step, from 0, that it leaves out; -1 none.", (-1,), "cfg_star_switch"),
        "masking_strength": Key(NUMBER, "How long the mask holds.", (), "video_mask"),
        "denoising_strength": Key(NUMBER, "How much of the source is redone.", (1,), "video_source"),
        "temporal_upsampling": Key(TEXT, "Frame interpolation: rife2, rife4.", ("",)),
        "spatial_upsampling": Key(TEXT, "Enlarging: lanczos1.5, lanczos2.", ("",)),
        "prompt_enhancer": Key(TEXT, "A language model rewrites the prompt.", ("",)),
        "force_fps": Key(ANY, "Frame rate of the file instead of the family's.", (None, "", 0)),
        "batch_size": Key(WHOLE, "Images at once.", (0, 1)),
        "settings_version": Key(ANY, "Version of the settings file.", display=True),
        "type": Key(ANY, "What wrote the file.", display=True),
        "model_type": Key(ANY, "Id of the definition.", display=True),
        "model_filename": Key(ANY, "Weight file that was used.", display=True),
    }
)  # fmt: skip

INPUT_KEYS = ("image_start", "image_end", "video_source", "video_guide", "video_mask", "image_refs", "audio_guide")


def coerce(key: str, value: Any) -> Any:
    """`value` as the setting's kind. Raises SettingsError naming key, value and what it must be."""
    try:
        return KEYS[key].kind.convert(value)
    except ValueError as error:
        shown = repr(value) if len(repr(value)) <= 60 else repr(value)[:57] + "…"
        raise SettingsError(f"{shown} is no value for {key}.", hint=f"It must be {error}.") from None
