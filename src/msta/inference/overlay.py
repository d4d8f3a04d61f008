"""What is drawn into frames: the labels of a timeline, and an explanation as a film strip and as heatmaps."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from fractions import Fraction
from functools import lru_cache
from pathlib import Path
from typing import Any

import av
import numpy as np
from numpy.typing import NDArray

from msta.data.catalog import WHOLE, Span
from msta.data.decode import play, probe
from msta.errors import MSTAError
from msta.evaluation.fonts import font_files, font_runs, own_font, png
from msta.files import new_directory, replacing, write_bytes, write_json
from msta.inference.explain import Explanation
from msta.inference.output import UNKNOWN, clock
from msta.inference.segments import Segment
from msta.inference.windows import until_broken

_TICK = Fraction(1, 90_000)
_MOST_PIXELS = 1080  # of the short side


# ---------------------------------------------------------------- labels


def write_overlay(video: str, to: Path, lines: Sequence[tuple[str | None, Sequence[Segment]]]) -> None:
    """Write an MP4 (H.264) of the video, without sound, with labels at the bottom.

    Args:
        video: a file. It is decoded again, because a timeline sees it only in a small size.
        to: the new file.
        lines: for each line of text a name to put before it, or None, and the segments in order.

    Raises:
        DecodeError: the video cannot be read.
        MSTAError: the name of the new file does not end in .mp4.
    """
    info = probe(video)
    font_files("".join({segment.label or "" for _, own in lines for segment in own}))  # one notice for all of them
    with video_writer(to) as write:
        for frame in until_broken(play(video, min(_MOST_PIXELS, info.width, info.height))):
            text = [_text(name, segment) for name, own in lines if (segment := _at(own, frame.start))]
            write(draw_text(frame.picture(), text), frame.start)


def _at(segments: Sequence[Segment], time: float) -> Segment | None:
    return next((s for s in segments if s.start <= time < s.end), segments[-1] if segments else None)


def _text(name: str | None, segment: Segment) -> str:
    label = UNKNOWN if segment.label is None else f"{segment.label}  {100 * segment.probability:.0f} %"
    return label if name is None else f"{name}: {label}"


@contextmanager
def video_writer(to: Path) -> Iterator[Callable[[NDArray[np.uint8], float], None]]:
    """Gives a function that writes a frame, uint8 [H, W, 3], at a time in seconds. All frames have one size.

    Raises MSTAError if the name of the file does not end in .mp4.
    """
    if to.suffix.lower() != ".mp4":
        raise MSTAError(f"{to}: the video's name must end in .mp4")
    with replacing(to) as aside, av.open(os.fspath(aside), "w", format="mp4") as container:
        stream: Any = container.add_stream("libx264", rate=30, options={"preset": "veryfast", "crf": "21"})
        stream.pix_fmt, stream.codec_context.time_base = "yuv420p", _TICK
        latest = -1

        def write(frame: NDArray[np.uint8], seconds: float) -> None:
            nonlocal latest
            height, width = (side // 2 * 2 for side in frame.shape[:2])  # H.264 stores colours at half the size
            if latest < 0:
                stream.height, stream.width = height, width
            picture = av.VideoFrame.from_ndarray(np.ascontiguousarray(frame[:height, :width]), format="rgb24")
            latest = max(latest + 1, round(seconds / _TICK))
            picture.pts, picture.time_base = latest, _TICK
            container.mux(stream.encode(picture))

        yield write
        if latest >= 0:
            container.mux(stream.encode())


def draw_text(frame: NDArray[np.uint8], lines: Sequence[str]) -> NDArray[np.uint8]:
    """Draw lines of text on a dark band at the bottom of a frame [H, W, 3]."""
    from PIL import Image, ImageDraw  # comes with matplotlib

    if not lines:
        return frame
    height, width = frame.shape[:2]
    picture = Image.fromarray(frame)
    draw = ImageDraw.Draw(picture, "RGBA")
    size = max(10, min(height // 16, 40))
    line = size + size // 2
    top = height - line * len(lines)
    draw.rectangle((0, top, width, height), fill=(0, 0, 0, 170))
    ascent, _ = _font(own_font(), size).getmetrics()
    for i, text in enumerate(lines):
        left, baseline = float(size // 2), top + i * line + size // 8 + ascent
        for file, piece in font_runs(text):
            font = _font(file, size)
            draw.text((left, baseline), piece, font=font, fill=(255, 255, 255), anchor="ls")
            left += font.getlength(piece)
    return np.asarray(picture)


@lru_cache(maxsize=32)
def _font(file: str, pixels: int) -> Any:
    from PIL import ImageFont

    return ImageFont.truetype(file, pixels)


# ---------------------------------------------------------------- explanations


def write_explanation(explanation: Explanation, video: str, out: Path, span: Span = WHOLE) -> dict[str, Any]:
    """Write strip.png, overlay.mp4 and explanation.json into a new folder, and return the content of the last.

    Raises MSTAError if the folder exists with other contents.
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
        write_film_strip(explanation, folder / "strip.png")
        write_heatmap_video(explanation, video, folder / "overlay.mp4", span)
        write_json(folder / "explanation.json", data)
    return data


