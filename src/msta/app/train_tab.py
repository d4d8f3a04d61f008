"""The second tab: labelled clips -> an adapter. The learning curve is shown during the training."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import gradio as gr

from msta.app import clips, render
from msta.app.page import ALONE, QUICK, Page, placeholder, scroll_to
from msta.app.training import UNDER_WAY
from msta.errors import MSTAError
from msta.methods import METHODS

_TICK = 2.0
_BY = ("Add class by class", "A zip", "A folder on this computer")


def train_tab(page: Page) -> tuple[gr.Timer, list[Any]]:
    """Build the tab. Returns the timer that ticks during a training, and the components that :func:`progress` sets."""
    uploaded = gr.State({})
    timer = gr.Timer(_TICK, active=False)
    methods = [name for name in METHODS if name != "zero-shot"]
    with gr.Row():
        with gr.Column(min_width=320):
            by = gr.Radio(_BY, value=_BY[0], label="Labelled clips")
            with gr.Column(visible=True) as one_by_one:
                name = gr.Textbox(label="Class", placeholder="swipe left", elem_id="msta-class")
                gr.HTML(render.read("recorder.html"))
                files = gr.File(
                    label="Its clips", file_count="multiple", file_types=["video"], height=150, elem_id="msta-clips"
                )
                with gr.Row():
                    add = gr.Button("Add class", elem_id="msta-add", min_width=120)
                    clear = gr.Button("Start again", min_width=120)
                added = gr.HTML(render.classes({}), elem_id="msta-added")
                clip = gr.State(None)  # the number of the thumbnail that was clicked
                thumbnails = gr.Gallery(
                    label="Click a clip to move or remove it", columns=4, height="auto", allow_preview=False,
                    object_fit="cover", interactive=False, visible=False, elem_id="msta-thumbnails", buttons=[],
                )  # fmt: skip
                with gr.Row(visible=False) as picked:
                    belongs = gr.Dropdown(
                        [], label="Its class", allow_custom_value=True, min_width=160, elem_id="msta-move"
                    )
                    remove = gr.Button("Remove", min_width=120, elem_id="msta-remove")
            with gr.Column(visible=False) as zipped:
                archive = gr.File(
                    label="A zip with a folder for each class", file_types=[".zip"], height=150, elem_id="msta-zip"
                )
            with gr.Column(visible=False) as on_disk:
                folder = gr.Textbox(
                    label="A folder with a sub-folder for each class", placeholder="/home/me/clips",
                    elem_id="msta-folder",
                )  # fmt: skip
            called = gr.Textbox("my-actions", label="Name of the adapter", elem_id="msta-name")
            with gr.Accordion("Settings", open=False):
                method = gr.Dropdown(methods, value="msta", label="Method", filterable=False)
                epochs = gr.Slider(1, 100, 30, step=1, label="Passes over the clips", elem_id="msta-epochs")
            with gr.Row():
                go = gr.Button("Train", variant="primary", elem_id="msta-train", min_width=120)
                stop = gr.Button("Stop", variant="stop", visible=False, min_width=120, elem_id="msta-stop")
                resume = gr.Button("Go on", visible=False, min_width=120, elem_id="msta-go-on")
        with gr.Column(min_width=320, elem_id="msta-trained"):
            problem = gr.HTML(visible=False)
            view = gr.HTML(placeholder("The learning curve and the result appear here."))
            with gr.Row():
                download = gr.DownloadButton("Adapter (.zip)", visible=False, elem_id="msta-download", min_width=120)
                report = gr.DownloadButton("Report (.html)", visible=False, elem_id="msta-report", min_width=120)
                onnx = gr.Button("Make an ONNX file", visible=False, elem_id="msta-onnx", min_width=120)
            exported = gr.File(label="For ONNX Runtime", visible=False, elem_id="msta-exported")

    def show(chosen: str) -> list[gr.Column]:
        return [gr.Column(visible=chosen == one) for one in _BY]

    def add_class(so_far: dict[str, list[str]], name: str, files: list[str] | None) -> list[Any]:
        got, wrong = page.attempt(lambda: clips.add_class(so_far, name, files))
        if got is None:
            return [so_far, wrong + render.classes(so_far), *[gr.skip()] * 5]
        recorded = all(Path(file).name.startswith("webcam-") for file in files or ())  # more of this class may follow
        return [*shown_clips(got), gr.skip() if recorded else "", None]

    def shown_clips(got: dict[str, list[str]]) -> list[Any]:
        """The clips, in words and as thumbnails, none of which is picked; what was wrong before may be right now."""
        pictures = [(render.thumbnail(file), name) for name, file in clips.listed(got)]
        return [
            got, render.classes(got, clips.warnings(got)), gr.HTML(visible=False),
            gr.Gallery(pictures, visible=bool(pictures), selected_index=None), gr.Row(visible=False),
        ]  # fmt: skip

    def pick(got: dict[str, list[str]], event: gr.SelectData) -> list[Any]:
        return [event.index, gr.Row(visible=True), gr.Dropdown(list(got), value=clips.listed(got)[event.index][0])]

    def move(got: dict[str, list[str]], index: int, name: str | None) -> list[Any]:
        named, wrong = page.attempt(lambda: clips.class_name(got, name))
        return [got, wrong + render.classes(got), *[gr.skip()] * 3] if named is None else put(got, index, named)

    def put(got: dict[str, list[str]], index: int, name: str | None) -> list[Any]:
        return shown_clips(clips.moved(got, index, name))

    def start(called: str, method: str, epochs: float, *given: Any) -> list[Any]:
        return do(lambda: page.trainings.start(called, _data(page, *given), method, int(epochs)))

    def do(work: Callable[[], None]) -> list[Any]:
        _, wrong = page.attempt(work)
        return [gr.HTML(wrong, visible=bool(wrong)), *progress(page)[: len(watched) + 1]]

    def export() -> list[Any]:
        made, wrong = page.attempt(page.trainings.export)
        return [gr.HTML(wrong, visible=bool(wrong)), gr.File(str(made), visible=True) if made else gr.skip()]

    watched = [view, download, report, onnx, go, stop, resume]
    by.change(show, by, [one_by_one, zipped, on_disk], **QUICK)
    seen = [uploaded, added, problem, thumbnails, picked]
    add.click(add_class, [uploaded, name, files], [*seen, name, files], **QUICK)
    clear.click(lambda: shown_clips({}), None, seen, **QUICK)
    thumbnails.select(pick, uploaded, [clip, picked, belongs], **QUICK)
    belongs.input(move, [uploaded, clip, belongs], seen, **QUICK)
    remove.click(lambda got, index: put(got, index, None), [uploaded, clip], seen, **QUICK)
    onnx.click(export, None, [problem, exported], **ALONE)
    shown = [problem, *watched, timer]
    started = go.click(start, [called, method, epochs, by, uploaded, archive, folder], shown, **ALONE)
    started.then(None, js=scroll_to("#msta-trained"), api_visibility="private")
    stop.click(page.trainings.stop, None, None, **QUICK)
    resume.click(lambda: do(page.trainings.resume), None, shown, **ALONE)
    return timer, watched


def _data(page: Page, chosen: str, uploaded: dict[str, list[str]], archive: str | None, folder: str) -> Path:
    """The labelled clips, from whichever input was chosen."""
    if page.trainings.busy:
        raise MSTAError(UNDER_WAY)
    if chosen == _BY[2]:
        return clips.from_folder(folder)
    to = page.scratch / "clips" / f"{sum(1 for _ in (page.scratch / 'clips').glob('*')) + 1}"
    return clips.from_uploads(uploaded, to) if chosen == _BY[0] else clips.from_zip(archive, to)


def progress(page: Page, *, arriving: bool = False) -> list[Any]:
    """The current values of the view, the buttons, the timer and the lists of adapters."""
    now = page.trainings.progress()
    if now is None:
        return [gr.skip()] * 7 + [gr.Timer(active=False), *_lists(page, None)]
    lists = _lists(page, now.name if now.state == "finished" and not arriving else None)
    return [
        render.run(now),
        *(
            gr.DownloadButton(value=str(file) if file else None, visible=file is not None)
            for file in (now.archive, now.report)
        ),
        gr.Button(visible=now.adapter is not None),
        gr.Button(interactive=now.over),
        gr.Button(visible=not now.over),
        gr.Button(visible=now.state == "stopped" and now.curve is not None),
        gr.Timer(active=not now.over),
        *(lists if now.over or arriving else [gr.skip(), gr.skip()]),
    ]


def _lists(page: Page, new: str | None) -> list[Any]:
    """The lists of adapters. A new adapter is selected."""
    choices = page.choices()
    return [gr.Dropdown(choices, value=new) if new else gr.Dropdown(choices), gr.Dropdown(choices)]
