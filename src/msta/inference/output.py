"""Predictions as text: a table, JSON, CSV, subtitles (SRT), an ELAN document."""

from __future__ import annotations

import csv
import io
import os
import xml.etree.ElementTree as ET
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from datetime import datetime, timezone
from pathlib import Path
from typing import Any
from urllib.parse import quote

from msta.errors import is_text, one_line
from msta.inference.predictor import Prediction
from msta.inference.segments import Segment
from msta.inference.timeline import Timeline

UNKNOWN = "(unknown)"


@dataclass(frozen=True)
class Result:
    """The answer of one adapter about one video: ``predictions``, or a ``timeline``, or an ``error``."""

    path: str
    adapter: str | None = None  # its name, if there are several
    predictions: Sequence[Prediction] = ()
    unknown: bool | None = None  # whether the best class is not likely enough; None: there is no threshold
    timeline: Timeline | None = None
    error: str | None = None

    @property
    def label(self) -> str | None:
        """The likeliest class; None without predictions."""
        return self.predictions[0].label if self.predictions else None

    @property
    def name(self) -> str:
        """The video, and the adapter if there are several."""
        return self.path if self.adapter is None else f"{self.path} [{self.adapter}]"


def as_data(result: Result) -> dict[str, Any]:
    """For JSON. Times are in seconds; ``windows`` holds the probabilities of each, in the order of ``classes``."""
    data: dict[str, Any] = {"path": result.path}
    if result.adapter is not None:
        data["adapter"] = result.adapter
    if result.error is not None:
        return data | {"error": result.error}
    if (line := result.timeline) is None:
        unknown = {} if result.unknown is None else {"unknown": result.unknown}
        return data | {"predictions": [asdict(p) for p in result.predictions]} | unknown
    return data | {
        "duration": round(line.duration, 3),
        "window": line.windows.length,
        "stride": line.windows.stride,
        "classes": list(line.classes),
        "segments": [
            {"start": round(s.start, 3), "end": round(s.end, 3), "label": s.label, "probability": s.probability}
            for s in line.segments
        ],
        "windows": [[round(p, 4) for p in row] for row in line.probabilities.tolist()],
    }


def table(result: Result, top: int = 3) -> str:
    """One line, or for a timeline one line per segment."""
    if result.error is not None:
        return one_line(f"{result.path}: {result.error}")
    if result.timeline is not None:
        return "\n".join([one_line(result.name), *map(segment_line, result.timeline.segments)])
    ranked = ", ".join(f"{p.label} {100 * p.probability:.1f} %" for p in result.predictions[:top])
    return one_line(f"{result.name}: ") + ranked + (f" {UNKNOWN}" if result.unknown else "")


def segment_line(segment: Segment) -> str:
    """ "  0:00:01.50 - 0:00:04.00  swipe left  81.3 %"."""
    label = UNKNOWN if segment.label is None else f"{segment.label}  {100 * segment.probability:.1f} %"
    return f"  {clock(segment.start)} - {clock(segment.end)}  {label}"


def clock(seconds: float, point: str = ".", digits: int = 2) -> str:
    """1.5 -> "0:00:01.50", with ``digits`` after the ``point``."""
    units = round(seconds * 10**digits)
    whole, rest = divmod(units, 10**digits)
    return f"{whole // 3600}:{whole // 60 % 60:02}:{whole % 60:02}{point}{rest:0{digits}}"


def as_csv(results: Sequence[Result], top: int = 3) -> str:
    """One row per segment, or ``top`` rows per video. The label of an unknown class is empty.

    There is a column of adapters if there are several.
    """
    stream = io.StringIO()
    writer = csv.writer(stream, lineterminator="\n")
    timelines = any(r.timeline for r in results)
    several = any(r.adapter is not None for r in results)
    columns = ["path", *(["adapter"] if several else []), *(["start", "end"] if timelines else ["rank"])]
    writer.writerow([*columns, "label", "probability"])
    for r in results:
        first = [r.path, *([r.adapter or ""] if several else [])]
        for s in r.timeline.segments if r.timeline else ():
            writer.writerow([*first, f"{s.start:.3f}", f"{s.end:.3f}", s.label or "", f"{s.probability:.4f}"])
        for rank, p in enumerate(() if r.timeline else r.predictions[:top], start=1):
            label = "" if r.unknown and rank == 1 else p.label
            writer.writerow([*first, rank, label, f"{p.probability:.4f}"])
    return stream.getvalue()


