"""`list`, `explain`, `pull`, `check`, `definitions copy` on definitions of all kinds, as a user sees them."""

import io
import json

import pytest

from reeltune import load_catalog
from reeltune.cli.app import main

WEIGHTS = ["https://h/x_bf16.safetensors"]
GOOD = {"architecture": "t2v", "URLs": WEIGHTS}


@pytest.fixture
def run(root, capsys, monkeypatch):
    """Run a command as a user does; returns exit code, stdout, stderr."""

    def call(*words: str):
        code = 0
        monkeypatch.setattr("sys.stdin", io.StringIO())
        try:
            main([*words, "--root", str(root)])
        except SystemExit as stop:
            code = int(stop.code or 0)
        captured = capsys.readouterr()
        return code, captured.out, captured.err

    return call


def test_models_with_one_cause_share_a_line(run, define):
    for number in range(170):
        define(f"m{number}", {"architecture": f"other_{number % 90}", "URLs": WEIGHTS})
    _, out, err = run("list")
    lines = [line for line in err.splitlines() if line.strip()]
    assert len(lines) == 1
    assert "an architecture that reeltune doesn't support: m0, m1, m10, m100, m101, m102 and 164 more" in lines[0]
    assert sum(line.endswith("no") for line in out.splitlines()) == 170


def test_hidden_definitions(run, define):
    define("hidden", GOOD | {"visible": False})
    _, out, err = run("list")
    assert "hidden" not in out
    assert "1 hidden definition not shown" in err
    assert "hidden" in run("list", "--all")[1]
    assert [model["visible"] for model in json.loads(run("list", "--all", "--json")[1]) if model["id"] == "hidden"] == [
        False
    ]
    assert "hidden" not in run("list", "--json")[1]


def test_explain_starts_with_the_reason_why_a_model_can_not_run(run, define):
    define("merged", GOOD | {"modules": ["vace_14B"], "LTXV_config": "x.yaml"})
    code, out, err = run("explain", "merged")
    assert out.startswith("merged can't run here: it merges modules, which t2v does not support")
    assert "model.LTXV_config: It is not used" in err
    code, out, err = run("pull", "merged", "--dry-run")
    assert code == 1
    assert "can't run here" in err
    assert "--anyway" in err


def test_keys_of_other_programs_are_reported_once(run, define):
    define(
        "mine",
        GOOD | {"sample_solver": "euler", "lock_guidance_phases": True, "group": "g", "profiles_dir": [""], "zz": 1},
    )
    _, _, err = run("explain", "mine")
    assert [err.count(word) for word in ("model.sample_solver", "model.lock_guidance_phases", "Unknown key")] == [
        1,
        1,
        1,
    ]
    assert "group" not in err
    code, out, _ = run("check")
    assert code == 0
    assert "group: kept for other programs" in out


def test_subfolders_are_reported_where_models_are_listed(run, root):
    (root / "finetunes" / "sub").mkdir()
    (root / "finetunes" / "sub" / "x.json").write_text(json.dumps({"model": GOOD}), encoding="utf-8")
    assert "sub/x.json" in run("list")[2]
    code, out, _ = run("check")
    assert code == 0
    assert "Move them to finetunes/ itself." in out


def test_check_fix_joins_pasted_json(run, root):
    path = root / "finetunes" / "pasted.json"
    text = f'"model": {json.dumps(GOOD)},\n{{"seed": 3}}\n'
    path.write_text(text, encoding="utf-8")
    code, out, _ = run("check")
    assert code == 1
    assert 'Write {"model": {"architecture": …, "URLs": …}, "seed": …}, or run `reeltune check --fix`.' in out
    assert path.read_text(encoding="utf-8") == text
    code, out, err = run("check", "--fix")
    assert code == 0
    assert "pasted.json.1.bak" in err
    assert (root / "finetunes" / "pasted.json.1.bak").read_text(encoding="utf-8") == text
    assert load_catalog(root)["pasted"].settings["seed"] == 3
    assert run("check", "--fix")[2] == ""


def test_check_reports_missing_files(run, define):
    define("mine", {"architecture": "t2v", "URLs": ["models/gone.safetensors"], "preload_URLs": ["x.json"]})
    code, out, _ = run("check")
    assert "models/gone.safetensors doesn't exist" in out
    assert "x.json doesn't exist" in out
    assert code == 0


@pytest.mark.parametrize("id", ["nano_t2v", "vace_14B_2_2", "i2v_720p", "hunyuan_t2v_fast", "nano_vace"])
def test_a_copy_is_complete_and_equal(run, root, id):
    code, out, _ = run("definitions", "copy", id, "mine", "--name", "My own")
    assert code == 0
    assert out.strip() == str(root / "finetunes" / "mine.json")
    catalog = load_catalog(root)
    copy, source = catalog["mine"], catalog[id]
    assert copy.name == "My own"
    assert not copy.notices
    for field in ("architecture", "slots", "preload", "components", "auto_quantize", "description"):
        assert getattr(copy, field) == getattr(source, field), field
    show = [json.loads(run("show", name, "--json")[1])["settings"] for name in ("mine", id)]
    assert show[0] == show[1]
    value = json.loads((root / "finetunes" / "mine.json").read_text(encoding="utf-8"))
    assert isinstance(value["model"]["URLs"], list)


@pytest.mark.parametrize(
    ("id", "new", "words"),
    [
        ("nano_t2v", "t2v", "already"), ("nano_t2v", "../x", "Invalid id"), ("nano_t2v", ".x", "Invalid id"),
        ("nano_t2v", "a/b", "Invalid id"), ("nano_t2w", "mine", "Did you mean 'nano_t2v'?"), ("nano_t2v", "", "id"),
    ],
)  # fmt: skip
def test_copies_that_are_refused(run, root, id, new, words):
    code, _, err = run("definitions", "copy", id, new)
    assert code == 1
    assert words in err
    assert not list((root / "finetunes").iterdir())


def test_show_reports_whether_the_files_can_be_used(run, define):
    define("gone", {"architecture": "t2v", "URLs": ["models/gone.safetensors"]})
    assert "no: No version of transformer can be used" in run("show", "gone")[1]
    shown = json.loads(run("show", "gone", "--json")[1])
    assert not shown["runnable"]
    assert "is not there" in shown["reason"]


def test_check_and_export_group_definitions_of_unknown_architectures(run, define):
    for number in range(40):
        define(f"m{number}", {"architecture": "ltx2_22B_edit_anything", "URLs": WEIGHTS})
    define("typo", {"architecture": "t2w", "URLs": WEIGHTS})
    code, out, _ = run("check")
    assert code == 1
    assert len(out.splitlines()) == 3
    assert "40 definitions have an architecture that reeltune doesn't support" in out
    assert (
        "typo.json: model.architecture: 't2w' is an architecture that reeltune doesn't support. Did you mean 't2v'?"
        in out
    )
    assert "did you mean 't2v'?: typo" in run("list")[2]
    assert len(json.loads(run("check", "--json")[1])) == 41
    _, out, err = run("settings", "export", "--all")
    assert err.count("\n") == 1
    assert "41 definitions left out" in err


def test_urls_of_a_definition_that_can_not_run_can_be_replaced(run, define):
    path = define("mine", {"architecture": "ltx2_22B_edit_anything", "URLs": WEIGHTS})
    assert run("urls", "replace", "mine", "https://h/", "https://i/")[0] == 0
    assert "https://i/x_bf16.safetensors" in path.read_text(encoding="utf-8")
