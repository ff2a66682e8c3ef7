"""`config`: list, show and set the preferences in `reeltune.json`."""

from __future__ import annotations

import sys
from dataclasses import replace
from typing import TYPE_CHECKING, Annotated

import typer

from reeltune.cli.options import AsJson, Root
from reeltune.cli.output import print_json, print_line, print_notice, print_table

if TYPE_CHECKING:
    from pathlib import Path

    from reeltune.preferences import Preferences
    from reeltune.preferences.fields import PreferenceField

config = typer.Typer(help="List, show and set the preferences in the root's reeltune.json.", no_args_is_help=True)
_TOKEN_SUFFIX = "_token"
_TOKEN_PROMPT = "Token (leave empty to remove it)"
Name = Annotated[str, typer.Argument(metavar="NAME", help="Name of a preference, as shown by `config list`.")]


@config.command("list")
def list_preferences(root: Root = None, as_json: AsJson = False) -> None:
    """List every preference with its value, its meaning and the values it accepts."""
    from reeltune.preferences import FIELDS, TOKENS, Preferences

    _, preferences = _load(root)
    if as_json:
        values: dict[str, object] = {name: getattr(preferences, name) for name in FIELDS}
        for name in TOKENS:
            values[name + _TOKEN_SUFFIX] = name in preferences.tokens
        print_json(values)
        return
    defaults = Preferences()
    rows = []
    for name, field in FIELDS.items():
        value = getattr(preferences, name)
        default = getattr(defaults, name)
        text = _text(value)
        if value != default:
            text += f" (default: {_text(default)})"
        rows.append((name, text, f"{field.help} Accepts {field.accepts}."))
    for name, variable in TOKENS.items():
        meaning = f"Token for downloads; the environment variable {variable} is used if it is not set."
        rows.append((name + _TOKEN_SUFFIX, _token_state(preferences, name), meaning))
    print_table(("NAME", "VALUE", "MEANING"), rows)


@config.command("get")
def get(name: Name, root: Root = None) -> None:
    """Print the value of a preference. For a token, print only whether it is set."""
    from reeltune.preferences import TOKENS

    _, preferences = _load(root)
    if _token_name(name) in TOKENS:
        print_line(_token_state(preferences, _token_name(name)))
        return
    _field(name)
    value = getattr(preferences, name)
    lines = value if isinstance(value, tuple) else [_text(value)]
    for line in lines:
        print_line(line)


@config.command("set")
def set_preference(
    name: Name,
    values: Annotated[
        list[str] | None,
        typer.Argument(
            metavar="VALUE",
            help="The new value, or several for a list; the default if left out. Tokens are entered at a prompt.",
        ),
    ] = None,
    root: Root = None,
) -> None:
    """Set a preference in reeltune.json. Without a value, reset it to its default."""
    from reeltune.preferences import FILE_NAME, TOKENS, save_preferences

    folder, preferences = _load(root)
    token = _token_name(name)
    if token in TOKENS:
        changed = _with_token(preferences, token, values or [])
        save_preferences(folder, changed, replaced=["tokens"])
        message = f"{name} is set" if changed.tokens.get(token) else f"{name} is removed"
    else:
        changed = _with_value(preferences, name, values or [])
        if name in ("outputs", "model_folders"):
            _check_folders(folder, changed)
        save_preferences(folder, changed, replaced=[name])
        message = f"{name} = {_text(getattr(changed, name))}"
    print_line(f"{message} ({folder / FILE_NAME})")


def _load(root: Path | None) -> tuple[Path, Preferences]:
    """The root and its preferences; prints notices about them."""
    from reeltune.definitions import resolve_root
    from reeltune.preferences import load_preferences

    folder = resolve_root(root)
    preferences, notices = load_preferences(folder)
    for line in notices:
        print_notice(line)
    return folder, preferences


def _field(name: str) -> PreferenceField:
    """The field of a preference. Raises PreferencesError if there is none."""
    from reeltune.errors import PreferencesError
    from reeltune.preferences.fields import FIELDS, unknown_name_hint

    if name not in FIELDS:
        raise PreferencesError(f"There is no preference {name!r}.", hint=unknown_name_hint(name))
    return FIELDS[name]


def _with_value(preferences: Preferences, name: str, values: list[str]) -> Preferences:
    """The preferences with a new value; with the default if `values` is empty. Raises PreferencesError, DeviceError."""
    from reeltune.errors import PreferencesError
    from reeltune.preferences import Preferences as DefaultPreferences

    field = _field(name)
    default = getattr(DefaultPreferences(), name)
    if not values:
        return preferences.with_flags(**{name: default})
    if name == "device":
        from reeltune.machine import probe

        probe().check_device(field.checked(values[0]))
    if isinstance(default, tuple):
        return preferences.with_flags(**{name: tuple(values)})
    if len(values) > 1:
        hint = f'Put a value with spaces in quotes: reeltune config set {name} "{" ".join(values)}"'
        raise PreferencesError(f"{name} takes one value, but {len(values)} were given.", hint=hint)
    return preferences.with_flags(**{name: field.parse(values[0])})


def _check_folders(root: Path, preferences: Preferences) -> None:
    """Raise PreferencesError for a folder of videos that can't be used; report model folders that aren't there."""
    from reeltune.files import expand, is_folder
    from reeltune.preferences import check_outputs

    check_outputs(root, preferences)
    for folder in preferences.model_folders:
        if not is_folder(root / expand(folder)):
            print_notice(f"There is no folder {folder} now. It is searched when it is there.")


def _token_name(name: str) -> str:
    """The name of a token, such as "hub" for `hub_token`; empty for other preferences."""
    return name.removesuffix(_TOKEN_SUFFIX) if name.endswith(_TOKEN_SUFFIX) else ""


def _token_state(preferences: Preferences, name: str) -> str:
    return "set" if preferences.tokens.get(name) else "not set"


def _with_token(preferences: Preferences, name: str, values: list[str]) -> Preferences:
    """The preferences with a token read from a hidden prompt or a pipe; an empty one removes it."""
    from reeltune.errors import PreferencesError

    if values:
        message = "A token on the command line would stay in the shell's history."
        raise PreferencesError(
            message, hint=f"Run `reeltune config set {name}{_TOKEN_SUFFIX}` and paste it when asked."
        )
    if sys.stdin.isatty():
        text = str(typer.prompt(_TOKEN_PROMPT, default="", hide_input=True, show_default=False, err=True))
    else:
        text = sys.stdin.readline()
    tokens = {key: token for key, token in preferences.tokens.items() if key != name}
    if text.strip():
        tokens[name] = text.strip()
    return replace(preferences, tokens=tokens)


def _text(value: object) -> str:
    """A value as it is written on a command line."""
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, tuple):
        return ", ".join(value) or "none"
    if isinstance(value, float):
        return f"{value:g}"
    return str(value)
