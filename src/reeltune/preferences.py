"""What the user wants, kept in `<root>/reeltune.json` and overridden by flags.

A WanGP folder's `wgp_config.json` is read once, when there is no `reeltune.json` yet.
"""

from __future__ import annotations

import json
import os
import re
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field, fields, replace
from pathlib import Path
from typing import Any

from reeltune.errors import PreferencesError, ReeltuneError
from reeltune.files import write_atomic

FILE_NAME = "reeltune.json"
SCHEMA_VERSION = 1
CHOICES: Mapping[str, tuple[str, ...]] = {
    "quantization": ("int8", "bf16"),
    "dtype": ("auto", "bf16", "fp16"),
    "text_encoder_quantization": ("int8", "bf16"),
    "memory_profile": ("auto", "resident", "stages", "streamed", "minimum"),
    "attention": ("auto", "sdpa", "flash", "flash3", "sage", "xformers"),
    "int8": ("weights", "dynamic"),
}
TOKENS: Mapping[str, str] = {"hub": "HF_TOKEN", "civitai": "CIVITAI_TOKEN"}  # as environment variables

_RANGES = {"connections": (1, 16), "rate_limit": (0, 100_000), "stall_seconds": (1, 600)}


@dataclass(frozen=True)
class Preferences:
    """`quantization`: "int8", or "bf16" for 16 bits. `dtype`: "auto", "bf16" or "fp16". `device`: "auto", "cpu",
    "cuda", "cuda:1" or "mps". `outputs`: folder of videos, relative to the root. `model_folders`: read-only
    folders with weights, such as another program's. `connections`: requests side by side for one file; `rate_limit`:
    megabytes a second for all of them, 0 for no limit; `stall_seconds` without a byte until a connection is made
    anew. `text_encoder_quantization`: which of a WanGP folder's text encoders is used, where both are there.
    `memory_profile`: where the weights lie meanwhile, from fastest to smallest. `attention`: what computes it.
    `compile`: the transformer's blocks, by torch. `int8`: how int8 weights are multiplied, "weights" (with 16-bit
    activations) or "dynamic" (activations in int8 too).
    `save_quantized`: whether the int8 versions of 16-bit files are written and listed. `tokens`: for the Hub ("hub")
    and CivitAI ("civitai"). `extra`: fields of the file this version does not know.
    """

    quantization: str = "int8"
    dtype: str = "auto"
    device: str = "auto"
    outputs: str = "outputs"
    model_folders: tuple[str, ...] = ()
    connections: int = 4
    rate_limit: float = 0.0
    stall_seconds: float = 30.0
    text_encoder_quantization: str = "int8"
    memory_profile: str = "auto"
    attention: str = "auto"
    compile: bool = False
    int8: str = "weights"
    save_quantized: bool = False
    tokens: Mapping[str, str] = field(default_factory=dict, repr=False)
    extra: Mapping[str, Any] = field(default_factory=dict)

    def __post_init__(self) -> None:
        for name, choices in CHOICES.items():
            if getattr(self, name) not in choices:
                raise PreferencesError(
                    f"{getattr(self, name)!r} is no value for {name}.",
                    hint=f"Choose one of: {', '.join(choices)}.",
                )
        for name in ("device", "outputs"):
            if not isinstance(getattr(self, name), str) or not getattr(self, name):
                raise PreferencesError(f"{name} must be text.", hint=f"Mend it in {FILE_NAME}.")
        for name, (least, most) in _RANGES.items():
            value = getattr(self, name)
            whole = name == "connections"
            if (
                isinstance(value, bool)
                or not isinstance(value, int if whole else int | float)
                or not (least <= value <= most)
            ):
                hint = f"It must be a number from {least} to {most}."
                raise PreferencesError(f"{value!r} is no value for {name}.", hint=hint)
        if not isinstance(self.compile, bool):
            raise PreferencesError("compile must be true or false.", hint=f"Mend it in {FILE_NAME}.")
        if not isinstance(self.save_quantized, bool):
            raise PreferencesError("save_quantized must be true or false.", hint=f"Mend it in {FILE_NAME}.")
        if not isinstance(self.tokens, Mapping) or not all(map(_is_token, self.tokens.values())):
            raise PreferencesError("tokens must be an object of texts without spaces.", hint=f"Mend it in {FILE_NAME}.")
        if not re.fullmatch(r"auto|cpu|mps|cuda(:\d{1,3})?", self.device):
            raise PreferencesError(f"{self.device!r} is no device.", hint="Use auto, cpu, mps, cuda or cuda:1.")
        if not all(isinstance(folder, str) for folder in self.model_folders):
            raise PreferencesError("model_folders must be a list of paths.", hint=f"Mend it in {FILE_NAME}.")

    def with_flags(self, **flags: Any) -> Preferences:
        """A copy with the flags that were given (those not None)."""
        return replace(self, **{name: value for name, value in flags.items() if value is not None})

    def use_tokens(self) -> None:
        """Let this process, and those it starts, ask servers with the tokens."""
        for name, variable in TOKENS.items():
            if token := self.tokens.get(name):
                os.environ[variable] = token


