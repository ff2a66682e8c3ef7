"""The LoRAs of a form: those that fit the model to choose from, their weights, and what each step does with them."""

from __future__ import annotations

import threading
from collections.abc import Iterable, Sequence
from dataclasses import replace
from typing import Any

import gradio as gr

from reeltune._text import counted, size
from reeltune.checkpoints.names import lora_name
from reeltune.definitions import Definition
from reeltune.errors import ReeltuneError
from reeltune.families.base import LORA_SOURCES, LORAS
from reeltune.families.values import Settings
from reeltune.request.parse import preview
from reeltune.request.steps import step_table
from reeltune.request.values import Request
from reeltune.service.drafts import VideoDraft
from reeltune.service.fields import PHASE_KEYS, FormField, FormValues, settings_from_form
from reeltune.service.lora_adding import draft_with_lora
from reeltune.service.loras import MAX_LORAS, LoraChoice, check_loras, loras_for
from reeltune.service.workspace import Workspace
from reeltune.web.events import FOLLOWING, LIVELY, QUIET, Updates, reporting
from reeltune.web.markup import hint, notices_list, problem, text
from reeltune.web.widgets import draw_field, form_values

LORA_KINDS = ("loras", "weights")  # of fields
_STEP_KEYS = ("num_inference_steps", "resolution", "sample_solver", "flow_shift", "guidance_scale", *PHASE_KEYS, *LORAS)
_MAX_SHOWN = 20  # files that can't be used
_WAIT_SECONDS = 2.0  # for the LoRAs on disk, before the form is shown without them
_READING = "The LoRAs on disk are being read. Open the list again in a moment."
_NO_LORAS = "No LoRA of this model is in {folder} or another folder of LoRAs."


class LoraPart:
    """The LoRAs in one drawing of the form."""

    def __init__(self, workspace: Workspace, definition: Definition, current: VideoDraft) -> None:
        self._workspace, self._definition, self._current = workspace, definition, current
        self._choices: tuple[LoraChoice, ...] = ()
        self._reading: threading.Thread | None = None
        self._upload: gr.UploadButton | None = None
        self._checks: dict[str, str] = {}  # the problem of each source that was checked; empty if there is none

    def draw(self, fields: Sequence[FormField]) -> dict[str, Any]:
        """Draw the fields of LoRAs, and what is known of those that are chosen; returns the components by setting."""
        if not fields:
            return {}
        self._look()
        components = {}
        # The browser reuses lists when a form with other rows takes this one's place, but a list of several choices
        # never becomes one of a single choice: it would show nothing. The column keeps it from being reused.
        with gr.Column(), gr.Row(elem_classes="rt-fields rt-loras"):
            for field in fields:
                drawn = replace(field, choices=self._offered()) if field.kind == "loras" else field
                component = draw_field(drawn, self._current.settings, self._workspace, self._current.version)
                components[field.key] = component
        if self._workspace.local:
            with gr.Column(elem_classes="rt-takes-lora"):
                self._upload = gr.UploadButton(
                    "Add a LoRA file", size="sm", file_types=[".safetensors"], elem_id="add-lora"
                )
        self._about = gr.HTML(self._describe(self._current.settings), **LIVELY, elem_id="about-loras")
        return components

    def attach(self, fields: Sequence[FormField], inputs: Sequence[Any], draft: gr.State, answer: gr.HTML) -> None:
        """Follow the components of the form. `inputs`: one for each of `fields`. `answer`: where errors are shown."""
        components = {field.key: component for field, component in zip(fields, inputs, strict=True)}
        loras = components.get("activated_loras")
        if loras is None:
            return
        followed = [(field, components[field.key]) for field in fields if field.key in _STEP_KEYS]
        followed_fields = [field for field, _ in followed]

        def changed(*values: Any) -> str:
            return self._describe(form_values(followed_fields, values))

        def focused() -> Any:
            before = self._offered()
            self._look()
            return gr.update(choices=self._offered()) if self._offered() != before else gr.skip()

        boxes = [component for _, component in followed]
        # `change` is also triggered while a form is drawn, which may be gone then: only what has no other event uses it
        events = [box.blur if isinstance(box, gr.Textbox) else box.input for box in boxes if box is not loras]
        events.append(loras.change)
        gr.on(events, changed, boxes, self._about, trigger_mode="always_last", **FOLLOWING)
        loras.focus(focused, None, loras, **FOLLOWING)
        if self._upload is None:
            return

        def added(path: str, *values: Any) -> Updates:
            entered = form_values(list(fields), values)
            return {draft: draft_with_lora(self._workspace, self._current, self._definition, entered, path)}

        report = reporting(answer)
        self._upload.upload(report(added), [self._upload, *inputs], [draft, answer], **QUIET)

    def _look(self) -> None:
        """Read which LoRAs are on disk; hundreds of new files are read on while the form is shown without them."""
        self._checks.clear()
        if not self._is_reading:
            self._reading = threading.Thread(target=self._read, daemon=True)
            self._reading.start()
        if self._reading is not None:
            self._reading.join(_WAIT_SECONDS)

    @property
    def _is_reading(self) -> bool:
        return self._reading is not None and self._reading.is_alive()

    def _read(self) -> None:
        try:
            self._choices = loras_for(self._workspace, self._definition)
        except ReeltuneError:  # of the preferences, which is shown in place of the model's description
            self._choices = ()

    def _offered(self) -> tuple[tuple[str, str], ...]:
        return tuple((text_of(choice.source), choice.source) for choice in self._choices if choice.fits)

    # --- what is known of the chosen LoRAs --------------------------------------------------------------------

    def _describe(self, values: FormValues) -> str:
        chosen = values.get(LORA_SOURCES)
        sources = [source for source in chosen if isinstance(source, str)] if isinstance(chosen, list) else []
        return self._chosen(sources) + self._steps(values) + self._not_offered(sources)

    def _chosen(self, sources: Sequence[str]) -> str:
        """The problems of the chosen LoRAs, and the words that call for them."""
        known = {choice.source: choice for choice in self._choices}
        problems = "".join(self._problem(source) for source in sources)
        items = "".join(_about_lora(known[source]) for source in sources if source in known)
        own = ", ".join(lora_name(lora.url) for lora in self._definition.loras)
        of_model = hint(f"Part of the model: {own}.") if own else ""
        return f'{problems}<ul class="rt-versions">{items}</ul>{of_model}' if items else problems + of_model

    def _problem(self, source: str) -> str:
        if source not in self._checks:
            try:
                notices = check_loras(self._workspace, self._definition, [source])
                self._checks[source] = notices_list(notices)
            except ReeltuneError as error:
                self._checks[source] = problem(error)
        return self._checks[source]

    def _steps(self, values: FormValues) -> str:
        """What each step does, or why that can't be told."""
        followed = {key: value for key, value in values.items() if key in _STEP_KEYS}
        try:
            parsed = preview(self._definition, _step_settings(self._definition, followed))
        except ReeltuneError as error:
            return problem(error)
        notices = [notice for notice in parsed.notices if any(key in notice for key in (*LORAS, *PHASE_KEYS))]
        return _step_table(parsed.requests[0], "transformer_2" in self._definition.slots) + notices_list(notices)

    def _not_offered(self, chosen: Iterable[str]) -> str:
        """The files that can't be used though somebody may look for them: damaged, or in the model's own folder."""
        files = [choice for choice in self._choices if not choice.fits and (choice.damaged or choice.own)]
        offered = any(choice.fits for choice in self._choices)
        folder = f"loras/{self._definition.architecture.loras}/"
        if self._is_reading:
            return hint(_READING)
        html = "" if offered or list(chosen) else hint(_NO_LORAS.format(folder=folder))
        if len(self._choices) >= MAX_LORAS:
            html += hint(f"There are more than {MAX_LORAS:,} LoRAs; enter the names of those that aren't offered.")
        if not files:
            return html
        items = "".join(
            f"<li><b>{text(choice.source)}</b><span>{text(choice.reason)}</span></li>" for choice in files[:_MAX_SHOWN]
        )
        hidden = f"<li>and {len(files) - _MAX_SHOWN:,} more</li>" if len(files) > _MAX_SHOWN else ""
        summary = f"{counted(len(files), 'file')} not offered"
        return f'{html}<details data-key="unusable"><summary>{summary}</summary><ul>{items}{hidden}</ul></details>'


