import os
import re
from functools import cache
from random import Random

import pytest

import ltx2_files
from conftest import CONTAINERS, safetensors_bytes
from reeltune.checkpoints.contents import Header, Tensor
from reeltune.checkpoints.header import parse_header
from reeltune.checkpoints.identify import _markers, identify
from reeltune.checkpoints.keys import map_names, translate
from reeltune.families import ARCHITECTURES, FAMILIES
from reeltune.families.wan import WAN

RIGHT = {
    "wan_t2v_1.3B": ("t2v_1.3B",),
    "wan_t2v_14B": ("t2v", "t2v_2_2"),
    "wan_i2v_14B": ("i2v", "fun_inp"),
    "wan_vace_module_14B": ("vace_14B", "vace_14B_2_2"),
    "wan_vace_module_1.3B": ("vace_1.3B",),
    "hunyuan_t2v_13B": ("hunyuan", "hunyuan_i2v"),
    "hunyuan_i2v_token_replace_13B": ("hunyuan_i2v",),
    "hunyuan_i2v_concat_13B": ("hunyuan_i2v",),
}


class Sparse:
    """A source whose header is real and whose data is never read: a 28 GB file in a few KB."""

    name = "sparse"

    def __init__(self, shapes, dtype="BF16", prefix=""):
        rows = {prefix + name: (dtype, shape) for name, shape in shapes.items()}
        self.start = safetensors_bytes(rows, data=b"")
        sizes = [2 * _product(shape) for shape in shapes.values()]
        self.total = len(self.start) + sum(sizes)

    def size(self):
        return self.total

    def read_at(self, offset, length):
        return self.start[offset : offset + length]


def _product(shape):
    count = 1
    for side in shape:
        count *= side
    return count


@pytest.mark.parametrize("prefix", CONTAINERS)
@pytest.mark.parametrize("label", RIGHT)
def test_every_real_header_with_every_prefix(headers, label, prefix):
    found = identify(parse_header(Sparse(headers[label], prefix=prefix)))
    assert found.architectures == RIGHT[label]
    assert (found.layout, found.prefix, found.quantization, found.dtype) == ("original", prefix, "none", "bf16")
    assert found.parameters == sum(_product(shape) for shape in headers[label].values())
    assert found.role == ("module" if "module" in label else "model")


@pytest.mark.parametrize("prefix", CONTAINERS)
@pytest.mark.parametrize("label", [label for label in RIGHT if label.startswith("wan")])
def test_wan_headers_in_the_diffusers_layout(headers, label, prefix):
    shapes = {translate(name, WAN, "original"): shape for name, shape in headers[label].items()}
    assert None not in shapes
    found = identify(parse_header(Sparse(shapes, prefix=prefix)))
    assert found.architectures == RIGHT[label]
    assert found.layout == "diffusers"


