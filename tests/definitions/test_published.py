"""Definitions that other people published: every one is read, and every reason not to run one is true."""

import json
from collections import Counter
from contextlib import suppress
from pathlib import Path

import pytest

from conftest import DATA, safetensors_bytes
from published import definition, facts, write_all
from reeltune import load_catalog
from reeltune.cli import main
from reeltune.definitions.checking import check_files
from reeltune.families import ARCHITECTURES

UNKNOWN = "an architecture that reeltune doesn't support"


@pytest.fixture
def catalog(root):
    write_all(root)
    return load_catalog(root)


def test_none_of_the_217_is_set_aside(catalog):
    assert catalog.broken == {}
    assert catalog.unread == []
    assert all(id in catalog for id in facts())
    odd = [row for id, row in facts().items() if row["architecture"] in ARCHITECTURES for row in catalog[id].notices]
    assert all(row.severity == "warning" for row in odd)
    assert sorted({row.message for row in odd}) == [
        "It is not used: attention isn't sparse, and timesteps are taken from the settings.",
        "It is not used: the length of the clip of reference images follows from the LoRA and their number.",
        "It is not used: the number of phases is taken from the settings.",
        "Unknown setting; it is kept, but not used.",
    ]


def test_reasons_by_count(catalog):
    rows = [row for row in catalog.summaries() if row.id in facts()]
    counts = Counter(row.cause for row in rows)
    assert counts == {UNKNOWN: 132, "": 85}


def test_the_readme_counts_them_by_family():
    repository = Path(__file__).parents[2]
    models = (repository / "docs" / "models.md").read_text(encoding="utf-8")
    start = models.index("| family | published definitions |")
    table = models[start : models.index("\n\n", start)]
    assert table.count("\n| ") > 5
    assert table in (repository / "README.md").read_text(encoding="utf-8")


def test_those_with_loras_or_three_phases_run(catalog):
    """Those that the facts name, of the architectures that are supported."""
    rows = {id: row for id, row in facts().items() if row["architecture"] in ARCHITECTURES}
    with_loras = {id for id, row in rows.items() if row.get("loras")}
    three_phases = {id for id, row in rows.items() if row["settings"].get("guidance_phases", 1) == 3}
    assert with_loras == {
        "i2v_fusionix",
        "ti2v_2_2_fastwan",
        "vace_14B_cocktail",
        "vace_14B_cocktail_2_2",
        "vace_fun_14B_cocktail_2_2",
        "vace_14B_lightning_3p_2_2",
        "lucy_edit_fastwan",
        "lucy_edit_fastwan_1_1",
        "chrono_edit_distill",
        "i2v_2_2_svi2pro",
        "i2v_2_2_Enhanced_Lightning_v2_svi2pro",
        "ltx2_22B_msr",
        "ltx2_22B_msr_v2",
    }
    assert three_phases == {"vace_14B_lightning_3p_2_2"}
    for id in with_loras | three_phases:
        assert catalog[id].runnable, id


def reasons_by_hand(id, rows):
    """Why a definition can't run, told from the facts by other code than the program's."""
    row = rows[id]
    if row["architecture"] not in ARCHITECTURES:
        return [f"{row['architecture']!r} is {UNKNOWN}"]
    return []


def test_every_reason_is_true(catalog):
    rows = facts()
    for summary in catalog.summaries():
        if summary.id in rows:
            assert summary.reason == "; ".join(reasons_by_hand(summary.id, rows)), summary.id
            assert summary.runnable == (summary.reason == "")


def test_no_other_model_is_proposed(catalog, root):
    problems, count = check_files(catalog, [root / "finetunes"])
    assert count == 217
    assert {row.severity for row in problems} == {"warning"}
    proposals = {row.fix for row in problems if "Did you mean" in row.fix}
    assert proposals == {"Did you mean 'sample_solver'?"}


