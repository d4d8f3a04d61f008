"""The pictures of a protocol's report, each as PNG or JPEG bytes: legible on a telephone."""

from __future__ import annotations

import io
from collections.abc import Mapping, Sequence
from itertools import cycle
from typing import TYPE_CHECKING, Any, Literal

import numpy as np

from msta.evaluation.fonts import png
from msta.evaluation.metrics import Array, Integers, reliability
from msta.evaluation.predictions import Predictions
from msta.notices import notice

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

WIDTH, DPI = 4.6, 150
"""Inches; a page gives a picture half of its width, or all of a telephone's."""
BEFORE, AFTER = "#9aa5b1", "#2266aa"
"""Colours of the backbone as it is, and of the adapted one."""
COLOURS = (BEFORE, AFTER, "#d97706", "#047857", "#9333ea", "#be123c", "#0891b2", "#4d7c0f")
LABELLED = 40
"""With more classes than this, an axis does not name them."""


def blank(
    height: float, width: float = WIDTH, rows: int = 1, columns: int = 1, *, dpi: int = DPI, **grid: Any
) -> tuple[Figure, list[Axes]]:
    """A figure of so many inches, and its axes, row by row; ``grid`` goes to matplotlib's ``subplots``."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    figure = Figure(figsize=(width, height), dpi=dpi, layout="constrained")
    FigureCanvasAgg(figure)
    axes = list(figure.subplots(rows, columns, squeeze=False, **grid).ravel())
    for each in axes:
        each.tick_params(labelsize=9)
        each.xaxis.label.set_size(9)
        each.yaxis.label.set_size(9)
        for side in ("top", "right"):
            each.spines[side].set_visible(False)
    return figure, axes


def percent(axes: Axes, *which: Literal["x", "y"]) -> None:
    """Keep axes of percentages within 0 to 100. Marks at the ends are drawn whole."""
    for name in which:
        low, high = getattr(axes, f"get_{name}lim")()
        getattr(axes, f"set_{name}lim")(max(0, low), min(100, high))
    for mark in (*axes.lines, *axes.collections):
        mark.set_clip_on(False)


def case(row: dict[str, Any]) -> str:
    """The data set and set that a row is about, in words."""
    shots = f"{row['shots']} shots" if row["shots"] and not row["set"] else ""
    return str(row["set"] or shots)


def accuracy_by_shots(rows: Sequence[dict[str, Any]]) -> bytes:
    """Top-1 against shots, one line per method, with intervals; a method without training is a horizontal line."""
    figure, (axes,) = blank(3.2)
    shots = sorted({row["shots"] for row in rows if row["shots"]})
    for colour, method in zip(cycle(COLOURS), dict.fromkeys(row["label"] for row in rows), strict=False):
        own = sorted((r for r in rows if r["label"] == method), key=lambda r: r["shots"] or 0)
        if own[0]["shots"] is None:
            axes.axhline(own[0]["top1"], color=colour, linestyle="--", label=method)
            axes.axhspan(own[0]["low"], own[0]["high"], color=colour, alpha=0.12, linewidth=0)
            continue
        mean = np.array([r["top1"] for r in own])
        error = [mean - [r["low"] for r in own], [r["high"] for r in own] - mean]
        axes.errorbar(
            [shots.index(r["shots"]) for r in own], mean, error, color=colour, marker="o", capsize=3, label=method
        )
    axes.set_xticks(range(len(shots)), [str(s) for s in shots])
    axes.set(xlabel="clips per class", ylabel="top-1, %")
    percent(axes, "y")
    axes.legend(frameon=False, fontsize=9)
    return png(figure)


def accuracy_bars(rows: Sequence[dict[str, Any]]) -> bytes:
    """Top-1 of each row with its interval."""
    figure, (axes,) = blank(0.7 + 0.36 * len(rows))
    methods = list(dict.fromkeys(row["label"] for row in rows))
    for i, row in enumerate(rows):
        error = [[row["top1"] - row["low"]], [row["high"] - row["top1"]]]
        colour = COLOURS[methods.index(row["label"]) % len(COLOURS)]
        axes.barh(i, row["top1"], 0.72, color=colour, xerr=error, error_kw={"capsize": 3, "ecolor": "#1f2933"})
    axes.set_yticks(range(len(rows)), [", ".join(filter(None, (row["label"], case(row)))) for row in rows])
    axes.invert_yaxis()
    axes.set(xlim=(0, 100), xlabel="top-1, %")
    return png(figure)


def trainable_share(rows: Sequence[dict[str, Any]]) -> bytes:
    """Top-1 against the share of the parameters that train."""
    figure, (axes,) = blank(3.0)
    axes.set_xscale("symlog", linthresh=0.01)
    for colour, method in zip(cycle(COLOURS), dict.fromkeys(row["label"] for row in rows), strict=False):
        own = [row for row in rows if row["label"] == method]
        axes.scatter([r["share"] for r in own], [r["top1"] for r in own], color=colour, label=method, zorder=3)
    axes.set_xlim(0, 100)
    axes.set_xticks([0, 0.01, 0.1, 1, 10, 100], ["0", "0.01", "0.1", "1", "10", "100"])
    axes.set(xlabel="trained parameters, % of all", ylabel="top-1, %")
    percent(axes, "y")
    axes.grid(alpha=0.25)
    axes.legend(frameon=False, fontsize=9)
    return png(figure)


def pareto_front(at: Mapping[str, tuple[float, float]], x: str, y: str, *, logarithmic: bool) -> bytes:
    """Names at (cost, accuracy). A line joins those that no other beats in both."""
    figure, (axes,) = blank(3.6)
    if logarithmic:
        axes.set_xscale("symlog", linthresh=0.01)
    best = -np.inf
    front = []
    for name in sorted(at, key=lambda name: (at[name][0], -at[name][1])):
        if at[name][1] > best:
            best = at[name][1]
            front.append(name)
    axes.plot(*zip(*(at[name] for name in front), strict=True), color="#9aa5b1", linewidth=1, drawstyle="steps-post")
    for name, (cost, accuracy) in at.items():
        axes.scatter(cost, accuracy, color=AFTER if name in front else BEFORE, zorder=3)
    axes.margins(x=0.22, y=0.12)
    axes.set(xlabel=x, ylabel=y)
    percent(axes, "y")
    axes.grid(alpha=0.25)
    figure.draw_without_rendering()  # the layout moves the points
    _name_points(axes, at)
    return png(figure)


def _name_points(axes: Axes, at: Mapping[str, tuple[float, float]]) -> None:
    """Write each name beside its point, on a side where no other name or point is, if there is one."""
    from matplotlib.transforms import Bbox

    sides = ((5, 4, "left"), (5, -10, "left"), (-5, 4, "right"), (-5, -10, "right"))
    taken = [Bbox([place - 4, place + 4]) for place in axes.transData.transform(list(at.values()))]
    for name, point in sorted(at.items(), key=lambda each: -each[1][0]):  # names run to the right: from there
        text = axes.annotate(name, point, (0, 0), textcoords="offset points", fontsize=7.5)
        for dx, dy, side in (*sides, sides[0]):
            text.set(position=(dx, dy), horizontalalignment=side)
            box = text.get_window_extent()
            if not any(box.overlaps(other) for other in taken):
                break
        taken.append(box)


def learning_curves(logs: Mapping[str, Sequence[dict[str, Any]]]) -> bytes:
    """Mean loss of each epoch above; below top-1 on the validation and, if they were watched, the test clips.

    Without validation there is no lower part.
    """
    validated = any("loss" not in line for log in logs.values() for line in log)
    figure, panels = blank(4.2 if validated else 2.4, rows=2 if validated else 1)
    above, below = panels[0], panels[-1]
    for colour, (name, log) in zip(cycle(COLOURS[1:]), logs.items(), strict=False):
        by_epoch: dict[int, list[float]] = {}
        for line in log:
            if "loss" in line:
                by_epoch.setdefault(line["epoch"] + 1, []).append(line["loss"])
        mean = [np.mean(v) for v in by_epoch.values()]
        above.plot(list(by_epoch), mean, color=colour, label=name, marker="." if len(mean) == 1 else None)
        for part, style in (("val", "-"), ("test", ":")):
            measured = [(line["epoch"], line[part]["top1"]) for line in log if "top1" in line.get(part, {})]
            if measured:
                below.plot(*zip(*measured, strict=True), style, color=colour, marker=".", markersize=4)
    last = max((line["epoch"] + ("loss" in line) for log in logs.values() for line in log), default=0)
    for axes in (above, below):
        axes.set_xlim(0.5, max(2, last) + 0.5)
        axes.locator_params(axis="x", integer=True)
    above.set_ylabel("loss")
    if validated:
        below.set_ylabel("top-1, %")
        percent(below, "y")
    below.set_xlabel("epoch (below: validation; dotted: test, if watched)" if validated else "epoch")
    above.legend(frameon=False, fontsize=8)
    return png(figure)


def confusion_matrix(counts: Integers, classes: Sequence[str]) -> bytes:
    """One row per true class, in shares of its clips."""
    many = len(classes) > LABELLED
    side = 4.6 if many else max(WIDTH, 0.27 * len(classes) + 1.9)
    figure, (axes,) = blank(side, side)
    share = counts / np.maximum(counts.sum(1, keepdims=True), 1)
    axes.imshow(share, cmap="Blues", vmin=0, vmax=1, interpolation="nearest")
    if not many:
        axes.set_xticks(range(len(classes)), classes, rotation=90)
        axes.set_yticks(range(len(classes)), classes)
        for i, j in np.argwhere(counts > 0) if len(classes) <= 25 else ():
            colour = "white" if share[i, j] > 0.5 else "#1f2933"
            axes.text(j, i, str(counts[i, j]), ha="center", va="center", fontsize=8, color=colour)
    axes.set(xlabel="predicted", ylabel="true")
    return png(figure)


def class_bars(values: Mapping[str, Array], classes: Sequence[str]) -> bytes:
    """Accuracy of each class, one bar per method. If there are many classes: those that the last method is worst at."""
    last = list(values.values())[-1]
    order = np.argsort(last, kind="stable")
    order = order[~np.isnan(last[order])][:LABELLED]
    figure, (axes,) = blank(1.0 + 0.16 * (1 + len(values)) * len(order))
    for k, (name, each) in enumerate(values.items()):
        at = np.arange(len(order)) + (k - (len(values) - 1) / 2) * 0.8 / len(values)
        axes.barh(at, each[order], 0.76 / len(values), color=COLOURS[k % len(COLOURS)], label=name)
    axes.set_yticks(range(len(order)), [classes[i] for i in order])
    axes.invert_yaxis()
    axes.set(xlim=(0, 100), xlabel="right, % of the class's clips")
    figure.legend(loc="outside upper center", ncols=2, frameon=False, fontsize=9)
    return png(figure)


def reliability_diagram(curves: Mapping[str, tuple[Array, Integers]]) -> bytes:
    """Accuracy against confidence; on the diagonal both are equal. ``curves``: name -> probabilities, labels."""
    figure, (axes,) = blank(3.4)
    axes.plot([0, 100], [0, 100], color="#9aa5b1", linewidth=1)
    for colour, (name, (probabilities, labels)) in zip(COLOURS[1:], curves.items(), strict=False):
        confidence, right, share = reliability(probabilities, labels, 10)
        seen = share > 0
        axes.plot(100 * confidence[seen], 100 * right[seen], color=colour, linewidth=1, label=name)
        axes.scatter(100 * confidence[seen], 100 * right[seen], s=8 + 250 * share[seen], color=colour, alpha=0.6)
    axes.set(xlabel="confidence, % (larger: more clips)", ylabel="right, %")
    percent(axes, "x", "y")
    axes.legend(frameon=False, fontsize=9)
    return png(figure)


def embedding_map(predictions: Predictions, most: int = 2000) -> bytes | None:
    """t-SNE of the clips' embeddings; filled: right, open: wrong.

    None if there are no embeddings or too few, or if scikit-learn is not installed, with a notice.
    """
    embeddings = predictions.embeddings
    if embeddings is None or len(embeddings) < 5:
        return None
    try:
        from sklearn.manifold import TSNE
    except ImportError:
        notice("The page has no map of the embeddings: that needs scikit-learn (pip install 'msta[map]').")
        return None
    chosen = np.linspace(0, len(embeddings) - 1, min(most, len(embeddings))).astype(int)
    unit = embeddings[chosen] / np.linalg.norm(embeddings[chosen], axis=1, keepdims=True)
    perplexity = min(30.0, (len(chosen) - 1) / 3)
    at = TSNE(perplexity=perplexity, init="pca", random_state=0, metric="cosine").fit_transform(unit)
    labels, right = predictions.labels[chosen], predictions.predicted[chosen] == predictions.labels[chosen]
    import matplotlib

    palette = matplotlib.colormaps["tab20"]
    classes = predictions.classes
    named = len(classes) <= 20
    figure, (axes,) = blank(3.6 + (0.19 * ((len(classes) + 1) // 2) if named else 0))
    for label in np.unique(labels):
        own, colour = labels == label, palette(label % 20)
        axes.scatter(at[own & right, 0], at[own & right, 1], s=22, color=colour, label=classes[label])
        axes.scatter(at[own & ~right, 0], at[own & ~right, 1], s=22, facecolors="none", edgecolors=[colour])
    axes.set(xticks=[], yticks=[])
    for side in ("left", "bottom"):
        axes.spines[side].set_visible(False)
    if named:
        figure.legend(loc="outside lower center", ncols=2, frameon=False, fontsize=8)
    return png(figure)


def film_strip(frames: np.ndarray) -> bytes:
    """uint8 [T, H, W, 3] side by side, as JPEG."""
    from PIL import Image  # comes with matplotlib

    stream = io.BytesIO()
    Image.fromarray(_side_by_side(frames, 3)).save(stream, "JPEG", quality=82)
    return stream.getvalue()


def prediction(
    frames: np.ndarray,
    truth: str,
    before: Mapping[str, float],
    after: Mapping[str, float],
    *,
    names: tuple[str, str],
    classes: int = 5,
) -> bytes:
    """The clip as a film strip, and below it how likely each model finds the classes.

    Args:
        frames: uint8 [T, H, W, 3], RGB.
        truth: the clip's class.
        before: class -> probability 0..1, by the backbone as it is.
        after: the same by the adapted model; its most likely classes are shown, and the true one.
        names: of the two models.
        classes: how many classes are shown.
    """
    shown = sorted(after, key=lambda name: -after[name])[:classes]
    if truth not in shown:
        shown[-1] = truth
    half = -(-len(frames) // 2)  # two rows, so that a telephone shows them well
    white = np.full((2 * half - len(frames), *frames.shape[1:]), 255, np.uint8)
    halves = frames[:half], np.concatenate([frames[half:], white])
    rows_of_frames = [_side_by_side(part, max(2, frames.shape[2] // 24)) for part in halves]
    heights = (2 * (WIDTH * frames.shape[1] / rows_of_frames[0].shape[1]) + 0.5, 0.42 * len(shown) + 0.7)
    figure, (strip, bars) = blank(sum(heights), rows=2, height_ratios=heights)
    strip.imshow(np.concatenate(rows_of_frames), interpolation="lanczos")
    strip.set_axis_off()
    strip.set_title(f"A clip the adapter has not seen: {truth}", loc="left", fontsize=10)
    rows = np.arange(len(shown))
    for i, (model, name, colour) in enumerate(zip((before, after), names, (BEFORE, AFTER), strict=True)):
        values = [100 * model[c] for c in shown]
        drawn = bars.barh(rows + 0.38 * (i - 0.5), values, 0.36, color=colour, label=name)
        bars.bar_label(drawn, [f"{v:.0f} %" for v in values], padding=3, fontsize=8)
    bars.set_yticks(rows, [f"{c} \N{CHECK MARK}" if c == truth else c for c in shown], fontsize=9)
    bars.invert_yaxis()
    bars.set(xlim=(0, 112), xticks=[])
    bars.spines["bottom"].set_visible(False)
    figure.legend(loc="outside lower left", frameon=False, fontsize=8)
    return png(figure)


def _side_by_side(frames: np.ndarray, gap: int) -> np.ndarray:
    """uint8 [T, H, W, 3] -> [H, T * (W + gap) - gap, 3], white between the frames."""
    white = np.full((frames.shape[1], gap, 3), 255, np.uint8)
    return np.concatenate([piece for frame in frames for piece in (frame, white)][:-1], axis=1)