PUBLISHED = {
    "hunyuan": ("HunyuanVideoTransformer3DModel", {"guidance_embeds": True}, ("hunyuan", "hunyuan_i2v")),
    "token replace": ("HunyuanVideoTransformer3DModel", {"guidance_embeds": False}, ("hunyuan_i2v",)),
    "concat": ("HunyuanVideoTransformer3DModel", {"guidance_embeds": False, "in_channels": 33}, ("hunyuan_i2v",)),
    "hunyuan 1.5": ("HunyuanVideo15Transformer3DModel", {}, ("hunyuan_1_5_t2v", "hunyuan_1_5_i2v")),
    "hunyuan 1.5 in steps": ("HunyuanVideo15Transformer3DModel", {"use_meanflow": True}, ("hunyuan_1_5_i2v",)),
    "hunyuan 1.5 upsampler": ("HunyuanVideo15Transformer3DModel", {"in_channels": 98}, ()),
    "kandinsky lite": (
        "Kandinsky5Transformer3DModel",
        {"in_visual_dim": 16, "out_visual_dim": 16, "model_dim": 1792, "ff_dim": 7168, "visual_cond": True},
        ("k5_lite_t2v", "k5_lite_i2v"),
    ),
    "kandinsky pro": (
        "Kandinsky5Transformer3DModel",
        {"in_visual_dim": 16, "out_visual_dim": 16, "model_dim": 4096, "axes_dims": (32, 48, 48), "visual_cond": True},
        ("k5_pro_t2v", "k5_pro_i2v"),
    ),
    "kandinsky images": (
        "Kandinsky5Transformer3DModel",
        {"in_visual_dim": 16, "out_visual_dim": 16, "model_dim": 2560},
        (),
    ),
    **{
        f"ltx {version}": ("LTX2VideoTransformer3DModel", config | {"num_layers": 2}, (id,))
        for version, config, id in (
            ("2.0", ltx2_files.TRANSFORMER_2_0, "ltx2_19B"),
            ("2.3", ltx2_files.TRANSFORMER_2_3, "ltx2_22B"),
            ("2.5", ltx2_files.TRANSFORMER_2_5, "ltx2_25_22B"),
        )
    },
    "ltx": (
        "LTXVideoTransformer3DModel",
        {"num_attention_heads": 32, "attention_head_dim": 128, "num_layers": 2},
        ("ltxv_13B",),
    ),
}


@pytest.mark.parametrize("prefix", CONTAINERS)
@pytest.mark.parametrize("label", PUBLISHED)
def test_other_families_in_the_diffusers_layout(label, prefix):
    import diffusers
    from accelerate import init_empty_weights

    name, config, expected = PUBLISHED[label]
    with init_empty_weights():
        model = getattr(diffusers, name)(**config)
    shapes = {key: list(tensor.shape) for key, tensor in model.state_dict().items()}
    found = identify(parse_header(Sparse(shapes, prefix=prefix)))
    same = name == "Kandinsky5Transformer3DModel"  # its names are the same in both layouts
    assert (found.architectures, found.layout) == (expected, "original" if same else "diffusers")


@cache
def published_shapes(label):
    """The header of one of `PUBLISHED`, in the original layout."""
    import diffusers
    from accelerate import init_empty_weights

    from layouts import original_layout

    name, config, _ = PUBLISHED[label]
    with init_empty_weights():
        model = getattr(diffusers, name)(**config)
    family = next(family for family in FAMILIES if family.transformer_class == name)
    return {key: list(row.shape) for key, row in original_layout(model.state_dict(), family).items()}


def mutated(random, shapes):
    """Shapes with some tensors left out, renamed or of another shape."""
    shapes = dict(shapes)
    for _ in range(random.choice((1, 2, 5, 40))):
        name = random.choice(list(shapes))
        shape = shapes.pop(name)
        change = random.randrange(5)
        if change == 1:
            name = name.replace("0", random.choice(("1", "-1", "99999999999", "x")))
        elif change == 2:
            name = (
                random.choice(("", "model.", "module.", "diffusion_model.", "é.")) + name[random.randrange(len(name)) :]
            )
        elif change == 3:
            shape = [random.choice((0, 1, 2, 16, 65, side, 2**31)) for side in shape]
        elif change == 4:
            shape = random.choice(([], shape[:1], [*shape, 1], shape[::-1]))
        if change:
            shapes[name] = shape
    return shapes


TRIES = int(os.environ.get("REELTUNE_FUZZ_HEADERS", "5000"))
BLOCK = re.compile(r"(?:^|[._])(?:blocks|layers)\.(\d+)\.")


def seeds(headers):
    """The headers of all families with the names of their files, by what they are."""
    found = {label: (shapes, "x.safetensors") for label, shapes in headers.items()}
    found |= {label: (published_shapes(label), "x.safetensors") for label in PUBLISHED}
    return found | {f"{id}, relative": seed for id, seed in relatives(headers).items()}


