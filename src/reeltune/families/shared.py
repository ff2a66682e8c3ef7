"""What the declarations of several families have in common."""

from __future__ import annotations

from reeltune.families.base import LORAS, STEP_CACHE, Config, Rename, frozen

TEXT_DEFAULTS: Config = frozen(
    prompt="A red fox trots through fresh snow at dawn, the camera gliding beside it",
    negative_prompt="",
    resolution="832x480",
    video_length=81,
    num_inference_steps=30,
    seed=-1,
    repeat_generation=1,
)
IMAGE_DEFAULTS: Config = frozen(
    prompt="The scene comes to life, gentle natural movement, steady camera",
    image_prompt_type="S",
)
USED_BY_ALL = ("multi_prompts_gen_type", "force_fps", "sample_solver", *LORAS, *STEP_CACHE)


def same_names(*names: str) -> tuple[Rename, ...]:
    """Modules whose names are the same in the original layout and in diffusers."""
    return tuple(Rename(name, name) for name in names)
