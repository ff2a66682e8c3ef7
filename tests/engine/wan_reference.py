"""The rules of Wan's relatives that have no pipeline in diffusers, written out with diffusers' models and schedulers.

Phantom: github.com/Phantom-video/Phantom (subject2video.py). SVI 2.0 Pro: github.com/vita-epfl/Stable-Video-Infinity
(wan_video_svi_pro.py). Wan-Move: github.com/ali-vilab/Wan-Move (wan_move.py, trajectory.py). Ditto: github.com/EzioBy/Ditto
(infer_ditto.py), which is Vace with a LoRA.
"""

from pathlib import Path

import diffusers
import numpy as np
import torch
from safetensors.torch import load_file
from torch.nn import functional

from reeltune.engine.inputs import read_inputs
from reeltune.engine.reporting import Reporter
from reeltune.engine.stages import load_component
from reeltune.machine import probe
from reeltune.request.build import build_request
from reeltune.request.parse import complete_settings
from reeltune.weights.load import load_transformer
from reeltune.weights.wide import products_in_fp32

BF16 = torch.bfloat16
IDS = ("phantom_1.3B", "phantom_14B", "i2v_2_2_svi2pro", "wanmove")


def add_vace_lora(model, path):
    """Have layers of Vace add up (down x), with the matrices of a LoRA in DiffSynth's layout."""
    places = {
        "self_attn.q": "attn1.to_q", "self_attn.o": "attn1.to_out.0", "cross_attn.k": "attn2.to_k", "ffn.0": "ffn.net.0.proj",
        "ffn.2": "ffn.net.2",
    }  # fmt: skip
    state = load_file(path)
    for layer, place in places.items():
        name = f"vace_blocks.0.{layer}"
        down, up = (state.pop(f"{name}.lora_{side}.default.weight").to(BF16) for side in "AB")

        def add(_, inputs, output, down=down, up=up):
            return output + functional.linear(functional.linear(inputs[0], down), up)

        model.vace_blocks[0].get_submodule(place).register_forward_hook(add)
    assert not state