def family_of(label):
    names = {"wan": "wan", "hunyuan 1.5": "hunyuan_1_5", "kandinsky": "kandinsky_5", "ltx": "ltx"}
    found = [family for start, family in names.items() if label.startswith(start) or "relative" in label]
    return found[0] if found else "hunyuan"


def explaining(shapes):
    """The families that every name belongs to, in one of their layouts."""
    for family in FAMILIES:
        for layout, markers in _markers(family).items():
            names = map_names(shapes, family, layout, "")
            if not names.unknown and not set(markers).isdisjoint(shapes):
                yield family.name
                break


def test_every_header_has_exactly_its_own_family(headers):
    """Names that two families share, as those of Hunyuan Video and 1.5, don't make a file of one fit the other."""
    for label, (shapes, file) in seeds(headers).items():
        expected = family_of(label)
        constants = ("face_adapter.", "motion_encoder.")  # only parts of them are in these headers
        whole = {name: shape for name, shape in shapes.items() if not name.startswith(constants)}
        assert list(explaining(whole)) == [expected], label
        found = named(shapes, file)
        assert found.family == expected, label
        assert not found.components
        assert not any("not the model's" in line for line in found.evidence)


def test_mutated_headers_end_in_a_result(headers):
    """Of all families; two of all equal blocks are kept, so that there is time for many."""
    random = Random(5)
    short = [
        ({name: shape for name, shape in shapes.items() if int((BLOCK.search(name) or [0, 0])[1]) < 2}, file)
        for shapes, file in seeds(headers).values()
    ]
    for number in range(TRIES):
        shapes, file = short[number % len(short)]
        tensors = {name: Tensor(name, "BF16", tuple(shape), 0, 0) for name, shape in mutated(random, shapes).items()}
        found = identify(Header(random.choice((file, "x", "")), tensors, {}, 0, 0))
        assert set(found.architectures) <= set(found.compatible) <= set(ARCHITECTURES)
        assert (found.family is None) == (not found.compatible and found.layout is None)


def test_all_published_sizes_have_their_counts(headers):
    assert len(headers["wan_t2v_1.3B"]) == 825
    assert len(headers["wan_t2v_14B"]) == 1095


def test_another_size_of_the_same_structure_is_compatible_with_all_of_it(headers):
    shapes = dict(headers["wan_t2v_1.3B"]) | {"patch_embedding.weight": [192, 16, 1, 2, 2]}
    found = identify(parse_header(Sparse(shapes)))
    assert set(found.architectures) == {"t2v", "t2v_1.3B", "t2v_2_2"}
    assert found.fits("t2v")
    assert not found.fits("i2v")


def test_wan_2_2_image_to_video_has_no_image_embedding(headers):
    shapes = dict(headers["wan_t2v_14B"])
    shapes["patch_embedding.weight"] = [5120, 36, 1, 2, 2]
    assert identify(parse_header(Sparse(shapes))).architectures == ("i2v_2_2",)


def test_animate_is_not_taken_for_image_to_video(headers):
    shapes = headers["wan_i2v_14B"] | {"face_adapter.fuser_blocks.0.linear1_q.weight": [4, 4]}
    found = identify(parse_header(Sparse(shapes)))
    assert found.family == "wan"
    assert found.architectures == ()


def test_quanto_and_fp8_are_told_by_the_header(headers):
    quanto = {
        "head.modulation": ("BF16", [1, 2, 4]),
        "blocks.0.self_attn.q.weight._data": ("I8", [4, 4]),
        "blocks.0.self_attn.q.weight._scale": ("F16", [4, 1]),
    }
    for tensors, expected in (
        (quanto, ("quanto_int8", "fp16")),
        ({"head.modulation": ("BF16", [1, 2, 4]), "x": ("F8_E4M3", [8])}, ("fp8", "bf16")),
        (
            {"head.modulation": ("BF16", [1]), "x.scale_weight": ("F32", []), "x": ("F8_E4M3", [8])},
            ("fp8_scaled", "bf16"),
        ),
    ):
        source = Sparse({})
        source.start = safetensors_bytes(tensors)
        source.total = len(source.start)
        found = identify(parse_header(source))
        assert (found.quantization, found.dtype) == expected


