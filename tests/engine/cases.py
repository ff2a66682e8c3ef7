"""A tiny case of every architecture: a definition like the real one, with its files and inputs, and its settings."""

import numpy as np
import tiny_parts
from PIL import Image

from reeltune import load_catalog
from reeltune.media.mp4 import write_mp4

FAST = {"num_inference_steps": 2, "resolution": "32x32", "video_length": 5, "seed": 3, "prompt": "a cat walks"}
START, END = {"image_start": "start.png"}, {"image_end": "end.png"}
PARTS = {"i2v": "wan_image", "fun_inp": "wan_image", "fun_inp_1.3B": "wan_image", "flf2v_720p": "wan_image",
         "animate": "wan_image", "chrono_edit": "wan_image", "wanmove": "wan_image", "lucy_edit": "wan22",
         "ti2v_2_2": "wan22", "hunyuan": "hunyuan", "hunyuan_i2v": "hunyuan_image", "ltxv_13B": "ltx",
         "hunyuan_1_5_t2v": "hunyuan_1_5", "hunyuan_1_5_i2v": "hunyuan_1_5_image",
         **dict.fromkeys(("k5_lite_t2v", "k5_lite_i2v", "k5_pro_t2v", "k5_pro_i2v"), "kandinsky_5"),
         "ltx2_19B": "ltx_2", "ltx2_22B": "ltx_2_3", "ltx2_22B_msr": "ltx_2_3", "ltx2_25_22B": "ltx_2_5"}  # fmt: skip
LARGER = {"resolution": "128x128", "video_length": 9}
SUBJECTS = LARGER | {"video_length": 17, "video_prompt_type": "KI", "image_refs": ["start.png", "end.png"]}
MOTION = {"video_guide": "guide.mp4", "video_guide2": "face.mp4", "image_refs": "end.png"}
REPLACED = {"video_mask": "mask.mp4", "custom_guide": "guide.mp4", "video_prompt_type": "VBAI"}
CASES = {
    "t2v": {}, "t2v_1.3B": {"guidance_scale": 1.0}, "i2v": START, "i2v, end": START | END, "fun_inp": START | END, "fun_inp_1.3B": START,
    "flf2v_720p": START | END, "vace_14B": {"video_guide": "guide.mp4", "video_mask": "mask.mp4", "image_refs": ["end.png"]},
    "vace_1.3B": {}, "t2v_2_2": {"num_inference_steps": 4}, "i2v_2_2": START | {"num_inference_steps": 4},
    "vace_14B_2_2": {"video_guide": "guide.mp4", "guidance_scale": 3.0, "guidance2_scale": 2.0}, "ti2v_2_2": {},
    "ti2v_2_2, image": START, "hunyuan": {}, "hunyuan, negative": {"negative_prompt": "blurry", "guidance_scale": 3.0},
    "hunyuan_i2v_token": START, "hunyuan_i2v_concat": START | {"negative_prompt": "blurry", "guidance_scale": 2.0},
    "lucy_edit": {"video_guide": "guide.mp4"}, "sky_df_1.3B": {}, "sky_df_14B, image": START,
    "sky_df_14B": {"video_length": 17, "sliding_window_size": 9, "sliding_window_overlap": 1},
    "sky_df_14B, blocks": {"video_length": 57, "model_mode": 5, "sliding_window_size": 37, "num_inference_steps": 3},
    "animate": MOTION, "chrono_edit": START, "chrono_edit, reasoning": START | {"model_mode": 1},
    "animate, replaced": MOTION | REPLACED | {
        "video_length": 13, "sliding_window_size": 5, "guidance_scale": 2.0, "negative_prompt": "blurry",
    },
    "phantom_1.3B": {"image_refs": "end.png"}, "phantom_14B": {"image_refs": ["end.png", "start.png"], "negative_prompt": "blurry"},
    "wanmove": START | {"custom_guide": "tracks.npy", "video_length": 13},
    "i2v_2_2_svi2pro": START | {"num_inference_steps": 4},
    "i2v_2_2_svi2pro, windows": START | {
        "num_inference_steps": 4, "video_length": 29, "sliding_window_size": 13, "guidance2_scale": 3.0,
    },
    "vace_ditto_14B": {"video_guide": "guide.mp4", "model_mode": 1},
    "hunyuan_1_5_t2v": {"prompt": 'a cat holds a sign that says "cat"', "negative_prompt": 'no "dog"'},
    "hunyuan_1_5_t2v_diffusers": {}, "hunyuan_1_5_t2v, distilled": {"guidance_scale": 1.0}, "hunyuan_1_5_i2v": START | {"guidance_scale": 3.0},
    "hunyuan_1_5_i2v_step": START | {"guidance_scale": 1.0, "num_inference_steps": 3},
    "k5_lite_t2v": {"negative_prompt": "blurry"}, "k5_lite_i2v": START | {"video_length": 17}, "k5_pro_t2v": {"guidance_scale": 1.0},
    "k5_pro_i2v": START | {"guidance_scale": 1.0, "video_length": 17},
    "ltxv_13B": {"resolution": "96x96", "video_length": 9},
    "ltxv_13B, images": START | END | {"resolution": "96x96", "video_length": 9},
    "ltx2_19B": LARGER | {"perturbation_layers": [1], "negative_prompt": "blurry"},
    "ltx2_19B_diffusers": LARGER | {"guidance_phases": 1, "perturbation_switch": 0, "alt_guidance_scale": 1.0},
    "ltx2_19B, images": START | END | LARGER | {"perturbation_switch": 0},
    "ltx2_22B": LARGER | {"perturbation_layers": [0], "audio_guidance_scale": 1.0, "alt_scale": 0.0},
    "ltx2_22B, image": START | LARGER | {"sample_solver": "distilled_8_steps", "guidance_phases": 1},
    "ltx2_22B_msr, distilled": SUBJECTS | {"video_length": 33}, "ltx2_22B_msr": SUBJECTS | {"perturbation_switch": 0},
    "ltx2_22B, distilled": LARGER, "ltx2_25_22B": START | LARGER | {"perturbation_layers": [1]},
}  # fmt: skip


