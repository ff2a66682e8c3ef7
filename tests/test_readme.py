"""What README shows is what happens: its commands run, and its sample outputs are the real ones."""

import re
import shlex
import shutil
from importlib import resources
from pathlib import Path

import pytest

from reeltune.cli.app import main

README = (Path(__file__).parents[1] / "README.md").read_text(encoding="utf-8")
BLOCKS = re.findall(r"```console\n(.*?)```", README, re.DOTALL)
NEEDS = ("https://", "pull t2v", "generate i2v", "generate vace_14B", "t2v_watercolour")  # a network, or large weights


def samples():
    """Every command of README with the output that is shown below it."""
    for block in BLOCKS:
        for part in re.split(r"^\$ ", block, flags=re.MULTILINE)[1:]:
            command, *output = part.strip("\n").split("\n")
            yield command.split("  #")[0].strip(), output


RUNNABLE = [row for row in samples() if not any(word in row[0] for word in NEEDS)]


@pytest.fixture
def folder(tmp_path, monkeypatch):
    """A working folder with the files that README's commands name."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "")
    nano = Path(str(resources.files("reeltune"))) / "nano" / "nano_t2v_bf16.safetensors"
    shutil.copyfile(nano, "some_finetune.safetensors")
    example = re.search(r"```json\n(.*?)```", README, re.DOTALL)
    Path("my_finetune.json").write_text(example[1], encoding="utf-8")
    return tmp_path


def shape(line):
    """A line without what differs from run to run: numbers, times, the folder, the width of columns and bars."""
    line = re.sub(r"\S*[/\\]outputs[/\\]", "outputs/", line)
    line = re.sub(r"\d+(\.\d+)?", "#", line)
    return re.sub(r"[━╸╺ ]+", " ", line).strip()


def test_most_commands_run_here_and_one_shows_its_output():
    assert len(RUNNABLE) >= 8
    assert any(output for _, output in RUNNABLE)


@pytest.mark.parametrize(("command", "output"), RUNNABLE, ids=[row[0][:40] for row in RUNNABLE])
def test_a_command_of_the_readme(command, output, folder, capsys):
    program, *words = shlex.split(command)
    assert program == "reeltune"
    code = 0
    try:
        main(words)
    except SystemExit as stop:
        code = stop.code or 0
    captured = capsys.readouterr()
    assert code == 0, captured.err
    real = [shape(line) for line in (captured.err + captured.out).splitlines() if line.strip()]
    assert real
    if output:
        assert real == [shape(line) for line in output]