def text_of(source: str) -> str:
    """The label of a LoRA in the list: its path without the suffix."""
    return source.removesuffix(".safetensors")


def _breakable(name: str) -> str:
    """A file name that may be broken into lines between its words."""
    return text(name).replace("_", "_<wbr>").replace("-", "-<wbr>")


def _about_lora(choice: LoraChoice) -> str:
    trigger = f' <i class="rt-role">trigger words</i> {text(choice.trigger)}' if choice.trigger else ""
    sample = f" <span>· {text(choice.sample)}</span>" if choice.sample else ""
    return f"<li><b>{text(text_of(choice.source))}</b> <span>{size(choice.bytes)}</span>{trigger}{sample}</li>"


def _step_settings(definition: Definition, values: FormValues) -> Settings:
    """The settings that decide what the steps do."""
    settings = settings_from_form(definition, values)
    return {key: value for key, value in settings.items() if key in _STEP_KEYS}


def _step_table(request: Request, two_models: bool) -> str:
    """The steps of a request, folded away; empty if all are alike and there are no LoRAs."""
    rows = step_table(request)
    if len(rows) <= 1 and not request.loras:
        return ""
    names = [lora_name(lora.source) for lora in request.loras]
    columns = ["Steps", *(["Model"] if two_models else []), "Phase", *(["Size"] if request.passes else []), "Guidance"]
    heads = "".join(f"<th>{name}</th>" for name in columns)
    heads += "".join(f'<th title="{text(name)}"><span>{_breakable(name)}</span></th>' for name in names)
    lines = []
    for row in rows:
        model = ["low noise" if row.transformer == "transformer_2" else "high noise"] if two_models else []
        size = [row.size.replace("x", "×")] if row.size else []
        cells = [row.steps.replace("-", "–"), *model, str(row.phase), *size, f"{row.guidance_scale:g}"]
        cells += [f"{weight:g}" for weight in row.weights]
        lines.append("".join(f"<td>{text(cell)}</td>" for cell in cells))
    body = "".join(f"<tr>{line}</tr>" for line in lines)
    table = f'<table class="rt-steps"><thead><tr>{heads}</tr></thead><tbody>{body}</tbody></table>'
    summary = "What each step does"
    return f'<details data-key="steps"><summary>{summary}</summary><div class="rt-wide">{table}</div></details>'
