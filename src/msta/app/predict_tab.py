"""The first tab: a video -> its classes, a timeline and an explanation."""

from __future__ import annotations

from typing import Any

import gradio as gr

from msta.app import render
from msta.app.live import live_part
from msta.app.page import COMPUTING, NONE, QUICK, Page, chosen, placeholder, scroll_to
from msta.app.predicting import LONG, Answer, Settings, answer, explain_answer, written

_TIMELINE = {f"of videos from {LONG:g} s on": None, "always": True, "never": False}


def predict_tab(page: Page) -> gr.Dropdown:
    """Build the tab. Returns the list of adapters, to which trained ones are added."""
    found = gr.State(None)
    first = next(iter(page.models.adapters()), NONE)
    with gr.Row(elem_id="msta-both"):
        with gr.Column(min_width=320, elem_id="msta-given"):
            video = gr.Video(label="Video", sources=["upload"], elem_id="msta-video", height=300)
            strip = gr.HTML(elem_id="msta-frames")  # which is shown if the browser cannot play the file
            line = gr.HTML(visible=False)
            adapter = gr.Dropdown(page.choices(), value=first, label="Adapter", filterable=False)
            typed = gr.Textbox(
                label="Class names, separated by commas", placeholder="swipe left, swipe right, wave",
                info="Needed without an adapter. With an adapter, they replace its classes.", lines=2,
            )  # fmt: skip
            with gr.Accordion("Timeline and explanation", open=False):
                lines = gr.Dropdown(list(_TIMELINE), label="Timeline", filterable=False)
                window = gr.Slider(0.5, 10, 2, step=0.5, label="Window, s (about as long as an action)")
                shortest = gr.Slider(0, 10, 1, step=0.5, label="Shortest segment, s")
                unsure = gr.Checkbox(False, label="Show “unknown” below the adapter's threshold")
                explaining = gr.Checkbox(True, label="Explain the likeliest class")
            go = gr.Button("Predict", variant="primary", elem_id="msta-predict")
            with gr.Accordion("Webcam, live", open=False):
                watching = gr.Column()
        with gr.Column(min_width=320, elem_id="msta-found"):
            ranking = gr.HTML(
                placeholder("The classes of the video appear here."), min_height=90, elem_id="msta-answer"
            )
            with gr.Row():
                table = gr.DownloadButton("CSV", visible=False, elem_id="msta-csv", min_width=100)
                subtitles = gr.DownloadButton("Subtitles (.srt)", visible=False, elem_id="msta-srt", min_width=100)
            with gr.Row(visible=False) as choice:
                label = gr.Dropdown([], label="Explain", filterable=False, min_width=200)
                part = gr.Dropdown([], label="of", filterable=False, min_width=200)
            reasons = gr.HTML()

    def predict(
        video: str | None, adapter: str, typed: str, lines: str, window: float, shortest: float, unsure: bool,
        progress: gr.Progress = gr.Progress(),  # noqa: B008
    ) -> list[Any]:  # fmt: skip
        settings = Settings(_TIMELINE[lines], window, shortest, unsure)
        got, problem = page.attempt(
            lambda: answer(
                page.models, video, chosen(adapter), typed, settings, limits=page.limits,
                tell=lambda share: progress(share, desc="Reading the video"),
            )
        )  # fmt: skip
        if got is None:
            gone = gr.DownloadButton(visible=False)
            return [None, problem, gr.HTML(visible=False), gr.Row(visible=False), gr.skip(), gr.skip(), "", gone, gone]
        names = [one.label for one in got.ranked]
        drawn = render.timeline(got)
        return [
            got, render.ranking(got), gr.HTML(drawn, visible=bool(drawn)), gr.Row(visible=True),
            gr.Dropdown(names, value=names[0]), gr.Dropdown(list(got.parts), value=next(iter(got.parts))), "",
            *(gr.DownloadButton(value=str(file) if file else None, visible=file is not None)
              for file in written(got, page.scratch)),
        ]  # fmt: skip

    def explain(got: Answer | None, label: str, part: str) -> str:
        if got is None:
            return ""
        explanation, problem = page.attempt(lambda: explain_answer(got, label, part))
        return problem if explanation is None else render.explanation(explanation)

    asked = [video, adapter, typed, lines, window, shortest, unsure]
    shown = [found, ranking, line, choice, label, part, reasons, table, subtitles]
    predicted = go.click(predict, asked, shown, show_progress_on=[ranking], **COMPUTING)
    predicted.then(None, js=scroll_to("#msta-answer"), api_visibility="private")
    predicted.then(
        lambda got, label, part, wanted: explain(got, label, part) if wanted else "",
        [found, label, part, explaining],
        reasons,
        **COMPUTING,
    )
    label.input(explain, [found, label, part], reasons, **COMPUTING)
    part.input(lambda got, part: got.parts[part][1] if got else None, [found, part], label, **QUICK).then(
        explain, [found, label, part], reasons, **COMPUTING
    )
    video.upload(lambda video: page.attempt(lambda: render.frames(video))[0] or "", video, strip, **QUICK)
    video.clear(lambda: (None, "", gr.HTML(visible=False)), None, [found, strip, line], **QUICK)
    with watching:
        live_part(page, adapter, typed)
    return adapter
