"""`profiles`, and the option `--speed-profile` of other commands."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from reeltune.cli.options import AsJson, Root, effective_preferences, open_catalog
from reeltune.cli.output import print_json, print_line, print_notice, print_table

if TYPE_CHECKING:
    from collections.abc import Sequence

    from reeltune.definitions import Definition
    from reeltune.families.values import Settings
    from reeltune.profiles import OfferedProfiles, Profile

_SUFFIXES = (".json", ".lset")

SpeedProfile = Annotated[
    str | None,
    typer.Option(
        "--speed-profile",
        metavar="NAME|FILE",
        show_default=False,
        help=(
            "Profile that makes the model fast: its name or a part of it (`reeltune profiles ID` lists all), its file, "
            "or none. Other options override it."
        ),
    ),
]


def list_profiles(
    id: Annotated[
        str | None,
        typer.Argument(metavar="ID", help="Id of a definition: only profiles that fit it (default: all profiles)."),
    ] = None,
    root: Root = None,
    as_json: AsJson = False,
) -> None:
    """List profiles: settings with LoRAs that make a model fast, for `generate --speed-profile`."""
    from reeltune.profiles import all_profiles, profiles_of

    catalog = open_catalog(root)
    folders = effective_preferences(catalog.root).model_folders
    offered = all_profiles(catalog.root, folders) if id is None else profiles_of(catalog[id], folders)
    if as_json:
        print_json([profile.as_json() for profile in offered.profiles])
    elif offered.profiles:
        print_table(("NAME", "FOLDER", "STEPS", "GUIDANCE", "LORAS", "FROM"), [_row(item) for item in offered.profiles])
    else:
        print_line("No profiles." if id is None else f"No profile fits {id}.")
    print_problems(offered)
    for profile in offered.profiles:
        for line in profile.notices:
            print_notice(f"{profile.name}: {line}")


def _row(profile: Profile) -> tuple[str, ...]:
    steps = "" if profile.steps is None else str(profile.steps)
    guidance = " / ".join(f"{value:g}" for value in profile.guidance)
    return (profile.name, profile.folder, steps, guidance, str(len(profile.loras)), profile.source)


def print_problems(offered: OfferedProfiles) -> None:
    """Print the problems of files that can't be used, as notices."""
    for problem in offered.problems:
        print_notice(f"{problem.file}: {problem.message} {problem.fix}".rstrip())


def with_speed_profile(
    name: str | None, definition: Definition, folders: Sequence[str], call: Settings, stored: Settings
) -> Settings:
    """The settings of a call with the profile that `--speed-profile` names.

    `folders`: the model folders of the preferences. `stored`: settings that the profile overrides. Prints notices about
    the profile. Raises SettingsError.
    """
    from reeltune.profiles import NO_PROFILE, call_with_profile, profiles_of, repeated_loras, settings_of_call

    if name is None:
        return {**stored, **call}
    offered = profiles_of(definition, folders)
    if name.strip().casefold() == NO_PROFILE:
        return call_with_profile(definition, None, offered.profiles, call, stored)
    profile = _chosen(name, offered)
    for line in profile.notices:
        print_notice(f"{profile.name}: {line}")
    for lora in repeated_loras(settings_of_call(definition, call, stored), profile):
        print_notice(f"{lora} is left out of your LoRAs: the profile {profile.name} has a LoRA of this name.")
    return call_with_profile(definition, profile, offered.profiles, call, stored)


def _chosen(name: str, offered: OfferedProfiles) -> Profile:
    """The profile of a file, or the offered one with a name; files that can't be used are reported if there is none."""
    from reeltune.errors import SettingsError
    from reeltune.files import expand, is_file
    from reeltune.profiles import read_preset, read_profile

    path = expand(name)
    if name.lower().endswith(_SUFFIXES) and is_file(path):
        read = read_preset if path.suffix.lower() == ".lset" else read_profile
        return read(Path(path), path.parent.name)
    try:
        return offered.named(name)
    except SettingsError:
        print_problems(offered)
        raise
