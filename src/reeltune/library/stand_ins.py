"""Published files with the same model under other names: a file of ComfyUI's stands in for one that isn't on disk.

Headers can't tell a published model from its finetunes, so files of transformers are recognized by published names. The
header must fit in addition, as for every file.
"""

from __future__ import annotations

import re

from reeltune.definitions.model import Version
from reeltune.net import HUB, file_key

_WANGP = f"{HUB}/DeepBeepMeep/"
_SUFFIX = r"(?:[_-](?:bf16|fp16|fp32|fp8(?:_e4m3fn)?(?:_scaled)?))?\.(?:safetensors|sft)"
_SAME_MODELS = (  # how names begin: in DeepBeepMeep's repositories, and in Comfy-Org's
    (r"wan2\.1_text2video_1\.3B_", r"wan2\.1_t2v_1\.3B"),
    (r"wan2\.1_text2video_14B_", r"wan2\.1_t2v_14B"),
    (r"wan2\.1_image2video_480p_14B_", r"wan2\.1_i2v_480p_14B"),
    (r"wan2\.1_image2video_720p_14B_", r"wan2\.1_i2v_720p_14B"),
    (r"wan2\.1_FLF2V_720p_14B_", r"wan2\.1_flf2v_720p_14B"),
    (r"wan2\.2_text2video_14B_high_", r"wan2\.2_t2v_high_noise_14B"),
    (r"wan2\.2_text2video_14B_low_", r"wan2\.2_t2v_low_noise_14B"),
    (r"wan2\.2_image2video_14B_high_", r"wan2\.2_i2v_high_noise_14B"),
    (r"wan2\.2_image2video_14B_low_", r"wan2\.2_i2v_low_noise_14B"),
    (r"wan2\.2_text2video_5B_", r"wan2\.2_ti2v_5B"),
    (r"hunyuan_video_720_", r"hunyuan_video_t2v_720p"),
    (r"hunyuan_video_i2v_720_\w+v2\.", r"hunyuan_video_v2_replace_image_to_video_720p"),
)


def stand_in_pattern(version: Version) -> re.Pattern[str] | None:
    """A pattern for the names of files that have the same model as a version; None if there are none."""
    if not file_key(version.url).startswith(_WANGP):
        return None
    for listed, other in _SAME_MODELS:
        if re.match(listed, version.file_name):
            return re.compile(other + _SUFFIX, re.IGNORECASE)
    return None