def test_hidden_ones_are_not_visible(catalog):
    hidden = {row.id for row in catalog.summaries() if not row.visible}
    assert hidden == {id for id, row in facts().items() if row.get("visible") is False}


JULY_2025 = {
    "vace_14B": {"architecture": "vace_14B", "modules": ["vace_14B"], "URLs": "t2v"},
    "t2v_2_2": {"architecture": "t2v", "URLs": ["https://h/high_bf16.safetensors"],
                "URLs2": ["https://h/low_bf16.safetensors"], "group": "wan2_2"},
    "vace_14B_cocktail_2_2": {"architecture": "vace_14B", "URLs": "t2v_2_2", "URLs2": "t2v_2_2",
                              "modules": ["vace_14B"]},
    "mine": {"architecture": "i2v", "URLs": ["https://h/i_high_bf16.safetensors"], "URLs2": "mine#URLs"},
}  # fmt: skip


def test_older_shapes_run(root, define):
    """July and August 2025: modules that name the file's own id, and Wan 2.2 as an architecture of Wan 2.1."""
    settings = {"switch_threshold": 875, "guidance_scale": 4, "guidance2_scale": 3, "flow_shift": 12}
    for id, model in JULY_2025.items():
        define(id, model, multi_prompts_gen_type=0, slg_switch=0, tea_cache_setting=0, image_prompt_type=0, **settings)
    built_in = load_catalog(root / "elsewhere")
    catalog = load_catalog(root)
    assert not catalog.broken
    assert [row for row in catalog.problems() if row.severity == "error"] == []
    assert all(row.runnable for row in catalog.summaries())
    assert catalog["vace_14B"].slots == built_in["vace_14B"].slots
    assert catalog["vace_14B_fusionix"].slots["modules[0]"] == built_in["vace_14B"].slots["modules[0]"]
    assert catalog["t2v_2_2"].architecture.id == "t2v_2_2"
    assert catalog["t2v_2_2"].components == built_in["t2v_2_2"].components
    assert catalog["vace_14B_cocktail_2_2"].architecture.id == "vace_14B_2_2"
    assert catalog["vace_14B_2_2"].slots["transformer"][0].url == "https://h/high_bf16.safetensors"
    assert catalog["mine"].architecture.id == "i2v_2_2"
    assert catalog["mine"].slots["transformer_2"] == catalog["mine"].slots["transformer"]


def test_the_definitions_of_june_2025_are_read_beside_the_built_in_ones(root):
    rows = json.loads((DATA / "definitions.json").read_text(encoding="utf-8"))
    for id, row in rows.items():
        value = {"model": {"name": id, **{key: item for key, item in row.items() if key != "settings"}}}
        path = root / "finetunes" / f"{id}.json"
        path.write_text(json.dumps(value | row.get("settings", {})), encoding="utf-8")
    catalog = load_catalog(root)
    assert not catalog.problems()
    assert all(row.runnable for row in catalog.summaries())


@pytest.mark.parametrize("id", ["phantom_1.3B", "phantom_14B", "i2v_2_2_svi2pro", "wanmove", "vace_ditto_14B"])
def test_built_in_relatives_list_the_files_and_settings_that_are_published(id):
    row, built_in = facts()[id], load_catalog("/nonexistent")[id]
    assert built_in.architecture.id == row["architecture"]
    assert dict(built_in.settings) == row["settings"]
    listed = {"URLs": built_in.slots["transformer"], "preload_URLs": built_in.preload, "loras": built_in.loras}
    for key, versions in listed.items():
        names = row.get(key, [])
        names = facts()[names]["URLs"] if isinstance(names, str) else names
        assert [version.file_name for version in versions] == names, key


