"""Exports of labelling tools -> rows of a table: Label Studio's JSON, CVAT's XML, and JSON records of any tool."""

from __future__ import annotations

import json
import re
import xml.etree.ElementTree as ET
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from msta.data.text_tables import csv_rows, open_text
from msta.errors import DataError, in_short
from msta.files import parse_json

Row = tuple[int, list[str]]
_CLIP = ["path", "label", "start", "end"]
_SAY = "write a table of path,label,start,end with times in seconds"
_OF_FRAMES = {"Datumaro": {"items", "categories"}, "COCO": {"images", "annotations"}}
"""Forms -> the keys that identify them."""
_MARKED = re.compile(r"(?:.*/)?data/(?:upload/(?:\d+/)?(?:[0-9a-f]{8}-)?|local-files/\?d=)(.+)")


def table_rows(path: Path) -> Iterator[Row]:
    """(number of the line or record, cells) of a table's rows; the header comes first if there is one.

    Raises:
        DataError: the form is not known; the message says which export to use.
    """
    suffix = path.suffix.lower()
    if suffix in (".json", ".jsonl", ".ndjson"):
        yield from _records(path)
    elif suffix == ".xml":
        yield from _cvat(path)
    else:
        yield from csv_rows(path)


def file_of(name: str) -> str:
    """The path in a table without the prefix that Label Studio puts before file names."""
    found = _MARKED.fullmatch(name)
    return found[1] if found else name


# ---------------------------------------------------------------- JSON


def _records(path: Path) -> Iterator[Row]:
    """The records in a list or in lines of objects: Label Studio's tasks, or rows whose keys are the columns.

    Or an object: of records by file (Kinetics' by YouTube id), of labels by file, or of lists of files by label.
    """
    records = _load(path)
    if any(isinstance(record.get("annotations"), list) for record in records):
        yield 0, _CLIP
        for number, record in enumerate(records, 1):
            yield from ((number, row) for row in _task(f"{path}, task {number}", record))
        return
    for number, record in enumerate(records, 1):
        _refuse_frames(f"{path}, record {number}", record)
    header = list(dict.fromkeys(key for record in records for key in record))
    yield 0, header
    for number, record in enumerate(records, 1):
        yield number, [_cell(record.get(key)) for key in header]


def _load(path: Path) -> list[dict[str, Any]]:
    content = read_json_text(path)
    if isinstance(content, dict):
        tool = next((name for name, keys in _OF_FRAMES.items() if keys <= content.keys()), None)
        if tool is not None:
            raise DataError(f"{path}: {tool}'s form, of single frames; take 'CVAT for video 1.1' from CVAT, or {_SAY}")
        content = _by_key(content)
    if not isinstance(content, list) or not content or not all(isinstance(record, dict) for record in content):
        known = "records with path and label in a list or by file, or Label Studio's export as JSON or CSV"
        raise DataError(f"{path}: expected {known}; else {_SAY}")
    return content


def read_json_text(path: Path, *, unique: bool = False) -> Any:
    """Like :func:`msta.files.read_any_json`, in any encoding of :func:`open_text`; a list of the lines of a .jsonl.

    Raises:
        DataError: it is not JSON.
        OSError: it cannot be read.
    """
    with open_text(path) as file:
        if path.suffix.lower() in (".jsonl", ".ndjson"):
            return [parse_json(path, line, DataError, unique=unique) for line in file if line.strip()]
        return parse_json(path, file.read(), DataError, unique=unique)


def _by_key(content: dict[str, Any]) -> Any:
    """The records in an object, if it says which file has which label."""
    values = list(content.values())
    if len(values) == 1 and isinstance(values[0], list) and all(isinstance(one, dict) for one in values[0]):
        return values[0]  # {"clips": [{…}, …]}
    if all(isinstance(one, dict) for one in values):
        return [_flat(name, one) for name, one in content.items()]
    if all(isinstance(one, str) for one in values) and all(map(_is_file, content)):
        return [{"path": name, "label": label} for name, label in content.items()]
    if all(isinstance(one, list) and all(isinstance(x, str) and _is_file(x) for x in one) for one in values):
        return [{"path": name, "label": label} for label, names in content.items() for name in names]
    return None


