"""Messages of commands that name what the user can change."""

import json

import pytest

import reeltune.cli
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


@pytest.mark.parametrize("folder", [".", "..", "/"])
def test_a_folder_of_videos_never_contains_the_root(root, capsys, folder):
    """Whoever may use the server could otherwise read whatever is there."""
    with pytest.raises(SystemExit):
        main(["config", "set", "outputs", folder, "--root", str(root)])
    assert "contains other files than videos" in capsys.readouterr().err
    assert not (root / "reeltune.json").exists()


def test_model_folders_that_are_not_there_are_reported(root, tmp_path, capsys):
    (tmp_path / "models").mkdir()
    main(["config", "set", "model_folders", str(tmp_path / "models"), str(tmp_path / "modles"), "--root", str(root)])
    told = capsys.readouterr().err
    assert f"There is no folder {tmp_path / 'modles'} now." in told
    assert told.count("There is no folder") == 1


@pytest.mark.parametrize("where", ["reeltune.cli.app.main", "reeltune.cli.models.open_catalog"])
def test_ctrl_c_ends_a_command_without_a_traceback(root, monkeypatch, capsys, where):
    def pressed(*_):
        raise KeyboardInterrupt

    monkeypatch.setattr(where, pressed)
    with pytest.raises(SystemExit) as ended:
        reeltune.cli.main(["list", "--root", str(root)])
    assert ended.value.code == 130
    assert capsys.readouterr().err == ""
