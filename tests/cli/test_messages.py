"""Messages of commands that name what the user can change."""

import json

import pytest

from reeltune.cli.app import main


def test_run_names_its_own_option_for_a_folder_that_cannot_be_written(root, tmp_path, capsys):
    (tmp_path / "a.json").write_text(json.dumps({"model_type": "nano_t2v", "prompt": "x"}))
    (tmp_path / "file").touch()
    with pytest.raises(SystemExit):
        main(["run", str(tmp_path / "a.json"), "--output-dir", str(tmp_path / "file"), "--root", str(root)])
    told = capsys.readouterr().err
    assert "--output-dir" in told
    assert "-o," not in told


def test_the_reason_why_models_cannot_run_is_one_sentence(root, capsys):
    (root / "finetunes").mkdir(exist_ok=True)
    model = {"name": "x", "architecture": "t2v_1.3B", "URLs": ["ckpts/gone.safetensors"]}
    (root / "finetunes" / "mine.json").write_text(json.dumps({"model": model}))
    main(["list", "--root", str(root)])
    told = capsys.readouterr().err
    assert "is not there: mine" in told
    assert ".:" not in told
