"""The setting that an unknown name probably stands for."""

from __future__ import annotations

import difflib

from reeltune.families.vocabulary import KEYS
from reeltune.settings.renames import OLD_NAMES

_MAX_NAME = 60  # the time of a comparison grows with the length, and no setting has a longer name
# Common names of settings in other programs that are not similar to WanGP's key.
_SYNONYMS = {
    "steps": "num_inference_steps", "cfg": "guidance_scale", "cfg_scale": "guidance_scale",
    "true_cfg_scale": "guidance_scale", "guidance": "guidance_scale", "frames": "video_length",
    "num_frames": "video_length", "length": "video_length", "duration": "video_length", "fps": "force_fps",
    "frame_rate": "force_fps", "size": "resolution", "width": "resolution", "height": "resolution",
    "shift": "flow_shift", "solver": "sample_solver", "sampler": "sample_solver", "scheduler": "sample_solver",
    "sampler_solver": "sample_solver", "negative": "negative_prompt", "neg_prompt": "negative_prompt",
    "image": "image_start", "start_image": "image_start", "end_image": "image_end", "last_image": "image_end",
    "control_video": "video_guide", "mask": "video_mask", "loras": "activated_loras", "lora": "activated_loras",
    "repeats": "repeat_generation", "count": "repeat_generation", "teacache": "skip_steps_cache_type",
}  # fmt: skip


def nearest_setting(name: str) -> str:
    """The setting that `name` is a synonym or a misspelling of; empty if there is none."""
    lower = name[:_MAX_NAME].lower()
    if lower in _SYNONYMS:
        return _SYNONYMS[lower]
    keys = {key.lower(): key for key in (*KEYS, *OLD_NAMES)}
    matches = difflib.get_close_matches(lower, keys, n=1, cutoff=0.6)
    return keys[matches[0]] if matches else ""
