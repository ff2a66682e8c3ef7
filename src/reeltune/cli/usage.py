"""What is wrong with a command line that couldn't be parsed: in the words of this program, with the next step.

Typer's parser raises its own errors, in some versions those of the package click and in others those of a copy of it;
they are told apart by what they carry.
"""

from __future__ import annotations

import difflib
import re
from typing import Any

import typer

from reeltune.errors import ReeltuneError
from reeltune.families.vocabulary import KEYS

UsageError: type[Any] = typer.BadParameter.__mro__[1]
_EXTRA = re.compile(r"Got unexpected extra argument\S* \((.*)\)", re.DOTALL)


class CommandLineError(ReeltuneError):
    """A command line that couldn't be parsed."""


def explained(error: Any) -> CommandLineError:
    """A parser's error as this program words it."""
    message = str(error.format_message()).strip()
    context = error.ctx
    help = f"`{context.command_path} -h` shows what it accepts." if context is not None else "`reeltune -h` lists all."
    if context is None:
        return CommandLineError(message, hint=help)
    if extra := _EXTRA.match(message):
        return _extra(extra[1], context, help)
    option = getattr(error, "option_name", "")
    if option and message.startswith("No such option"):
        return _no_option(str(option), context, help)
    return CommandLineError(message, hint=help)


def _extra(words: str, context: Any, help: str) -> CommandLineError:
    """More arguments than the command takes: most often a prompt whose spaces weren't quoted."""
    message = f"Unexpected arguments: {words}."
    if "prompt" not in context.params:
        return CommandLineError(message, hint=help)
    prompt = f"{context.params['prompt']} {words}".replace('"', "'")
    command = f"{context.command_path} {context.params.get('id', 'ID')}"
    return CommandLineError(message, hint=f'Put the prompt in quotes: {command} "{prompt}"')


def _no_option(option: str, context: Any, help: str) -> CommandLineError:
    message = f"There is no option {option}."
    names = [name for param in context.command.params for name in (*param.opts, *param.secondary_opts)]
    options = [name for name in names if name.startswith("--")]
    arguments = [param.name for param in context.command.params if param.param_type_name == "argument"]
    if near := difflib.get_close_matches(option.lstrip("-"), arguments, n=1, cutoff=0.7):
        usage = " ".join(name.upper() for name in arguments)
        return CommandLineError(message, hint=f"{near[0]} takes no option: {context.command_path} {usage}")
    if near := difflib.get_close_matches(option, options, n=1, cutoff=0.7):
        return CommandLineError(message, hint=f"Did you mean {near[0]}?")
    if "--set" in options and (key := _setting(option.lstrip("-").replace("-", "_"))):
        return CommandLineError(message, hint=f"Settings are given with --set, such as --set {key}=VALUE.")
    return CommandLineError(message, hint=help)


def _setting(name: str) -> str:
    """The setting that a name which is no option stands for; empty where none does."""
    if name in KEYS:
        return name
    near = difflib.get_close_matches(name, KEYS, n=1, cutoff=0.75)
    holding = [key for key in KEYS if name in key.split("_")]
    return next(iter([*near, *holding]), "")
