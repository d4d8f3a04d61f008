"""The third tab: a sentence -> moments in a folder."""

from __future__ import annotations

from typing import Any

import gradio as gr

from msta.app import render
from msta.app.page import COMPUTING, NONE, QUICK, Page, chosen, placeholder
from msta.app.searching import SearchResult, playable, search


def search_tab(page: Page) -> gr.Dropdown:
    """Build the tab. Returns the list of adapters, to which trained ones are added."""
    with gr.Row(equal_height=True):
        query = gr.Textbox(
            label="What to look for", placeholder="someone falls", scale=3, min_width=280, elem_id="msta-query"
        )
        go = gr.Button("Search", variant="primary", min_width=120, elem_id="msta-search")
    with gr.Row():
        folder = gr.Textbox(
            str(page.folder or ""), label="In the folder", placeholder="/home/me/videos", scale=2, min_width=280,
            elem_id="msta-in", info="The first search reads all videos into an index, which takes a while.",
        )  # fmt: skip
        adapter = gr.Dropdown(page.choices(), value=NONE, label="Adapter", filterable=False, min_width=240)
        window = gr.Slider(0.5, 30, 4, step=0.5, label="A moment, s", min_width=240)
    player = gr.Video(visible=False, label="The moment", autoplay=True, height=300, elem_id="msta-player")
    found = gr.HTML(placeholder("The moments appear here."), min_height=90, elem_id="msta-moments")
    result = gr.State(None)
    picked = gr.Textbox(visible="hidden", elem_id="msta-moment")

    def look(
        query: str,
        folder: str,
        adapter: str,
        window: float,
        progress: gr.Progress = gr.Progress(),  # noqa: B008
    ) -> list[Any]:
        def tell(number: int, count: int, path: str) -> None:
            progress((number - 1, count), desc=path, unit="videos")

        got, problem = page.attempt(
            lambda: search(page.models, query, folder, chosen(adapter), window=window, tell=tell)
        )
        return [problem if got is None else render.moments(got), got, gr.Video(visible=False)]

    def play(result: SearchResult | None, picked: str) -> Any:
        if result is None or not picked:
            return gr.skip()
        file, _ = page.attempt(lambda: playable(result, int(picked.split()[0]), page.scratch / "moments"))
        return gr.Video(file, visible=file is not None)

    for event in (go.click, query.submit):
        event(look, [query, folder, adapter, window], [found, result, player], **COMPUTING)
    picked.change(play, [result, picked], player, **QUICK).then(
        None, js="() => document.querySelector('#msta-player')?.scrollIntoView({behavior: 'smooth', block: 'nearest'})",
        api_visibility="private",
    )  # fmt: skip
    return adapter