def as_srt(results: Sequence[Result]) -> str:
    """Subtitles for one video. Unknown segments have none."""
    cues = [(segment, r.adapter) for r in results for segment in _labelled(r)]
    cues.sort(key=lambda cue: cue[0].start)
    blocks = []
    for number, (segment, adapter) in enumerate(cues, start=1):
        times = " --> ".join(clock(t, ",", 3).zfill(12) for t in (segment.start, segment.end))
        text = f"{segment.label} ({100 * segment.probability:.0f} %)"
        blocks.append(f"{number}\n{times}\n{text if adapter is None else f'{adapter}: {text}'}\n")
    return "\n".join(blocks)


def as_elan(results: Sequence[Result]) -> str:
    """An ELAN document (EAF 3.0) for one video, with one tier per adapter. Unknown segments have no annotation."""
    video = Path(results[0].path)
    schema = "{http://www.w3.org/2001/XMLSchema-instance}noNamespaceSchemaLocation"
    ET.register_namespace("xsi", "http://www.w3.org/2001/XMLSchema-instance")
    root = ET.Element(
        "ANNOTATION_DOCUMENT", AUTHOR="msta", FORMAT="3.0", VERSION="3.0",
        DATE=datetime.now(timezone.utc).isoformat(timespec="seconds"),
        attrib={schema: "http://www.mpi.nl/tools/elan/EAFv3.0.xsd"},
    )  # fmt: skip
    header = ET.SubElement(root, "HEADER", MEDIA_FILE="", TIME_UNITS="milliseconds")
    mime = {".mp4": "video/mp4", ".mpg": "video/mpeg", ".mpeg": "video/mpeg"}.get(video.suffix.lower(), "unknown")
    place = video.absolute().as_uri() if "://" not in results[0].path else results[0].path
    relative = f"./{video.name if is_text(video.name) else quote(os.fsencode(video.name))}"
    ET.SubElement(header, "MEDIA_DESCRIPTOR", MEDIA_URL=place, MIME_TYPE=mime, RELATIVE_MEDIA_URL=relative)
    order = ET.SubElement(root, "TIME_ORDER")
    slots: dict[int, str] = {}  # milliseconds -> id
    wanted = {ms for r in results for s in _labelled(r) for ms in _milliseconds(s)}
    for number, ms in enumerate(sorted(wanted), start=1):
        slots[ms] = f"ts{number}"
        ET.SubElement(order, "TIME_SLOT", TIME_SLOT_ID=slots[ms], TIME_VALUE=str(ms))
    number = 0
    for r in results:
        tier = ET.SubElement(root, "TIER", LINGUISTIC_TYPE_REF="default-lt", TIER_ID=r.adapter or "msta")
        for s in _labelled(r):
            number += 1
            start, end = (slots[ms] for ms in _milliseconds(s))
            one = ET.SubElement(
                ET.SubElement(tier, "ANNOTATION"), "ALIGNABLE_ANNOTATION",
                ANNOTATION_ID=f"a{number}", TIME_SLOT_REF1=start, TIME_SLOT_REF2=end,
            )  # fmt: skip
            ET.SubElement(one, "ANNOTATION_VALUE").text = s.label
    ET.SubElement(
        root, "LINGUISTIC_TYPE", GRAPHIC_REFERENCES="false", LINGUISTIC_TYPE_ID="default-lt", TIME_ALIGNABLE="true"
    )
    ET.indent(root)
    # In ASCII, which any output can write.
    return '<?xml version="1.0" encoding="UTF-8"?>\n' + ET.tostring(root).decode() + "\n"


def _labelled(result: Result) -> list[Segment]:
    return [s for s in result.timeline.segments if s.label] if result.timeline else []


def _milliseconds(segment: Segment) -> tuple[int, int]:
    return round(1000 * segment.start), round(1000 * segment.end)