@pytest.mark.parametrize(
    "wrapped", ["blocks.{}._orig_mod.", "blocks.{}._fsdp_wrapped_module._checkpoint_wrapped_module."]
)
def test_modules_wrapped_one_by_one_are_what_they_hold(headers, wrapped):
    shapes = {}
    for name, shape in headers["wan_t2v_1.3B"].items():
        parts = name.split(".")
        inside = parts[0] == "blocks"
        shapes[wrapped.format(parts[1]) + ".".join(parts[2:]) if inside else name] = shape
    found = identify(parse_header(Sparse(shapes)))
    assert (found.architectures, found.layout) == (("t2v_1.3B",), "original")


def test_names_of_an_unknown_file_are_shown():
    found = identify(parse_header(Sparse({"some.thing.weight": [4], "another": [2]})))
    assert found.family is None
    assert "some.thing.weight" in " ".join(found.evidence)


def test_unknown_files_are_contradicted_by_nothing():
    source = Sparse({"something.else": [4]})
    found = identify(parse_header(source))
    assert (found.family, found.architectures, found.fits("t2v")) == (None, (), True)


# --- Wan's relatives ------------------------------------------------------------------------------------------------

PHANTOM, MOVE = "wan2.1_phantom_14B_quanto_mbf16_int8.safetensors", "wan2.1_wanmove_14B_mbf16.safetensors"
SKY, CHRONO = "sky_reels2_diffusion_forcing_14B_quanto_int8.safetensors", "wan2.1_chrono_edit_14B_mbf16.safetensors"
FACES = {
    "pose_patch_embedding.weight": [5120, 16, 1, 2, 2],
    "face_adapter.fuser_blocks.0.linear1_q.weight": [5120, 5120],
    "motion_encoder.enc.net_app.convs.1.conv2.0.kernel": [4, 4],
}


def relatives(headers):
    """The headers of Wan's relatives, from those of its own models: the shapes that tell them, and their file's name."""
    text, small, image = headers["wan_t2v_14B"], headers["wan_t2v_1.3B"], headers["wan_i2v_14B"]
    five = {name: [{1536: 3072, 8960: 14336}.get(side, side) for side in shape] for name, shape in small.items()}
    edit = five | {"patch_embedding.weight": [3072, 96, 1, 2, 2], "head.head.weight": [192, 3072]}
    return {
        "lucy_edit": (edit, "a.safetensors"),
        "ti2v_2_2": (edit | {"patch_embedding.weight": [3072, 48, 1, 2, 2]}, "lucy_edit.safetensors"),
        "sky_df_1.3B": (small | {"fps_embedding.weight": [2, 1536]}, "a.safetensors"),
        "sky_df_14B": (text, SKY),
        "animate": (image | FACES, "a.safetensors"),
        "chrono_edit": (image, CHRONO),
        "phantom_1.3B": (small, "wan2_1_phantom_1.3B_mbf16.safetensors"),
        "phantom_14B": (text, PHANTOM),
        "wanmove": (image, MOVE),
    }


def named(shapes, file, prefix=""):
    source = Sparse(shapes, prefix=prefix)
    source.name = file
    return identify(parse_header(source))


@pytest.mark.parametrize("prefix", CONTAINERS)
@pytest.mark.parametrize("id", [
    "lucy_edit", "ti2v_2_2", "sky_df_1.3B", "sky_df_14B", "animate", "chrono_edit", "phantom_1.3B", "phantom_14B", "wanmove",
])  # fmt: skip
def test_relatives_are_not_taken_for_each_other(headers, id, prefix):
    shapes, file = relatives(headers)[id]
    assert named(shapes, file, prefix).architectures == (id,)


