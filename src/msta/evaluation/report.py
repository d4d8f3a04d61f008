"""What a person looks at: film strips, bars, and an HTML page that holds its pictures itself."""

from __future__ import annotations

import base64
from collections.abc import Mapping, Sequence
from importlib import resources
from pathlib import Path
from typing import TYPE_CHECKING, Any

import jinja2
import numpy as np

from msta.evaluation.fonts import png
from msta.files import write_bytes

if TYPE_CHECKING:
    from matplotlib.axes import Axes

BEFORE, AFTER = "#9aa5b1", "#2266aa"
"""Colours of the backbone as it is, and of the adapted one."""


def draw_prediction(
    path: Path,
    frames: np.ndarray,
    truth: str,
    before: Mapping[str, float],
    after: Mapping[str, float],
    *,
    names: tuple[str, str] = ("zero-shot", "adapted"),
    classes: int = 5,
) -> None:
    """A PNG: the clip as a film strip, and below it how likely each model finds the classes.

    Args:
        path: of the PNG.
        frames: uint8 [T, H, W, 3], RGB.
        truth: the clip's class.
        before: class -> probability 0..1, by the backbone as it is.
        after: the same by the adapted model; its most likely classes are shown, and the true one.
        names: of the two models.
        classes: how many are shown.
    """
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    shown = sorted(after, key=lambda name: -after[name])[:classes]
    if truth not in shown:
        shown[-1] = truth
    figure = Figure(figsize=(9, 1.55 + 0.36 * len(shown) + 0.5), dpi=120, layout="constrained")
    FigureCanvasAgg(figure)
    strip, bars = figure.subplots(2, 1, height_ratios=(1.55, 0.36 * len(shown) + 0.5))
    gap = np.full((frames.shape[1], max(2, frames.shape[2] // 24), 3), 255, np.uint8)
    pieces = [piece for frame in frames for piece in (frame, gap)][:-1]
    strip.imshow(np.concatenate(pieces, axis=1), interpolation="lanczos")
    strip.set_axis_off()
    strip.set_title(f"{len(frames)} frames of a clip the adapter has not seen: {truth}", loc="left", fontsize=11)
    _bars(bars, shown, [before, after], names, truth)
    write_bytes(path, png(figure))


def _bars(
    axes: Axes, shown: Sequence[str], models: Sequence[Mapping[str, float]], names: Sequence[str], truth: str
) -> None:
    rows = np.arange(len(shown))
    for i, (model, name, colour) in enumerate(zip(models, names, (BEFORE, AFTER), strict=True)):
        values = [100 * model[c] for c in shown]
        bars = axes.barh(rows + 0.38 * (i - 0.5), values, 0.36, color=colour, label=name)
        axes.bar_label(bars, [f"{v:.0f} %" for v in values], padding=3, fontsize=8)
    axes.set_yticks(rows, [f"{c} \N{CHECK MARK}" if c == truth else c for c in shown])
    axes.invert_yaxis()
    axes.set_xlim(0, 112)
    axes.set_xticks([])
    for side in ("top", "right", "bottom"):
        axes.spines[side].set_visible(False)
    axes.legend(loc="lower right", frameon=False, fontsize=9)


def write_page(path: Path, template: str, pictures: Mapping[str, Path | bytes], **content: Any) -> None:
    """Fill an HTML template of this package. The page needs no other file.

    Args:
        path: of the page.
        template: name of a file in ``evaluation/templates``.
        pictures: name -> PNG or JPEG, put into the page under ``pictures.NAME``.
        content: what else the template names.
    """
    folder = resources.files("msta.evaluation") / "templates"
    loader = jinja2.FunctionLoader(lambda name: (folder / name).read_text(encoding="utf-8"))
    environment = jinja2.Environment(
        loader=loader, autoescape=True, undefined=jinja2.StrictUndefined, trim_blocks=True, lstrip_blocks=True
    )
    inside = {name: embedded(picture) for name, picture in pictures.items()}
    page = environment.get_template(template).render(pictures=inside, **content)
    write_bytes(path, page.encode(errors="backslashreplace"))  # names that are no text


def embedded(picture: Path | bytes) -> str:
    """A PNG or JPEG as a data URI."""
    content = picture if isinstance(picture, bytes) else picture.read_bytes()
    kind = "jpeg" if content.startswith(b"\xff\xd8") else "png"
    return f"data:image/{kind};base64,{base64.b64encode(content).decode()}"
