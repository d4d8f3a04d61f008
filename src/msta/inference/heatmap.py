"""An explanation as pictures: a film strip, and the video with what mattered alight."""

from __future__ import annotations

import io
import os
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from msta.data.catalog import WHOLE, Span
from msta.data.decode import play
from msta.files import new_directory, write_bytes, write_json
from msta.inference.explain import Explanation
from msta.inference.output import clock
from msta.inference.overlay import burn, video_writer


def write_explanation(explanation: Explanation, video: str, out: Path, span: Span = WHOLE) -> dict[str, Any]:
    """Write strip.png, overlay.mp4 and explanation.json into a new folder; return what the last one holds.

    Raises:
        MSTAError: the folder exists with other contents.
    """
    data = {
        "path": video,
        "label": explanation.label,
        "probability": explanation.probability,
        "score": explanation.score,
        "frames": [
            {"time": round(time, 3), "adds": float(adds), "patches": patches.round(5).tolist()}
            for time, adds, patches in zip(explanation.times, explanation.by_frame, explanation.patches, strict=True)
        ],
        "words": [{"word": word, "loses": loss} for word, loss in explanation.words],
    }
    with new_directory(out) as folder:
        film_strip(explanation, folder / "strip.png")
        heat_video(explanation, video, folder / "overlay.mp4", span)
        write_json(folder / "explanation.json", data)
    return data


def summary(data: dict[str, Any], out: Path) -> str:
    """In a few lines: the class, the frames and words that matter most, and where the pictures are."""
    frames = sorted(data["frames"], key=lambda frame: -frame["adds"])[:3]
    lines = [f"{data['label']}  {100 * data['probability']:.1f} % (log-odds {data['score']:+.2f})"]
    lines.append("frames: " + ", ".join(f"{frame['time']:.2f} s {frame['adds']:+.2f}" for frame in frames))
    if data["words"]:
        words = sorted(data["words"], key=lambda word: -word["loses"])
        lines.append("words:  " + ", ".join(f"{word['word']} {word['loses']:+.2f}" for word in words))
    return "\n".join([*lines, f"pictures in {out}"])


def heat(patches: NDArray[np.float64], height: int, width: int) -> NDArray[np.float64]:
    """Patches [rows, columns] in 0..1 -> [height, width], smoothly."""
    from PIL import Image  # comes with matplotlib

    picture = Image.fromarray(patches.astype(np.float32))
    return np.asarray(picture.resize((width, height), Image.Resampling.BICUBIC), np.float64).clip(0, 1)


def alight(frame: NDArray[np.uint8], warmth: NDArray[np.float64]) -> NDArray[np.uint8]:
    """A frame [H, W, 3], darkened and grey where warmth [H, W] is 0, coloured from red to yellow where it is 1."""
    import matplotlib

    colour = matplotlib.colormaps["inferno"](0.35 + 0.6 * warmth)[..., :3] * 255
    grey = np.repeat(frame.mean(2, keepdims=True) * 0.8, 3, axis=2)
    share = (0.75 * warmth)[..., None]
    return ((1 - share) * grey + share * colour).round().clip(0, 255).astype(np.uint8)


def warmth(explanation: Explanation) -> NDArray[np.float64]:
    """[T, rows, columns] in 0..1: what speaks for the class, beside the clip's strongest patches."""
    positive = explanation.patches.clip(0)
    return np.asarray((positive / max(np.quantile(positive, 0.99), 1e-9)).clip(0, 1))


def film_strip(explanation: Explanation, to: Path) -> None:
    """Write a PNG: the frames, the same with what mattered alight, what each adds to the score, and the words."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    count, words = len(explanation.frames), explanation.words
    figure = Figure(figsize=(max(6.0, 1.25 * count), 4.6 if words else 3.9), dpi=130, layout="constrained")
    FigureCanvasAgg(figure)
    grid = figure.add_gridspec(4 if words else 3, count, height_ratios=[3, 3, 2, 1.4][: 4 if words else 3])
    warm = warmth(explanation)
    for i, frame in enumerate(explanation.frames):
        for row, picture in enumerate((frame, alight(frame, heat(warm[i], *frame.shape[:2])))):
            axes = figure.add_subplot(grid[row, i])
            axes.imshow(picture)
            axes.axis("off")
            if row == 0:
                axes.set_title(f"{explanation.times[i]:.2f} s", fontsize=9)
    axes = figure.add_subplot(grid[2, :])
    by_frame = explanation.by_frame
    axes.bar(range(count), by_frame, 0.7, color=["#c2410c" if v > 0 else "#64748b" for v in by_frame])
    axes.axhline(0, color="#1f2933", linewidth=0.8)
    axes.set_xlim(-0.5, count - 0.5)
    axes.set_xticks([])
    axes.set_ylabel("adds to the\nlog-odds", fontsize=9)
    axes.tick_params(labelsize=8)
    for side in ("top", "right", "bottom"):
        axes.spines[side].set_visible(False)
    if words:
        _draw_words(figure.add_subplot(grid[3, :]), words)
    figure.suptitle(f"{explanation.label}: {100 * explanation.probability:.0f} %", fontsize=12)
    stream = io.BytesIO()
    figure.savefig(stream, format="png", metadata={"Software": None})
    write_bytes(to, stream.getvalue())


def _draw_words(axes: Any, words: list[tuple[str, float]]) -> None:
    """Side by side, the warmer the more the score loses without it, bluish where it gains."""
    strongest = max(abs(loss) for _, loss in words) or 1.0
    axes.axis("off")
    lengths = np.array([len(word) + 3 for word, _ in words], float)
    places = (np.cumsum(lengths) - lengths / 2) / lengths.sum()
    for (word, loss), place in zip(words, places, strict=True):
        share = abs(loss) / strongest
        colour = (1.0, 0.75, 0.5, share) if loss > 0 else (0.65, 0.75, 0.9, share)
        axes.text(
            place, 0.5, f"{word}\n{loss:+.2f}", ha="center", va="center", fontsize=10,
            bbox={"facecolor": colour, "edgecolor": "none", "boxstyle": "round,pad=0.3"},
        )  # fmt: skip


def heat_video(explanation: Explanation, video: str | os.PathLike[str], to: Path, span: Span = WHOLE) -> None:
    """Write an MP4 of the video, or of the part that was explained, with what mattered alight, blended over time."""
    warm, times = warmth(explanation), np.array(explanation.times)
    start, end = span[0] or 0.0, np.inf if span[1] is None else span[1]
    says = f"{explanation.label}  {100 * explanation.probability:.0f} %"
    with video_writer(to) as write:
        for frame in play(video, 480):
            if frame.start < start or frame.start >= end:
                continue
            picture = frame.picture()
            now = np.stack([np.interp(frame.start, times, column) for column in warm.reshape(len(times), -1).T])
            height, width, _ = picture.shape
            whole = _over_the_frame(now.reshape(warm.shape[1:]), height, width, explanation.fit)
            write(burn(alight(picture, whole), [f"{says}   {clock(frame.start)}"]), frame.start - start)


def _over_the_frame(patches: NDArray[np.float64], height: int, width: int, fit: str) -> NDArray[np.float64]:
    """Where the model's square lies in the frame; what it did not see is cold."""
    if fit == "squash":
        return heat(patches, height, width)
    side = min(height, width)
    whole = np.zeros((height, width))
    top, left = round((height - side) / 2), round((width - side) / 2)
    whole[top : top + side, left : left + side] = heat(patches, side, side)
    return whole
