import inspect
import re

import pytest
from typer.main import get_command
from typer.testing import CliRunner

from reeltune.cli.app import app


def commands(command, words=()):
    """All commands with their words, such as ("settings", "read")."""
    yield words, command
    for name, inner in getattr(command, "commands", {}).items():
        yield from commands(inner, (*words, name))


ALL = dict(commands(get_command(app)))


@pytest.mark.parametrize("words", ALL, ids=" ".join)
def test_arguments_are_repeated_once_in_the_usage(words):
    usage = CliRunner().invoke(app, [*words, "--help"], terminal_width=200).output.strip().splitlines()[0]
    assert not re.search(r"\.\.\.[\]}]|\[\[", usage)


@pytest.mark.parametrize("words", ALL, ids=" ".join)
def test_a_paragraph_of_a_help_text_is_one_line(words):
    """Lines are wrapped at the width of the terminal; only those of the first paragraph are joined before."""
    text = inspect.cleandoc(ALL[words].help or "")
    assert [part for part in text.split("\n\n")[1:] if "\n" in part] == []
