"""docs/sharing.md, run command by command: the creator's machine, another one, and a server that stands in for the Hub."""

import re
import shlex
import shutil
from pathlib import Path

from reeltune.media.mp4 import read_frames
from sharing_roots import NANO, PROJECT, command

TEXT = (PROJECT / "docs" / "sharing.md").read_text(encoding="utf-8")
BLOCKS = re.findall(r"```console( elsewhere)?\n(.*?)```", TEXT, re.DOTALL)
DEFINITION = re.findall(r"```json\n(.*?)```", TEXT, re.DOTALL)[0]


def steps():
    """Where each command runs, the command, and what it prints."""
    for elsewhere, block in BLOCKS:
        for step in re.split(r"^\$ reeltune ", block, flags=re.MULTILINE)[1:]:
            words, _, shown = step.partition("\n")
            yield bool(elsewhere), shlex.split(words), [line for line in shown.splitlines() if line.strip()]


def assert_shown(line, output):
    """A line of the page, with "…" for what is left out, is part of the output."""
    position = 0
    for piece in line.split("…"):
        words = " ".join(piece.split())
        position = output.find(words, position)
        assert position >= 0, (words, output)
        position += len(words)


def test_the_story(hub, root, tmp_path):
    (root / "ckpts").mkdir()
    shutil.copy(NANO / "nano_neon_bf16.safetensors", root / "ckpts" / "glow_bf16.safetensors")
    (root / "finetunes" / "glow.json").write_text(DEFINITION)
    other = tmp_path / "elsewhere"
    other.mkdir()
    videos = []
    count = 0
    for elsewhere, words, shown in steps():
        answer = command(other if elsewhere else root, *words)
        assert answer.returncode == 0, (words, answer.stdout, answer.stderr)
        output = " ".join((answer.stdout + answer.stderr).split())
        for line in shown:
            assert_shown(line, output)
        if words[0] == "generate":
            videos.append(read_frames(Path(answer.stdout.strip().splitlines()[-1])))
        count += 1
    assert count == 10
    creators, others = videos
    assert (creators == others).all()
    repository = hub.repositories["me/glow"]
    assert not repository.private
    assert len(repository.commits) == 2
    assert [name for name in repository.files if name.startswith("examples/")]
