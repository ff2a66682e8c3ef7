"""Split the text of a prompt into the prompts of single videos or windows: comments, macros, lines and paragraphs.

    # a comment
    ! {Animal}="cat","dog" : {Place}="a forest","a city"
    A {Animal} runs through {Place}.

gives two prompts. Only a line feed ends a line: other Unicode separators (U+2028) are part of the text.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping

from reeltune.errors import SettingsError
from reeltune.families.values import WINDOW_MODES, Settings
from reeltune.families.vocabulary import shown

_MAX_VIDEOS = 10_000
_MAX_CHARACTERS = 4_000_000  # of all expanded macros
_MAX_SEED = 2**63 - 1
_COMMENT = "#"
_MACRO = re.compile(r"\s*!\s*\{")
# Spaces around a name are stripped later: a pattern that also matches them takes quadratic time on long runs of spaces.
_VARIABLE = re.compile(r'\{([^{}"]+)\}\s*=\s*((?:"[^"]*"\s*(?:,\s*)?)+)')
_VALUE = re.compile(r'"([^"]*)"')
_NAME = re.compile(r"\{([^{}]+)\}")
_PARAGRAPH_MODES = ("PG", "PW")
_LINE_MODES = ("G", "W")


def split_videos(settings: Settings, *, has_windows: bool = False) -> list[Settings]:
    """The settings of each video: one for every prompt and repeat, with increasing seeds.

    `has_windows`: whether the model makes long videos in windows, each of which may have a prompt; the text of them all
    is the prompt of one video then. A seed of -1 stays -1, so that each video gets a random seed when it is made.
    Raises SettingsError for an invalid macro and for more than 10,000 videos.
    """
    text, mode = settings.get("prompt", ""), settings.get("multi_prompts_gen_type") or "G"
    prompts = [text] if has_windows and mode in WINDOW_MODES else split_prompts(text, mode)
    seed = settings.get("seed", -1)
    repeats = settings.get("repeat_generation", 1)
    if len(prompts) * repeats > _MAX_VIDEOS:
        message = f"The settings are for {len(prompts) * repeats:,} videos; the limit is {_MAX_VIDEOS:,}."
        raise SettingsError(message, hint="Use fewer lines, or multi_prompts_gen_type=FG for one video of all lines.")
    return [
        {**settings, "prompt": prompt, "repeat_generation": 1, "seed": _seed(seed, repeat)}
        for prompt in prompts
        for repeat in range(repeats)
    ]


def _seed(seed: int, repeat: int) -> int:
    return seed if seed < 0 else (seed + repeat) % (_MAX_SEED + 1)


def split_prompts(text: str, mode: str) -> list[str]:
    """The prompts of single videos, or of the windows of one; one empty prompt if the text has none.

    `mode`: G or W for each line, PG or PW for each paragraph (separated by empty lines), FG for the whole text. W
    stands for windows. Raises SettingsError for an invalid macro.
    """
    lines = [line for line in text.replace("\r\n", "\n").replace("\r", "\n").split("\n") if not _is_comment(line)]
    if any(_MACRO.match(line) for line in lines):
        lines = list(_expand_macros(lines, as_paragraphs=mode in _PARAGRAPH_MODES))
    if mode in _LINE_MODES:
        prompts = [line.strip() for line in lines if line.strip()]
    elif mode in _PARAGRAPH_MODES:
        prompts = list(_paragraphs(lines))
    else:
        prompts = ["\n".join(lines).strip()]
    return prompts or [""]


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


def _expand_macros(lines: list[str], *, as_paragraphs: bool) -> Iterator[str]:
    """The lines with macros expanded: the lines after a macro are repeated for each value of its variables.

    `as_paragraphs`: whether an empty line follows each repetition, so that it is a paragraph.
    """
    variables: dict[str, list[str]] = {}
    template: list[str] = []
    size = 0
    for line in (*lines, None):
        if line is not None and not _MACRO.match(line):
            template.append(line)
            continue
        repeats = max((len(values) for values in variables.values()), default=1)
        longest = max((len(value) for values in variables.values() for value in values), default=0)
        size += repeats * sum(len(template_line) + longest * template_line.count("{") for template_line in template)
        if size > _MAX_CHARACTERS:
            raise SettingsError(f"The prompt with its macros expanded is longer than {_MAX_CHARACTERS:,} characters.")
        for index in range(repeats):
            for template_line in template:
                yield _substitute(template_line, variables, index)
            if as_paragraphs:
                yield ""
        template = []
        variables = _variables(line) if line is not None else {}


def _variables(line: str) -> dict[str, list[str]]:
    """The values of each variable in a macro line such as `! {A}="x","y" : {B}="z"`. Raises SettingsError."""
    variables: dict[str, list[str]] = {}
    for match in _VARIABLE.finditer(line):
        variables[match[1].strip()] = _VALUE.findall(match[2])
    unparsed = _VARIABLE.sub("", line.lstrip()[1:])
    if not variables or unparsed.strip(" \t:,;"):
        message = f"Invalid macro {shown(line.strip())} in the prompt."
        raise SettingsError(message, hint='Write it as ! {Name}="a","b" : {Other}="c","d" on one line.')
    return variables


def _substitute(line: str, variables: Mapping[str, list[str]], index: int) -> str:
    """The line with each variable replaced; a variable with fewer values than others repeats them."""

    def value(match: re.Match[str]) -> str:
        name = match[1].strip()
        if name not in variables:
            names = ", ".join(f"{{{variable}}}" for variable in variables)
            raise SettingsError(f"The macro of the prompt doesn't define {{{name}}}.", hint=f"It defines {names}.")
        return variables[name][index % len(variables[name])]

    return _NAME.sub(value, line) if variables else line