def _is_token(value: object) -> bool:
    return isinstance(value, str) and value.isascii() and value.isprintable() and not set(value) & set(" \t")


_KNOWN = frozenset(row.name for row in fields(Preferences)) - {"extra"}


def load_preferences(root: Path) -> tuple[Preferences, list[str]]:
    """Preferences of a root, and notices. Raises PreferencesError for a broken file, which is left as it is."""
    path = root / FILE_NAME
    if path.exists():
        return _build(_read(path), path), []
    old = root / "wgp_config.json"
    if old.exists():
        preferences, notices = _from_wgp(_read(old))
        try:
            save_preferences(root, preferences)
        except ReeltuneError as error:
            return preferences, [f"{old} counts for now: {error}", *notices]
        return preferences, [f"{old} was read once; from now on {path} counts.", *notices]
    return Preferences(), []


def save_preferences(root: Path, preferences: Preferences) -> None:
    """Write `reeltune.json` in one step, unknown fields included."""
    values = asdict(preferences)
    extra = values.pop("extra")
    content = {"schema_version": SCHEMA_VERSION, **values, **extra}
    path = root / FILE_NAME
    if preferences.tokens and path.exists():
        path.chmod(0o600)  # nobody else's to read
    write_atomic(path, (json.dumps(content, indent=4, ensure_ascii=False) + "\n").encode("utf-8"))


def _read(path: Path) -> dict[str, Any]:
    try:
        value = json.loads(path.read_text(encoding="utf-8-sig"))
    except (OSError, ValueError, RecursionError) as error:
        raise PreferencesError(f"{path} can't be read: {error}.", hint="Mend or delete it.") from error
    if not isinstance(value, dict):
        raise PreferencesError(f"{path} must hold a JSON object.", hint="Mend or delete it.")
    return value


def _build(value: dict[str, Any], path: Path) -> Preferences:
    known = {key: item for key, item in value.items() if key in _KNOWN}
    folders = known.get("model_folders", [])
    known["model_folders"] = tuple(folders) if isinstance(folders, list) else (None,)
    extra = {key: item for key, item in value.items() if key not in _KNOWN and key != "schema_version"}
    try:
        return Preferences(**known, extra=extra)
    except PreferencesError as error:
        raise PreferencesError(f"{path}: {error.message}", hint=error.hint) from error


_LATER = ["vae_config", "vae_precision", "boost", "preload_in_VRAM"]
# WanGP's profiles by number: 1 and 3 expect a card that holds the model, 2 and 4 a smaller one, 5 little of both
_WGP_PROFILES = {"-1": "auto", "1": "resident", "2": "streamed", "3": "stages", "4": "streamed", "5": "minimum"}
_WGP_ATTENTION = {"": "auto", "auto": "auto", "sdpa": "sdpa", "flash": "flash", "sage": "sage", "sage2": "sage",
                  "xformers": "xformers"}  # fmt: skip


def _from_wgp(old: dict[str, Any]) -> tuple[Preferences, list[str]]:
    """Translate WanGP's config; what has no meaning here yet is kept under `wgp` and named."""
    wanted = {
        "quantization": {"int8": "int8", "bf16": "bf16"}.get(str(old.get("transformer_quantization", "int8"))),
        "dtype": {"": "auto", "bf16": "bf16", "fp16": "fp16"}.get(str(old.get("transformer_dtype_policy", ""))),
        "text_encoder_quantization": {"int8": "int8", "bf16": "bf16"}.get(
            str(old.get("text_encoder_quantization", "int8"))
        ),
        "memory_profile": _WGP_PROFILES.get(str(old.get("profile", -1)).partition(".")[0]),
        "attention": _WGP_ATTENTION.get(str(old.get("attention_mode", "auto"))),
        "outputs": old.get("save_path") if isinstance(old.get("save_path"), str) and old["save_path"] else "outputs",
    }
    notices = [f"its {name} is not one this program knows: the default counts." for name in wanted if not wanted[name]]
    kept = {key: old[key] for key in _LATER if key in old}
    if kept:
        notices.append(f"Kept for later, without effect yet: {', '.join(kept)}.")
    if "profile" in old and wanted["memory_profile"]:
        notices.append(f"Its profile {old['profile']} becomes the memory profile {wanted['memory_profile']}.")
    given = {name: value for name, value in wanted.items() if value} | {"compile": bool(old.get("compile"))}
    return Preferences(**given, extra={"wgp": kept} if kept else {}), notices  # type: ignore[arg-type]
