"""Error messages for command lines that can't be parsed, with a hint.

Depending on its version, Typer raises the errors of the package click or of its own copy of click. They are therefore
recognized by their attributes and not by their class.
"""

from __future__ import annotations

import difflib
import re
from typing import Any

import typer

from reeltune.errors import ReeltuneError
from reeltune.families.vocabulary import KEYS

UsageError: type[Any] = typer.BadParameter.__mro__[1]
_EXTRA_ARGUMENTS = re.compile(r"Got unexpected extra argument\S* \((.*)\)", re.DOTALL)


class CommandLineError(ReeltuneError):
    """A command line can't be parsed."""


def explain_usage_error(error: Any) -> CommandLineError:
    """The parser's error with a better message and a hint."""
    message = str(error.format_message()).strip()
    context = error.ctx
    if context is None:
        return CommandLineError(message, hint="`reeltune -h` lists all commands.")
    help = f"`{context.command_path} -h` shows the arguments and options."
    if hasattr(context.command, "commands"):
        help = f"`{context.command_path} -h` lists the commands."
    extra = _EXTRA_ARGUMENTS.match(message)
    if extra is not None:
        return _extra_arguments(extra[1], context, help)
    option = getattr(error, "option_name", "")
    if option and message.startswith("No such option"):
        return _unknown_option(str(option), context, help)
    return CommandLineError(message, hint=help)


def _extra_arguments(arguments: str, context: Any, help: str) -> CommandLineError:
    """More arguments than the command takes: often a prompt without quotes."""
    message = f"Unexpected arguments: {arguments}."
    if "prompt" not in context.params:
        return CommandLineError(message, hint=help)
    prompt = f"{context.params['prompt']} {arguments}".replace('"', "'")
    command = f"{context.command_path} {context.params.get('id', 'ID')}"
    return CommandLineError(message, hint=f'Put the prompt in quotes: {command} "{prompt}"')


def _unknown_option(option: str, context: Any, help: str) -> CommandLineError:
    """An option that the command doesn't have: it may be an argument, a misspelled option or a setting."""
    message = f"There is no option {option}."
    names = [name for param in context.command.params for name in (*param.opts, *param.secondary_opts)]
    options = [name for name in names if name.startswith("--")]
    arguments = [param.name for param in context.command.params if param.param_type_name == "argument"]
    similar_arguments = difflib.get_close_matches(option.lstrip("-"), arguments, n=1, cutoff=0.7)
    if similar_arguments:
        usage = " ".join(name.upper() for name in arguments)
        hint = f"{similar_arguments[0]} is an argument: {context.command_path} {usage}"
        return CommandLineError(message, hint=hint)
    similar_options = difflib.get_close_matches(option, options, n=1, cutoff=0.7)
    if similar_options:
        return CommandLineError(message, hint=f"Did you mean {similar_options[0]}?")
    if "--set" in options:
        key = _similar_setting(option.lstrip("-").replace("-", "_"))
        if key:
            return CommandLineError(message, hint=f"Use --set for settings, such as --set {key}=VALUE.")
    return CommandLineError(message, hint=help)


def _similar_setting(name: str) -> str:
    """The setting with this name, or with the most similar one; empty if there is none."""
    if name in KEYS:
        return name
    similar = difflib.get_close_matches(name, KEYS, n=1, cutoff=0.75)
    similar += [key for key in KEYS if name in key.split("_")]
    return similar[0] if similar else ""
