"""`config`: the preferences in `reeltune.json`, listed, shown and set."""

from __future__ import annotations

import sys
from dataclasses import replace
from typing import TYPE_CHECKING, Annotated, Any

import typer

from reeltune.cli.options import AsJson, Root
from reeltune.cli.output import notice, print_json, say, table

if TYPE_CHECKING:
    from pathlib import Path

    from reeltune.preferences import Preferences

config = typer.Typer(help="Preferences, kept in reeltune.json of the root.", no_args_is_help=True)
_TOKEN = "_token"
_ASKED = "Token (empty removes it)"
Name = Annotated[str, typer.Argument(metavar="NAME", help="Name of a preference; `config list` shows all.")]


@config.command("list")
def list_preferences(root: Root = None, as_json: AsJson = False) -> None:
    """List every preference: its value, what it means, and which values it accepts."""
    from reeltune.preferences import FIELDS, TOKENS, Preferences

    _, preferences = _load(root)
    if as_json:
        values = {name: getattr(preferences, name) for name in FIELDS}
        print_json(values | {f"{name}{_TOKEN}": name in preferences.tokens for name in TOKENS})
        return
    default = Preferences()
    rows = []
    for name, row in FIELDS.items():
        value = getattr(preferences, name)
        mark = "" if value == getattr(default, name) else f" (default: {_text(getattr(default, name))})"
        rows.append((name, _text(value) + mark, f"{row.help} Accepts {row.accepts}."))
    for name, variable in TOKENS.items():
        state = "set" if preferences.tokens.get(name) else "not set"
        rows.append((f"{name}{_TOKEN}", state, f"Token for downloads; {variable} in the environment does the same."))
    table(("name", "value", "meaning"), rows)


@config.command("get")
def get(name: Name, root: Root = None) -> None:
    """Print the value of a preference. Of a token only whether it is set."""
    from reeltune.preferences import TOKENS

    _, preferences = _load(root)
    if _token_of(name) in TOKENS:
        say("set" if preferences.tokens.get(_token_of(name)) else "not set")
        return
    _field(name)
    value = getattr(preferences, name)
    for line in value if isinstance(value, tuple) else [_text(value)]:
        say(line)


@config.command("set")
def set_preference(
    name: Name,
    values: Annotated[
        list[str] | None,
        typer.Argument(
            metavar="VALUE…",
            help="The new value; several for a list; none for the default. A token is read from the input.",
        ),
    ] = None,
    root: Root = None,
) -> None:
    """Set a preference in reeltune.json. Without a value it is set to its default."""
    from reeltune.preferences import FILE_NAME, TOKENS, save_preferences

    folder, preferences = _load(root)
    if _token_of(name) in TOKENS:
        changed, field, words = _with_token(preferences, _token_of(name), values or []), "tokens", f"{name} is"
        words += " set" if changed.tokens.get(_token_of(name)) else " removed"
    else:
        changed, field = _with_value(preferences, name, values or []), name
        words = f"{name} = {_text(getattr(changed, name))}"
    save_preferences(folder, changed, replaced=[field])
    say(f"{words} ({folder / FILE_NAME})")


def _load(root: Path | None) -> tuple[Path, Preferences]:
    from reeltune.definitions import resolve_root
    from reeltune.preferences import load_preferences

    folder = resolve_root(root)
    preferences, notices = load_preferences(folder)
    for line in notices:
        notice(line)
    return folder, preferences


def _field(name: str) -> Any:
    """The preference of a name. Raises PreferencesError."""
    from reeltune.errors import PreferencesError
    from reeltune.preferences.fields import FIELDS, unknown_name_hint

    if name not in FIELDS:
        raise PreferencesError(f"There is no preference {name!r}.", hint=unknown_name_hint(name))
    return FIELDS[name]


def _with_value(preferences: Preferences, name: str, values: list[str]) -> Preferences:
    from reeltune.errors import PreferencesError
    from reeltune.preferences import Preferences as Default

    field = _field(name)
    default = getattr(Default(), name)
    if not values:
        return preferences.with_flags(**{name: default})
    if name == "device":
        from reeltune.machine import probe

        probe().check_device(field.checked(values[0]))
    if isinstance(default, tuple):
        return preferences.with_flags(**{name: tuple(values)})
    if len(values) > 1:
        hint = f'Put a value with spaces in quotes: reeltune config set {name} "{" ".join(values)}"'
        raise PreferencesError(f"{name} takes one value, and {len(values)} were given.", hint=hint)
    return preferences.with_flags(**{name: field.parse(values[0])})


def _token_of(name: str) -> str:
    return name.removesuffix(_TOKEN) if name.endswith(_TOKEN) else ""


def _with_token(preferences: Preferences, name: str, values: list[str]) -> Preferences:
    """The preferences with a token read from the terminal, unseen, or from a pipe; an empty one removes it."""
    from reeltune.errors import PreferencesError

    if values:
        message = "A token on the command line would be kept in the shell's history."
        raise PreferencesError(message, hint=f"Run `reeltune config set {name}{_TOKEN}` and paste it when asked.")
    if sys.stdin.isatty():
        written = str(typer.prompt(_ASKED, default="", hide_input=True, show_default=False, err=True))
    else:
        written = sys.stdin.readline()
    tokens = {key: value for key, value in preferences.tokens.items() if key != name}
    if written.strip():
        tokens[name] = written.strip()
    return replace(preferences, tokens=tokens)


def _text(value: Any) -> str:
    """A value as a command line writes it."""
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, tuple):
        return ", ".join(value) or "none"
    return f"{value:g}" if isinstance(value, float) else str(value)
