"""The page and its tabs. No logic: what a button calls is a function of the modules beside this one."""

from __future__ import annotations

from html import escape
from pathlib import Path

import gradio as gr

from msta.app.page import QUICK, Page
from msta.app.predict_tab import predict_tab
from msta.app.search_tab import search_tab
from msta.app.train_tab import progress, train_tab


def build(page: Page) -> gr.Blocks:
    """The page, ready to be launched."""
    backbone = escape(Path(str(page.models.backbone.source)).name)
    with gr.Blocks(title="msta", analytics_enabled=False, delete_cache=(3600, 24 * 3600)) as blocks:
        gr.HTML(f'<header class="msta-head"><h1>msta</h1><p>what happens in a video; backbone: {backbone}</p></header>')
        with gr.Tabs():
            with gr.Tab("Predict"):
                picked = predict_tab(page)
            with gr.Tab("Train"):
                timer, watched = train_tab(page)
            with gr.Tab("Search"):
                searched = search_tab(page)
        shown = [*watched, timer, picked, searched]
        timer.tick(lambda: progress(page), None, shown, **QUICK)
        blocks.load(lambda: progress(page, arriving=True), None, shown, **QUICK)
    return blocks
