"""From the text of a prompt to the prompts of single videos: comments, macros, lines and paragraphs.

    # a comment
    ! {Animal}="cat","dog" : {Place}="a forest","a city"
    A {Animal} runs through {Place}.

comes to two prompts. A line ends with a line feed only: other separators of Unicode (U+2028) are part of the text.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from typing import Any

from reeltune.errors import SettingsError
from reeltune.families.vocabulary import shown

_MOST_VIDEOS = 10_000
_MOST_CHARACTERS = 4_000_000  # that macros may come to
_LARGEST_SEED = 2**63 - 1
_COMMENT = "#"
_MACRO = re.compile(r"\s*!\s*\{")
# Spaces around a name are cut off later: patterns that also match them would take minutes on a long row of spaces.
_VARIABLE = re.compile(r'\{([^{}"]+)\}\s*=\s*((?:"[^"]*"\s*(?:,\s*)?)+)')
_VALUE = re.compile(r'"([^"]*)"')
_NAME = re.compile(r"\{([^{}]+)\}")
_PARAGRAPHS = ("PG", "PW")
_LINES = ("G", "W")


def videos_asked(settings: Mapping[str, Any]) -> list[dict[str, Any]]:
    """One dictionary of settings for each video: prompts × repeats, seeds counting upwards.

    A seed of -1 stays -1: whoever generates picks it. Raises SettingsError for a macro that can't be expanded, and for
    more videos than anybody means.
    """
    prompts = split_prompts(settings.get("prompt", ""), settings.get("multi_prompts_gen_type") or "G")
    seed, repeats = settings.get("seed", -1), settings.get("repeat_generation", 1)
    if len(prompts) * repeats > _MOST_VIDEOS:
        message = f"The prompt asks for {len(prompts) * repeats:,} videos; at most {_MOST_VIDEOS:,} are made at once."
        raise SettingsError(message, hint="Use fewer lines, or multi_prompts_gen_type=FG for one video of all lines.")
    return [
        {**settings, "prompt": prompt, "repeat_generation": 1, "seed": _seed(seed, repeat)}
        for prompt in prompts
        for repeat in range(repeats)
    ]


def _seed(seed: int, repeat: int) -> int:
    return seed if seed < 0 else (seed + repeat) % (_LARGEST_SEED + 1)


def split_prompts(text: str, mode: str) -> list[str]:
    """The prompts of single videos; one that is empty where the text holds none.

    `mode`: G, W: each line; PG, PW: each paragraph, between empty lines; FG: the whole text. Sliding windows, for which
    W stands, are no model's here. Raises SettingsError for a macro that can't be expanded.
    """
    lines = [line for line in text.replace("\r\n", "\n").replace("\r", "\n").split("\n") if not _is_comment(line)]
    if any(_MACRO.match(line) for line in lines):
        lines = list(_expanded(lines, apart=mode in _PARAGRAPHS))
    if mode in _LINES:
        found = [line.strip() for line in lines if line.strip()]
    elif mode in _PARAGRAPHS:
        found = list(_paragraphs(lines))
    else:
        found = ["\n".join(lines).strip()]
    return found or [""]


def _is_comment(line: str) -> bool:
    return line.lstrip().startswith(_COMMENT)


def _paragraphs(lines: list[str]) -> Iterator[str]:
    paragraph: list[str] = []
    for line in (*lines, ""):
        if line.strip():
            paragraph.append(line.strip())
        elif paragraph:
            yield "\n".join(paragraph)
            paragraph = []


def _expanded(lines: list[str], *, apart: bool) -> Iterator[str]:
    """The lines with each macro's variables replaced: the lines below it, once for each of its values.

    `apart`: an empty line between these, so that each is a paragraph of its own.
    """
    variables: dict[str, list[str]] = {}
    template: list[str] = []
    size = 0
    for line in (*lines, None):
        if line is not None and not _MACRO.match(line):
            template.append(line)
            continue
        versions = max((len(values) for values in variables.values()), default=1)
        longest = max((len(value) for values in variables.values() for value in values), default=0)
        size += versions * sum(len(row) + longest * row.count("{") for row in template)
        if size > _MOST_CHARACTERS:
            raise SettingsError(f"The macros of the prompt come to more than {_MOST_CHARACTERS:,} characters.")
        for index in range(versions):
            yield from (_filled(row, variables, index) for row in template)
            if apart:
                yield ""
        template = []
        variables = _variables(line) if line is not None else {}


def _variables(line: str) -> dict[str, list[str]]:
    """The values of each variable a macro line sets, as `! {A}="x","y" : {B}="z"`. Raises SettingsError."""
    found: dict[str, list[str]] = {}
    rest = _VARIABLE.sub("", line.lstrip()[1:])
    for match in _VARIABLE.finditer(line):
        found[match[1].strip()] = _VALUE.findall(match[2])
    if not found or rest.strip(" \t:,;"):
        message = f"The macro {shown(line.strip())} in the prompt can't be read."
        raise SettingsError(message, hint='Write it as ! {Name}="a","b" : {Other}="c","d" on one line.')
    return found


def _filled(line: str, variables: Mapping[str, list[str]], index: int) -> str:
    """The line with each variable's value; where one has fewer values than another, they come round again."""

    def value(match: re.Match[str]) -> str:
        name = match[1].strip()
        if name not in variables:
            known = ", ".join(f"{{{row}}}" for row in variables)
            raise SettingsError(f"The macro of the prompt sets no {{{name}}}.", hint=f"It sets {known}.")
        return variables[name][index % len(variables[name])]

    return _NAME.sub(value, line) if variables else line