def architecture_of(case):
    name = case.partition(",")[0]
    several = ("hunyuan_i2v", "hunyuan_1_5_i2v", "hunyuan_1_5_t2v", "ltx2_19B")  # with transformers of several kinds
    return next((architecture for architecture in several if name.startswith(architecture)), name)


def write_case(name, root, define, parts, layout="original"):
    """The definition and the settings of a case; its files are written into the root."""
    architecture = architecture_of(name)
    lists = tiny_parts.transformer_files(root / "ckpts", name.partition(",")[0], layout)
    components = parts(PARTS.get(architecture, "wan"))
    phases = (
        {"guidance2_scale": 2.0, "switch_threshold": 900}
        if "_2_2" in architecture and "ti2v" not in architecture
        else {}
    )
    config = {"LTXV_config": "ltxv-13b-0.9.8-distilled.yaml"} if architecture.startswith("ltxv") else {}
    if architecture == "vace_ditto_14B":
        config["preload_URLs"] = [
            tiny_parts.vace_lora(root / "loras" / "wan" / f"edit{n}.safetensors", n) for n in range(3)
        ]
    if "distilled" in name and architecture.startswith("ltx2"):
        config = {"ltx2_pipeline": "distilled"}
    define("mine", {"architecture": architecture, "components": str(components), **lists, **config}, **phases)
    rng = np.random.default_rng(0)
    for file in ("start.png", "end.png"):
        Image.fromarray(rng.integers(0, 255, (40, 64, 3), dtype=np.uint8)).save(root / file)
    frames = rng.integers(0, 255, (5, 32, 32, 3), dtype=np.uint8)
    np.save(root / "tracks.npy", rng.uniform(-8, 40, (13, 12, 2)).astype(np.float32))
    write_mp4(root / "guide.mp4", frames, 16, {})
    write_mp4(root / "face.mp4", frames[::-1, 8:24, 4:20], 16, {})
    write_mp4(root / "mask.mp4", np.repeat((frames[:, :1, :1] > 128) * np.uint8(255), 32, 1).repeat(32, 2), 16, {})
    return load_catalog(root)["mine"], FAST | CASES[name]
