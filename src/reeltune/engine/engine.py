"""From a definition to videos: one warm engine, which keeps what it has loaded from video to video.

with Engine(catalog["nano_t2v"]) as engine:
    video = engine.generate(prompt="a red circle moves right on a black background", seed=7)
video.save("out.mp4")
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, Self

from reeltune.definitions import Definition
from reeltune.engine import latents as latents_files
from reeltune.engine import outputs
from reeltune.engine.arithmetic import arithmetic
from reeltune.engine.families.base import Latents
from reeltune.engine.inputs import read_inputs
from reeltune.engine.ready import make_ready
from reeltune.engine.reporting import Reporter
from reeltune.engine.room import allocating, check_room
from reeltune.engine.run import Run
from reeltune.engine.warm import Warm
from reeltune.events import Batch, CancelToken, FilesUsed, Listener, UsedFile, ignore
from reeltune.families.values import Settings
from reeltune.files import expand
from reeltune.machine import Machine
from reeltune.media.video import Video
from reeltune.planning.loras import default_loras
from reeltune.planning.memory import choose_profile
from reeltune.planning.plan import Plan
from reeltune.planning.positions import check_positions
from reeltune.preferences import Preferences, load_preferences
from reeltune.request.parse import check_runnable, parse, parse_latents
from reeltune.request.values import Request


class Engine:
    """Makes videos with one definition; loads on first use and stays warm until closed.

    Missing files are downloaded first. `preferences`: those of the definition's root by default. `listener` gets
    progress and notices, with `previews` also the emerging video (`events.Preview`). `save_quantized`: write the int8
    versions of the 16-bit files to `ckpts/`, list them in the definition, and use them, whatever the preference. Raises
    NotRunnable at once for a definition this program can't run.
    """

    def __init__(
        self,
        definition: Definition,
        *,
        preferences: Preferences | None = None,
        listener: Listener = ignore,
        machine: Machine | None = None,
        save_quantized: bool = False,
        previews: bool = False,
    ) -> None:
        self.definition = check_runnable(definition)
        self._preferences = preferences
        self._machine = machine
        self._save_quantized = save_quantized
        self._previews = previews
        self._reporter = Reporter(listener)
        self._warm = Warm(self._reporter)
        self._plan: Plan | None = None

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *exc: object) -> None:
        self.close()

    def close(self) -> None:
        """Release all weights. Another video loads them again."""
        self._warm.release()

    def switch(self, definition: Definition) -> None:
        """Make videos with another definition from here on.

        What both have in common stays loaded: components, embeddings, and of one architecture the model, which is
        filled with the other's weights. Raises NotRunnable.
        """
        self.definition = check_runnable(definition)
        self._plan = None

    # --- videos -----------------------------------------------------------------------------------------------------

    def generate(self, prompt: str | None = None, *, cancel: CancelToken | None = None, **settings: Any) -> Video:
        """Make one video. Settings that aren't given come from the definition; `seed=-1` picks one.

        Where the settings ask for several videos (lines of the prompt, `repeat_generation`) this is the first; a notice
        reports it. Raises SettingsError, FetchError, CheckpointError, DecodeFailed, Cancelled.
        """
        requests = self._parse(prompt, settings)
        if len(requests) > 1:
            count = len(requests)
            message = f"The settings ask for {count} videos; generate() makes the first, generate_each() all."
            self._reporter.notice(message)
        return self.make(requests[0], cancel=cancel)

    def generate_each(
        self, prompt: str | None = None, *, cancel: CancelToken | None = None, skip: int = 0, **settings: Any
    ) -> Iterator[Video]:
        """Make every video the settings ask for: each line of the prompt, `repeat_generation` times.

        `skip`: so many of the first are left out, as they were made before. Raises as `generate`.
        """
        requests = self._parse(prompt, settings)
        for number, request in enumerate(requests[skip:], start=skip + 1):
            if len(requests) > 1:
                self._reporter.event(Batch(number, len(requests)))
            yield self.make(request, cancel=cancel)

    def make(self, request: Request, *, cancel: CancelToken | None = None) -> Video:
        """Make the video of a request (`request.parse`). Raises as `generate`."""
        cancel = cancel or CancelToken()
        self._select(request)
        check_room(request, self._machine)
        with allocating(request):
            images = read_inputs(request, self._reporter)
            run = self._begin(cancel, [lora.source for lora in request.loras])
            check_positions(run.plan, request)
            with arithmetic(run.plan, request, run.config):
                return run.make(request, images)

    def decode(self, latents: str | Path, *, cancel: CancelToken | None = None) -> Video:
        """The video of latents that an interrupted run or a failed decoding left.

        Raises MediaError for a file that holds no latents, SettingsError, DecodeFailed.
        """
        self._reporter.start_over()
        path = Path(latents)
        stored = latents_files.read(path)
        request = parse_latents(self.definition, stored.settings)
        self._select(request)
        run = self._begin(cancel or CancelToken(), [])
        with arithmetic(run.plan, request, run.config):
            return run.decode(Latents(stored.latents, stored.sound), request, path)

    def _select(self, request: Request) -> None:
        """Use the variant of the definition that a request is for. Raises NotRunnable."""
        if request.config != self.definition.config:
            self.switch(self.definition.variant(request.config))

    def output_path(self, video: Video) -> Path:
        """A fresh name for a video in the folder of outputs, from the time, the definition and the seed."""
        folder = self._known_preferences()[0].outputs
        return outputs.free_path(self.definition.root / expand(folder), video)

    def _parse(self, prompt: str | None, settings: Settings) -> tuple[Request, ...]:
        """The requests of these settings. Their notices are reported, also if an earlier call reported them."""
        self._reporter.start_over()
        if prompt is not None:
            settings = {**settings, "prompt": prompt}
        parsed = parse(self.definition, settings)
        for notice in parsed.notices:
            self._reporter.notice(notice)
        return parsed.requests

    # --- files ------------------------------------------------------------------------------------------------------

    def prepare(self, cancel: CancelToken | None = None, loras: Sequence[str] | None = None) -> Plan:
        """Download what is missing, and return the plan: which files are used, and why. Loads no weights.

        `loras`: the URLs or paths of the LoRAs to apply; by default those of the definition and its saved settings.
        Raises FetchError and its kinds, ChoiceError, DeviceMissing, NotEnoughMemory, Cancelled.
        """
        sources = tuple(default_loras(self.definition) if loras is None else loras)
        if self._plan is None or tuple(lora.source for lora in self._plan.loras) != sources:
            preferences, notices = self._known_preferences()
            for notice in notices:
                self._reporter.notice(notice)
            self._plan = make_ready(self.definition, preferences, self._machine, sources, self._reporter.event, cancel)
            self.definition = self._plan.definition
        return self._plan

    def _known_preferences(self) -> tuple[Preferences, list[str]]:
        """The preferences to use, and notices about invalid values in their file."""
        preferences, notices = self._preferences, list[str]()
        if preferences is None:
            preferences, notices = load_preferences(self.definition.root)
        if self._save_quantized:
            preferences = replace(preferences, save_quantized=True)
        return preferences, notices

    def _begin(self, cancel: CancelToken, loras: Sequence[str]) -> Run:
        """The run of the next video, with LoRAs. Where files have changed since the last one, it gets a new plan."""
        if self._warm.files.changed():
            self._plan = None
        plan = self.prepare(cancel, loras)
        for slot, choice in {**plan.selection.choices, **plan.selection.components}.items():
            self._reporter.notice(f"{slot}: {choice.version.file_name} ({choice.reason}).")
        for notice in (*map(str, plan.definition.notices), *plan.notices):
            self._reporter.notice(notice)
        profile = choose_profile(plan)
        self._reporter.notice(f"Memory profile {profile.profile}: {profile.reason}.")
        placement = self._warm.placement(plan, profile)
        self._warm.models.keep(plan, placement)
        stamps = self._warm.files.record(path for item in plan.items for path in item.paths)
        self._reporter.event(FilesUsed(tuple(UsedFile(str(stamp.path), stamp.size) for stamp in stamps)))
        return Run(plan, self._warm, placement, self._reporter, cancel, previews=self._previews)