@pytest.mark.parametrize(
    ("label", "file", "expected"),
    [
        ("wan_t2v_14B", "wan2.1_text2video_14B_bf16.safetensors", ("t2v", "t2v_2_2")),
        ("wan_t2v_14B", "Wan2_1-SkyReels-V2-T2V-14B-720P_fp16.safetensors", ("t2v", "t2v_2_2")),
        ("wan_t2v_14B", "https://h/a/Wan2_1-SkyReels-V2-DF-14B-540P_fp16.safetensors?download=true", ("sky_df_14B",)),
        ("wan_t2v_1.3B", "sky_reels2_diffusion_forcing_1.3B.safetensors", ("t2v_1.3B",)),
        ("wan_i2v_14B", "wan2.1_image2video_480p_14B_mbf16.safetensors", ("i2v", "fun_inp")),
        ("wan_i2v_14B", "ChronoEdit-14B.safetensors", ("chrono_edit",)),
        ("wan_vace_module_14B", SKY, ("vace_14B", "vace_14B_2_2")),
        ("wan_t2v_14B", "Phantom-Wan-14B_fp16.safetensors", ("phantom_14B",)),
        ("wan_t2v_1.3B", "Phantom-Wan-1_3B_fp16.safetensors", ("phantom_1.3B",)),
        ("wan_t2v_14B", MOVE, ("t2v", "t2v_2_2")),
        ("wan_i2v_14B", "Wan21-WanMove_fp8_scaled_e4m3fn_KJ.safetensors", ("wanmove",)),
        ("wan_i2v_14B", PHANTOM, ("i2v", "fun_inp")),
        ("wan_vace_module_14B", "ditto_global_style_comfy.safetensors", ("vace_14B", "vace_14B_2_2")),
        ("wan_t2v_14B", CHRONO, ("t2v", "t2v_2_2")),
    ],
)
def test_equal_headers_are_told_by_the_name_of_the_file(headers, label, file, expected):
    assert named(headers[label], file).architectures == expected


def test_what_a_user_writes_is_not_contradicted_by_a_name(headers):
    assert named(headers["wan_t2v_14B"], "mine.safetensors").fits("sky_df_14B")
    assert named(headers["wan_t2v_14B"], SKY).fits("t2v")
    assert named(headers["wan_i2v_14B"], "mine.safetensors").fits("chrono_edit")
    assert not named(headers["wan_i2v_14B"], "mine.safetensors").fits("animate")
    assert named(headers["wan_i2v_14B"], "mine.safetensors").fits("wanmove")
    assert named(headers["wan_t2v_14B"], PHANTOM).fits("t2v")
    assert named(headers["wan_vace_module_14B"], "mine.safetensors").fits("vace_ditto_14B")
    two = headers["wan_t2v_14B"] | {"patch_embedding.weight": [5120, 36, 1, 2, 2]}
    assert named(two, "mine.safetensors").fits("i2v_2_2_svi2pro")
    assert named(two, "svi2pro.safetensors").architectures == ("i2v_2_2",)
    assert not named(headers["wan_t2v_1.3B"], SKY).fits("sky_df_1.3B")


def test_mutated_headers_of_relatives_are_identified_or_unknown(headers):
    random = Random(5)
    seeds = list(relatives(headers).values())
    for _ in range(300):
        shapes, file = random.choice(seeds)
        changed = dict(shapes)
        for name in random.sample(sorted(changed), 3):
            kind = random.randrange(4)
            shape = changed.pop(name)
            if kind == 1:
                changed[name] = [random.choice((0, 1, 3, 2**20)) for _ in shape]
            elif kind == 2:
                changed[name] = shape[:-1]
            elif kind == 3:
                changed[name.replace(".1", ".99999")] = shape
        found = named(changed, random.choice((file, "x", "", "a/" * 50)))
        assert found.family in (None, "wan")
        assert set(found.architectures) <= set(found.compatible)