def summary(data: dict[str, Any], out: Path) -> str:
    """A few lines: the class, the frames and words that matter most, and where the pictures are."""
    frames = sorted(data["frames"], key=lambda frame: -frame["adds"])[:3]
    lines = [f"{data['label']}  {100 * data['probability']:.1f} % (log-odds {data['score']:+.2f})"]
    lines.append("frames: " + ", ".join(f"{frame['time']:.2f} s {frame['adds']:+.2f}" for frame in frames))
    if data["words"]:
        words = sorted(data["words"], key=lambda word: -word["loses"])
        lines.append("words:  " + ", ".join(f"{word['word']} {word['loses']:+.2f}" for word in words))
    return "\n".join([*lines, f"pictures in {out}"])


def patch_heatmaps(explanation: Explanation) -> NDArray[np.float64]:
    """[T, rows, columns] in 0..1: the patches that speak for the class, relative to the strongest of the clip."""
    positive = explanation.patches.clip(0)
    return np.asarray((positive / max(np.quantile(positive, 0.99), 1e-9)).clip(0, 1))


def resize_heatmap(patches: NDArray[np.float64], height: int, width: int) -> NDArray[np.float64]:
    """Patches [rows, columns] in 0..1 -> pixels [height, width], interpolated."""
    from PIL import Image  # comes with matplotlib

    picture = Image.fromarray(patches.astype(np.float32))
    return np.asarray(picture.resize((width, height), Image.Resampling.BICUBIC), np.float64).clip(0, 1)


def overlay_heatmap(frame: NDArray[np.uint8], heatmap: NDArray[np.float64]) -> NDArray[np.uint8]:
    """Draw a heatmap [H, W] over a frame [H, W, 3]: dark grey where it is 0, red to yellow towards 1."""
    import matplotlib

    colour = matplotlib.colormaps["inferno"](0.35 + 0.6 * heatmap)[..., :3] * 255
    grey = np.repeat(frame.mean(2, keepdims=True) * 0.8, 3, axis=2)
    share = (0.75 * heatmap)[..., None]
    return ((1 - share) * grey + share * colour).round().clip(0, 255).astype(np.uint8)


def write_film_strip(explanation: Explanation, to: Path) -> None:
    """Write a PNG: the frames, the frames with their heatmaps, how much each raises the score, and the words."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    count, words = len(explanation.frames), explanation.words
    figure = Figure(figsize=(max(6.0, 1.25 * count), 4.6 if words else 3.9), dpi=130, layout="constrained")
    FigureCanvasAgg(figure)
    grid = figure.add_gridspec(4 if words else 3, count, height_ratios=[3, 3, 2, 1.4][: 4 if words else 3])
    heatmaps = patch_heatmaps(explanation)
    for i, frame in enumerate(explanation.frames):
        for row, picture in enumerate((frame, overlay_heatmap(frame, resize_heatmap(heatmaps[i], *frame.shape[:2])))):
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
    write_bytes(to, png(figure))


def _draw_words(axes: Any, words: list[tuple[str, float]]) -> None:
    """Draw the words side by side: orange if the score falls without them, blue if it rises."""
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


def write_heatmap_video(explanation: Explanation, video: str | os.PathLike[str], to: Path, span: Span = WHOLE) -> None:
    """Write an MP4 of the explained part of the video under its heatmaps, interpolated over time."""
    heatmaps, times = patch_heatmaps(explanation), np.array(explanation.times)
    start, end = span[0] or 0.0, np.inf if span[1] is None else span[1]
    title = f"{explanation.label}  {100 * explanation.probability:.0f} %"
    with video_writer(to) as write:
        for frame in until_broken(play(video, 480)):
            if frame.end <= start or frame.start >= end:
                continue
            picture = frame.picture()
            now = np.stack([np.interp(frame.start, times, patch) for patch in heatmaps.reshape(len(times), -1).T])
            height, width, _ = picture.shape
            heatmap = _frame_heatmap(now.reshape(heatmaps.shape[1:]), height, width, explanation.fit)
            text = f"{title}   {clock(frame.start)}"
            write(draw_text(overlay_heatmap(picture, heatmap), [text]), max(0.0, frame.start - start))


def _frame_heatmap(patches: NDArray[np.float64], height: int, width: int, fit: str) -> NDArray[np.float64]:
    """The heatmap of a whole frame, which is 0 where the frame was cropped."""
    if fit == "squash":
        return resize_heatmap(patches, height, width)
    side = min(height, width)
    whole = np.zeros((height, width))
    top, left = round((height - side) / 2), round((width - side) / 2)
    whole[top : top + side, left : left + side] = resize_heatmap(patches, side, side)
    return whole
