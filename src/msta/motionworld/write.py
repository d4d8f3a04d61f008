"""MotionWorld as a data set on disk: MP4 files in class folders, and descriptions in the authors' format."""

from __future__ import annotations

from collections.abc import Sequence
from fractions import Fraction
from pathlib import Path
from typing import Any

import av
import numpy as np

from msta.errors import ConfigError, MSTAError
from msta.files import new_directory, refuse_existing, write_json
from msta.motionworld.captions import class_name, descriptions
from msta.motionworld.motions import MEANING, check_motions
from msta.motionworld.world import Domain, MotionWorld, WorldConfig


def write_dataset(
    out: Path,
    motions: Sequence[str],
    clips_per_class: int,
    *,
    size: int = 128,
    frames_per_clip: int = 32,
    fps: int = 12,
    seed: int = 0,
    domain: Domain | str = "shifted",
    busy: float = 1.0,
    sentences: int = 4,
) -> None:
    """Write class folders of MP4 files, ``descriptions.json`` and ``classes.csv``.

    Files are called ``out``/swipe_left/swipe_left_000.mp4 and so on.

    Classes come in the alphabetical order of their folders, in which ``classes.csv`` lists them with their names ("draw
    a circle"). ``descriptions.json`` is a bank, see :mod:`msta.descriptions.bank`; ``descriptions_s.json`` and
    ``descriptions_t.json`` hold its sentences in the authors' format. ``out`` appears complete or not at all.

    Args:
        out: a folder that is absent or empty.
        motions: names from ALL_MOTIONS.
        clips_per_class: at least 1.
        size: height and width in pixels, even.
        frames_per_clip: at least 1.
        fps: frames per second.
        seed: of everything random; clip j of a class is the same whichever classes are written with it.
        domain: as in :class:`WorldConfig`.
        busy: as in :class:`WorldConfig`.
        sentences: the most of either kind for each class.

    Raises:
        ConfigError: an unknown motion, a number out of range.
        MSTAError: ``out`` exists, or cannot be written.
    """
    for name, value in (("clips_per_class", clips_per_class), ("fps", fps), ("sentences", sentences)):
        if not isinstance(value, int) or value < 1:
            raise ConfigError(f"{name}: expected a whole number of at least 1, got {value!r}")
    motions = check_motions(motions)
    config = WorldConfig(size, frames_per_clip, domain, motions, busy, captions=1, grid=1)
    if size % 2:
        raise ConfigError(f"size: expected an even number, since H.264 halves the colour resolution, got {size}")
    refuse_existing(Path(out))
    world = MotionWorld(config, seed)
    folders = {motion.replace(" ", "_"): motion for motion in motions}
    spatial, temporal, bank, names = {}, {}, {}, ["id,name"]
    try:
        with new_directory(out) as aside:
            for label, (folder, motion) in enumerate(sorted(folders.items())):
                seen, happening = spatial[str(label)], temporal[str(label)] = descriptions(motion, sentences)
                bank[class_name(motion)] = {"spatial": seen, "temporal": happening, "model": "MotionWorld"}
                names.append(f"{folder},{class_name(motion)}")
                (aside / folder).mkdir()
                for j in range(clips_per_class):
                    clip = world.clip(j + _first_index(motion), motion)
                    _write_mp4(aside / folder / f"{folder}_{j:03d}.mp4", clip.video, fps)
            write_json(aside / "descriptions_s.json", spatial)
            write_json(aside / "descriptions_t.json", temporal)
            write_json(aside / "descriptions.json", {"format": "msta-descriptions-1", "classes": bank})
            (aside / "classes.csv").write_text("\n".join(names) + "\n")
    except (OSError, av.FFmpegError) as error:
        raise MSTAError(f"{out}: cannot be written ({error.strerror or error})") from error


def _first_index(motion: str) -> int:
    """Classes draw from far-apart stretches of the world: no two share a background."""
    return MEANING[motion] << 32


def _write_mp4(path: Path, video: np.ndarray, fps: int) -> None:
    """uint8 [T, 3, H, W] -> H.264."""
    with av.open(str(path), "w") as container:
        stream: Any = container.add_stream("libx264", rate=Fraction(fps))
        stream.height, stream.width = video.shape[-2:]
        stream.pix_fmt = "yuv420p"
        stream.codec_context.thread_count = 1
        # x264's macroblock tree gives small clips other bytes from run to run (3 kinds in 25 runs at 32 px)
        stream.options = {"preset": "veryfast", "crf": "20", "x264-params": "mbtree=0:bframes=0:threads=1"}
        for frame in video.transpose(0, 2, 3, 1):
            container.mux(stream.encode(av.VideoFrame.from_ndarray(np.ascontiguousarray(frame), format="rgb24")))
        container.mux(stream.encode())
