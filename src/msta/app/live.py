"""The webcam: what happens now, a few answers per second."""

from __future__ import annotations

import time
from dataclasses import dataclass
from typing import Any

import gradio as gr
import numpy as np
from numpy.typing import NDArray

from msta.app import render
from msta.app.page import Page, chosen, placeholder
from msta.app.predicting import classes_of

_EVERY = 0.12  # seconds between two frames that the browser sends
_ENOUGH = 0.75  # of the window must have been seen before there is an answer
_STOPS_AFTER = 600  # seconds


@dataclass(frozen=True)
class Recent:
    """The frames of the last seconds, uint8 [H, W, 3] each, with the times at which they came."""

    times: tuple[float, ...] = ()
    frames: tuple[NDArray[np.uint8], ...] = ()

    def with_frame(self, now: float, frame: NDArray[np.uint8], seconds: float) -> Recent:
        """A new frame comes, and those older than ``seconds`` go. Frames of another size, too: the camera changed."""
        kept = [i for i, t in enumerate(self.times) if now - t < seconds and self.frames[i].shape == frame.shape]
        return Recent((*(self.times[i] for i in kept), now), (*(self.frames[i] for i in kept), frame))

    @property
    def seconds(self) -> float:
        """From the first to the last of them."""
        return self.times[-1] - self.times[0] if self.times else 0.0

    def clip(self, count: int) -> NDArray[np.uint8]:
        """[count, H, W, 3], evenly spaced in time: the nearest frame to each moment."""
        wanted = np.linspace(self.times[0], self.times[-1], count)
        nearest = np.abs(np.asarray(self.times)[None] - wanted[:, None]).argmin(1)
        return np.stack([self.frames[i] for i in nearest])


def live_part(page: Page, adapter: gr.Dropdown, typed: gr.Textbox) -> None:
    """Build the part of the first tab that predicts from the webcam, with the chosen adapter or the typed classes."""
    answer = gr.HTML(placeholder("What the camera sees appears here, a few times per second."), elem_id="msta-now-seen")
    recent = gr.State(Recent())
    window = gr.Slider(0.5, 10, 2, step=0.5, label="Seconds that an answer looks back")
    camera = gr.Image(
        sources=["webcam"], streaming=True, type="numpy", label="Webcam", elem_id="msta-live", height=300,
        webcam_options=gr.WebcamOptions(mirror=False),
    )  # fmt: skip

    def watch(frame: Any, recent: Recent, adapter: str, typed: str, window: float) -> list[Any]:
        if frame is None:
            return [Recent(), gr.skip()]
        recent = recent.with_frame(time.monotonic(), frame, window)
        if recent.seconds < _ENOUGH * window:
            return [recent, placeholder("Watching …")]

        def read() -> str:
            predictor = page.models.predictor(chosen(adapter), classes_of(chosen(adapter), typed))
            return render.bars(predictor(recent.clip(predictor.format.frames)))

        html, problem = page.attempt(read)
        return [recent, problem if html is None else html]

    camera.stream(
        watch, [camera, recent, adapter, typed, window], [recent, answer], stream_every=_EVERY,
        time_limit=_STOPS_AFTER, concurrency_limit=1, concurrency_id="live", api_visibility="private",
        show_progress="hidden",
    )  # fmt: skip