def _flat(name: str, record: dict[str, Any]) -> dict[str, Any]:
    """A record with the name of its file. In Kinetics' files the label and the time range are one level below."""
    inner = record.get("annotations")
    if not isinstance(inner, dict):
        return {"path": name, **record}
    start, end = (*(inner.get("segment") or ()), None, None)[:2]
    columns = {"label": inner.get("label"), "youtube_id": name, "time_start": start, "time_end": end}
    return {**columns, "split": record.get("subset")}


def _is_file(name: str) -> bool:
    return "/" in name or re.search(r"\.\w+$", name) is not None


def _task(where: str, task: dict[str, Any]) -> Iterator[list[str]]:
    """The clips in a task of Label Studio: the whole video with its choice, or labelled ranges in seconds."""
    results = [
        result for one in task["annotations"] if not one.get("was_cancelled") for result in one.get("result", ())
    ]
    videos = [
        value for value in task.get("data", {}).values() if isinstance(value, str) and re.search(r"\.\w+$", value)
    ]
    if not videos:
        raise DataError(f"{where}: its data name no file")
    labelled = set()
    for result in results:
        value = result.get("value", {})
        _refuse_frames(where, value)
        names = value.get("choices") or value.get("labels") or ()
        start, end = (_cell(value.get(name)) for name in ("start", "end"))
        for name in names:
            labelled.add((name, start, end))
            if len({label for label, *span in labelled if span == [start, end]}) > 1:
                both = " and ".join(sorted({label for label, *_ in labelled}))
                raise DataError(f"{where}: two labels of one clip, {in_short(both)}")
    for name, start, end in sorted(labelled, key=lambda clip: (clip[1], clip[0])):
        yield [videos[0], name, start, end]


def _refuse_frames(where: str, value: dict[str, Any]) -> None:
    for key, content in value.items():
        ranges = content if isinstance(content, list) else []
        if key in ("timelinelabels", "sequence") or any(isinstance(r, dict) and "ranges" in r for r in ranges):
            raise DataError(
                f"{where}: Label Studio marks these ranges by numbers of frames, at a frame rate that the export does "
                f"not have; {_SAY}"
            )


def _cell(value: Any) -> str:
    return "" if value is None else value if isinstance(value, str) else json.dumps(value, ensure_ascii=False)


# ---------------------------------------------------------------- CVAT


def _cvat(path: Path) -> Iterator[Row]:
    """'CVAT for video 1.1': a clip is the range of a track, or of a tag on consecutive frames.

    Frames become seconds with the frame rate of the video, which is looked for beside the table.
    """
    try:
        root = ET.parse(path).getroot()
    except ET.ParseError as error:
        raise DataError(f"{path}: no valid XML ({error})") from error
    if root.tag != "annotations" or root.find("meta") is None:
        raise DataError(f"{path}: an XML of {in_short(root.tag)!r}; understood is 'CVAT for video 1.1'; else {_SAY}")
    if root.find("image") is not None:
        raise DataError(f"{path}: 'CVAT for images 1.1', of single pictures; take 'CVAT for video 1.1', or {_SAY}")
    sources = {task.findtext("id", ""): task.findtext("source", "") for task in root.iter("task")}
    only = root.findtext("meta/source") or next(iter(sources.values()), "")
    yield 0, ["path", "label", "start_frame", "end_frame"]
    for number, track in enumerate(root.iter("track"), 1):
        frames = [int(shape.get("frame", 0)) for shape in track if shape.get("outside", "0") == "0"]
        if frames:
            source = sources.get(track.get("task_id", ""), only) or only
            yield number, [source, track.get("label", ""), str(min(frames)), str(max(frames) + 1)]
    tagged: dict[tuple[str, str], list[int]] = {}
    for tag in root.iter("tag"):
        source = sources.get(tag.get("task_id", ""), only) or only
        tagged.setdefault((source, tag.get("label", "")), []).append(int(tag.get("frame", 0)))
    for number, ((source, label), frames) in enumerate(tagged.items(), 1):
        frames.sort()
        starts = [f for f, before in zip(frames, [-2, *frames], strict=False) if f > before + 1]
        for start in starts:
            end = next(f for f in frames if f >= start and f + 1 not in frames) + 1
            yield number, [source, label, str(start), str(end)]