class Video:
    """One video by the rule of its architecture: `latents` [1, 16, frames', height', width'], `frames` uint8."""

    def __init__(self, definition, settings):
        self.architecture = definition.architecture
        self.settings, _ = complete_settings(definition, settings)
        self.request, _ = build_request(definition, self.settings)
        self.images = read_inputs(self.request, Reporter(print))
        for row in self.architecture.parts:
            dtype = torch.float32 if row.name in ("vae", "image_encoder") else BF16
            setattr(self, row.name, load_component(row, Path(definition.components) / row.name, dtype))
        slots = [slot for slot in ("transformer", "transformer_2") if slot in definition.slots]
        self.models = [load_transformer(Path(definition.slots[slot][0].url), "bf16") for slot in slots]
        self.generator = torch.Generator().manual_seed(self.request.seed)
        self.shape = ((self.request.frames - 1) // 4 + 1, self.request.height // 8, self.request.width // 8)
        slow = probe().products_in_fp32("cpu", "bf16")
        with torch.inference_mode(), products_in_fp32(slow):
            self.text, self.negative, self.seen = self.embeddings(self.request.prompt)
            self.texts = [self.text, *(self.embeddings(prompt)[0] for prompt in self.request.later_prompts)]
            self.latents = self.make()
            self.frames = self.decoded()

    def embeddings(self, prompt):
        encoder = getattr(self, "image_encoder", None)
        kind = diffusers.WanImageToVideoPipeline if encoder is not None else diffusers.WanPipeline
        more = {"image_encoder": encoder, "image_processor": self.image_processor} if encoder is not None else {}
        pipeline = kind(
            tokenizer=self.tokenizer,
            text_encoder=self.text_encoder,
            vae=self.vae,
            scheduler=None,
            transformer=None,
            **more,
        )
        texts = pipeline.encode_prompt(prompt, self.request.negative_prompt, max_sequence_length=512)
        seen = None if encoder is None else pipeline.encode_image(self.images.start, "cpu").to(BF16)
        return *texts, seen

    def make(self):
        if self.architecture.id.startswith("phantom"):
            return self.phantom()
        if self.architecture.id == "wanmove":
            return self.wan_move()
        return self.endless()

    def encoded(self, frames):
        """Latents of frames [3, frames, height, width] as the transformer takes them."""
        mean, std = (
            torch.tensor(row).view(1, 16, 1, 1, 1)
            for row in (self.vae.config.latents_mean, self.vae.config.latents_std)
        )
        return (self.vae.encode(frames[None]).latent_dist.mode() - mean) * (1.0 / std)

    def pixels(self, image):
        return torch.from_numpy(np.array(image)).float().permute(2, 0, 1)[:, None] / 255 * 2 - 1

    def mask(self, frames):
        """[1, 4, frames', height', width']: one for the first frame of a video of so many frames, else zero."""
        mask = torch.zeros(1, 4, (frames - 1) // 4 + 1, *self.shape[1:])
        mask[:, :, 0] = 1
        return mask

    def velocity(self, latents, timestep, text, model=0):
        found = self.models[model](
            hidden_states=latents.to(BF16), timestep=timestep.expand(1), encoder_hidden_states=text.to(BF16),
            encoder_hidden_states_image=self.seen, return_dict=False,
        )  # fmt: skip
        return found[0]

    def steps(self, latents, guided):
        """Denoise latents; `guided` returns the velocity of a step."""
        scheduler = diffusers.UniPCMultistepScheduler(
            prediction_type="flow_prediction", use_flow_sigmas=True, flow_shift=self.request.shift
        )
        scheduler.set_timesteps(self.request.steps)
        for timestep in scheduler.timesteps:
            latents = scheduler.step(guided(latents, timestep), timestep, latents, return_dict=False)[0]
        return latents

    def phantom(self):
        references = torch.cat([self.encoded(self.pixels(image)) for image in self.images.references], dim=2)
        count = references.shape[2]
        noise = torch.randn((1, 16, self.shape[0] + count, *self.shape[1:]), generator=self.generator)

        def guided(latents, timestep):
            video = latents[:, :, :-count]
            with_both = self.velocity(torch.cat([video, references], dim=2), timestep, self.text)
            if self.request.guidance_scale == 1:
                return with_both
            with_images = self.velocity(torch.cat([video, references], dim=2), timestep, self.negative)
            neither = self.velocity(torch.cat([video, 0 * references], dim=2), timestep, self.negative)
            return neither + 5.0 * (with_images - neither) + self.request.guidance_scale * (with_both - with_images)

        return self.steps(noise, guided)[:, :, :-count]

    def wan_move(self):
        noise = torch.randn((1, 16, *self.shape), generator=self.generator)
        start = self.pixels(self.images.start)
        black = torch.zeros(3, self.request.frames - 1, *start.shape[2:])
        still = self.encoded(torch.cat([start, black], dim=1))
        moved = still.clone()
        height, width = self.request.height, self.request.width
        tracks = np.load(Path(self.request.inputs.tracks))
        order = np.random.default_rng(self.request.seed).permutation(tracks.shape[1])
        written = set()
        for point in order:  # of several points that come to one place, one counts
            x, y = tracks[0, point]
            if not (0 <= x < width and 0 <= y < height):
                continue
            source = still[0, :, 0, int(y // 8), int(x // 8)]
            for frame in range(4, min(len(tracks), self.request.frames), 4):
                x, y = tracks[frame, point]
                place = (frame // 4, int(y // 8), int(x // 8))
                if 0 <= x < width and 0 <= y < height and place not in written:
                    written.add(place)
                    moved[0, :, place[0], place[1], place[2]] = source
        assert not torch.equal(still, moved)
        mask = self.mask(self.request.frames)

        def guided(latents, timestep):
            conditional = self.velocity(torch.cat([latents, mask, moved], dim=1), timestep, self.text)
            unconditional = self.velocity(torch.cat([latents, mask, still], dim=1), timestep, self.negative)
            return unconditional + self.request.guidance_scale * (conditional - unconditional)

        return self.steps(noise, guided)

    def endless(self):
        size = self.settings["sliding_window_size"] if self.request.windows > 1 else self.request.frames
        windows = []
        for number in range(self.request.windows):
            text = self.texts[min(number, len(self.texts) - 1)]
            shape = (1, 16, (size - 1) // 4 + 1, *self.shape[1:])
            condition = torch.zeros(shape)
            condition[:, :, :1] = self.encoded(self.pixels(self.images.start))
            if windows:
                condition[:, :, 1:2] = windows[-1][:, :, -1:]
            condition = torch.cat([self.mask(size), condition], dim=1)

            def guided(latents, timestep, condition=condition, text=text):
                late = int(timestep <= self.settings["switch_threshold"])
                scale = (self.settings["guidance_scale"], self.settings["guidance2_scale"])[late]
                shown = torch.cat([latents, condition], dim=1)
                conditional = self.velocity(shown, timestep, text, late)
                unconditional = self.velocity(shown, timestep, self.negative, late)
                return unconditional + scale * (conditional - unconditional)

            windows.append(self.steps(torch.randn(shape, generator=self.generator), guided))
        self.windows = windows
        return torch.cat(windows, dim=2)

    def decoded(self):
        mean, std = (
            torch.tensor(row).view(1, 16, 1, 1, 1)
            for row in (self.vae.config.latents_mean, self.vae.config.latents_std)
        )
        parts = getattr(self, "windows", [self.latents])
        shown = [self.vae.decode(part * std + mean, return_dict=False)[0][0] for part in parts]
        video = torch.cat([shown[0], *(part[:, 1 + 4 :] for part in shown[1:])], dim=1)  # without anchor and motion
        video = video[:, : self.request.frames]
        return ((video.permute(1, 2, 3, 0) + 1) * 127.5).round().clamp(0, 255).to(torch.uint8).numpy()