@pytest.mark.parametrize("id", ["ltx2_22B_msr", "ltx2_22B_msr_v2"])
def test_built_in_definitions_with_reference_images_list_the_files_that_are_published(id):
    row, catalog = facts()[id], load_catalog("/nonexistent")
    built_in = catalog[id]
    assert built_in.architecture.id == row["architecture"]
    assert built_in.slots == catalog[row["URLs"]].slots
    assert [version.file_name for version in built_in.loras] == row["loras"]
    assert built_in.architecture.scales.distilled
    assert all(row["settings"][key] == value for key, value in built_in.settings.items())


def test_the_facts_make_whole_definitions():
    made = definition("t2v_2_2", facts()["t2v_2_2"])
    assert made["model"]["URLs"][0].startswith("https://")
    assert made["model"]["group"] == "wan2_2"


REFUSED = {
    "svdq-int4_r32-x.safetensors": "nunchaku (SVDQuant) weights can't be loaded",
    "x_nunchaku.safetensors": "nunchaku (SVDQuant) weights can't be loaded",
    "x_w4a8.safetensors": "w4a8 weights (4 bits) can't be loaded",
    "x_int4_convrot.safetensors": "int4 weights can't be loaded",
    "x_awq.safetensors": "int4 weights can't be loaded",
    "x_bnb_nf4.safetensors": "nf4 weights (bitsandbytes) can't be loaded",
    "x_mxfp8.safetensors": "mxfp8, mxfp6 and mxfp4 weights can't be loaded",
}


@pytest.mark.parametrize("name", REFUSED)
def test_formats_are_refused_by_name_everywhere(root, define, name, capsys):
    """In `list`, `explain`, `check` and `pull` by the name in the URL; nothing is downloaded."""
    define("mine", {"name": "Mine", "architecture": "t2v", "URLs": [f"https://h/{name}"]}, prompt="a fox")
    for command in (["list"], ["explain", "mine"], ["check"], ["pull", "mine"]):
        with suppress(SystemExit):
            main([*command, "--root", str(root)])
        answer = capsys.readouterr()
        said = " ".join((answer.out + answer.err).split())
        assert REFUSED[name] in said, command
        assert "reached" not in said


HEADERS = {
    "nunchaku": {"qweight": ("I8", [4, 4]), "wscales": ("BF16", [1, 4])},
    "w4a8": {"weight": ("I8", [4, 4]), "weight_s_rel": ("F8_E4M3", [4, 1]), "weight_s_channel": ("F32", [4])},
    "int4": {"weight": ("I8", [4, 4]), "weight_scale": ("F32", [1, 4]), "weight_zeros": ("F32", [1, 4])},
    "nf4": {"weight": ("U8", [16, 1]), "weight.absmax": ("F32", [1])},
    "mxfp": {"weight": ("F8_E4M3", [4, 64]), "weight_scale": ("U8", [4, 2])},
}


@pytest.mark.parametrize("kind", HEADERS)
def test_formats_are_refused_by_their_headers_everywhere(root, define, kind, capsys):
    """Where the name says nothing: by the header of a file on the disk."""
    path = root / "ckpts" / "plain.safetensors"
    path.parent.mkdir(exist_ok=True)
    layer = {f"blocks.0.ffn.0.{name}": tensor for name, tensor in HEADERS[kind].items()}
    path.write_bytes(safetensors_bytes({"head.modulation": ("BF16", [1, 2, 4]), **layer}))
    define("mine", {"name": "Mine", "architecture": "t2v", "URLs": ["ckpts/plain.safetensors"]}, prompt="a fox")
    reason = next(text for text in REFUSED.values() if text.startswith(kind[:4]))
    for command in (["list"], ["explain", "mine"]):
        with suppress(SystemExit):
            main([*command, "--root", str(root)])
        answer = capsys.readouterr()
        assert reason in " ".join((answer.out + answer.err).split()), command
    with suppress(SystemExit):
        main(["inspect", str(path)])
    answer = capsys.readouterr()
    said = " ".join((answer.out + answer.err).split())
    assert f"It can't be loaded: {reason}." in said
