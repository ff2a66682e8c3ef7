"""A profile as a value."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from reeltune.families.values import Settings
from reeltune.untrusted import JsonObject

_GUIDANCES = ("guidance_scale", "guidance2_scale", "guidance3_scale")  # of the phases, in order


@dataclass(frozen=True)
class Profile:
    """A profile or a LoRA preset.

    `folder`: the folder that it is in, such as "wan_2_2". `settings`: what it sets, without LoRAs. `loras`: URLs, paths
    or names of files. `multipliers`: their weights, in the syntax of `loras_multipliers`. `architectures`: the ids of
    the architectures it is for; empty for all that use its folder. `file`: None if it is built in. `prompt`: a prompt
    that replaces the user's; empty to keep it. `preset`: whether its LoRAs take the place of the user's own. `notices`:
    what could not be used of its file.
    """

    name: str
    folder: str
    settings: Settings
    loras: tuple[str, ...] = ()
    multipliers: str = ""
    description: str = ""
    architectures: tuple[str, ...] = ()
    file: Path | None = None
    prompt: str = ""
    preset: bool = False
    notices: tuple[str, ...] = ()

    @property
    def steps(self) -> int | None:
        """The number of denoising steps; None if it doesn't set it."""
        steps = self.settings.get("num_inference_steps")
        return steps if isinstance(steps, int) else None

    @property
    def guidance(self) -> tuple[float, ...]:
        """The guidance of each phase, as far as it sets them."""
        phases = max(1, self.settings.get("guidance_phases", 1))
        return tuple(self.settings[key] for key in _GUIDANCES[:phases] if key in self.settings)

    @property
    def source(self) -> str:
        """Where it comes from: the path of its file, or "built in"."""
        return str(self.file) if self.file else "built in"

    def as_json(self) -> JsonObject:
        """A JSON object for programs that list profiles."""
        return {
            "name": self.name,
            "folder": self.folder,
            "description": self.description,
            "architectures": list(self.architectures),
            "settings": dict(self.settings),
            "loras": list(self.loras),
            "multipliers": self.multipliers,
            "source": self.source,
            "notices": list(self.notices),
        }
