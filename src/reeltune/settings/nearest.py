"""The setting that was probably meant by a name that is none."""

from __future__ import annotations

import difflib

from reeltune.families.vocabulary import KEYS
from reeltune.settings.renames import OLD_NAMES

_LONGEST_NAME = 60  # comparing takes time that grows with the length, and no setting is longer
# What people write for a setting, where the name itself doesn't lead to it.
_OTHER_WORDS = {
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
    """The setting most like `name`, or the one such a word stands for; empty where there is none."""
    lower = name[:_LONGEST_NAME].lower()
    if lower in _OTHER_WORDS:
        return _OTHER_WORDS[lower]
    by_lower = {key.lower(): key for key in (*KEYS, *OLD_NAMES)}
    near = difflib.get_close_matches(lower, by_lower, n=1, cutoff=0.6)
    return by_lower[near[0]] if near else ""
