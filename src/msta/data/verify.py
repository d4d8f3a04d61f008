"""``msta data verify``: decode every file from its first frame to its last, in processes that may hang or die."""

from __future__ import annotations

import contextlib
import json
import math
import multiprocessing
import os
import signal
import time
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from itertools import islice
from multiprocessing.connection import Connection, wait
from multiprocessing.process import BaseProcess
from pathlib import Path
from typing import Any, TypeVar

from rich.console import Console

from msta.data.catalog import Catalog, Clip, require_files, write_rows
from msta.data.decode import decode_all
from msta.data.processes import check_main_guard, with_bar
from msta.data.storage import absolute
from msta.data.video_file import DecodeError, OutOfReach
from msta.errors import DataError, Interrupted, MSTAError
from msta.files import refuse_existing, replacing

JOURNAL, TABLE = "files.jsonl", "broken.csv"
COLUMNS = ("path", "start", "end", "class", "split", "problem", "reason")


def verify(
    catalog: Catalog,
    out: Path,
    *,
    workers: int | None = None,
    timeout: float = 300.0,
    console: Console | None = None,
) -> dict[str, Any]:
    """Decode all files of a data set, and write a table of the broken clips with the reasons.

    ``out/files.jsonl`` gets one line per file as soon as it is done. A second call with the same ``out`` continues from
    there. It decodes a file again only if the file has changed (size or time), or timed out with less time.
    ``out/broken.csv`` has the columns path, start, end, class, split, problem, reason. Problems: "unreadable",
    "damaged" (parts of it cannot be decoded; training shows the frame before), "timeout", "crash" (of the decoder),
    "range" (the clip begins after the end of its video).

    Args:
        catalog: what to verify. A file is decoded once even if many clips are parts of it.
        out: a folder; new, or that of an earlier verification.
        workers: processes; None: one per processor.
        timeout: seconds that a file may take.
        console: where progress is shown; None: nowhere.

    Returns:
        "files", "clips", "frames", "seconds" (of video), "decoded" (files, in this call), and "broken": the rows of the
        table as dictionaries.

    Raises:
        Interrupted: by Ctrl-C; finished files are kept.
        DataError: the files have moved, or a server does not answer.
        MSTAError: ``out`` exists and holds something else.
    """
    require_files(catalog)
    if not (out / JOURNAL).exists():
        refuse_existing(out)
        out.mkdir(parents=True, exist_ok=True)
    files = list(dict.fromkeys(absolute(clip.path) for clip in catalog.clips))
    done = {path: line for path, line in _read_journal(out / JOURNAL).items() if _still_holds(line, timeout)}
    jobs = [path for path in files if path not in done]
    try:
        with (out / JOURNAL).open("a", encoding="utf-8") as journal:
            decoded = in_processes(jobs, workers or os.cpu_count() or 1, timeout, _decode)
            for path, result in with_bar(decoded, "decoding", len(jobs), console):
                line = {"path": path, **_identity(path), "timeout": timeout, **result}
                done[path] = line
                journal.write(json.dumps(line) + "\n")
                journal.flush()
    except KeyboardInterrupt:
        so_far = sum(path in done for path in files)
        raise Interrupted(f"stopped after {so_far} of {len(files)} files; the same command goes on") from None
    broken = [
        {"path": absolute(clip.path), "start": clip.start, "end": clip.end}
        | {"class": catalog.classes[clip.label], "split": clip.split, "problem": problem, "reason": reason}
        for clip in catalog.clips
        for problem, reason in _problems(clip, done[absolute(clip.path)])
    ]
    with replacing(out / TABLE) as aside:
        write_rows(aside, [COLUMNS, *(["" if row[c] is None else row[c] for c in COLUMNS] for row in broken)])
    return {
        "files": len(files),
        "clips": len(catalog.clips),
        "frames": sum(done[path].get("frames", 0) for path in files),
        "seconds": round(sum(done[path].get("duration", 0.0) for path in files), 1),
        "decoded": len(jobs),
        "broken": broken,
    }


# ---------------------------------------------------------------- results


def _read_journal(file: Path) -> dict[str, dict[str, Any]]:
    """Path -> its last line. A line that a kill cut off is left out."""
    lines: dict[str, dict[str, Any]] = {}
    text = file.read_text(encoding="utf-8") if file.exists() else ""
    for line in text.splitlines():
        with contextlib.suppress(ValueError, KeyError, TypeError):
            entry = json.loads(line)
            lines[entry["path"]] = entry
    if text and not text.endswith("\n"):
        with file.open("a", encoding="utf-8") as journal:
            journal.write("\n")
    return lines


def _identity(path: str) -> dict[str, int | None]:
    """Values that change if a file changes."""
    try:
        status = os.stat(path)
    except (OSError, ValueError):
        return {"size": None, "changed": None}
    return {"size": status.st_size, "changed": status.st_mtime_ns}


def _still_holds(line: dict[str, Any], timeout: float) -> bool:
    if line.get("problem") == "timeout" and line.get("timeout", 0.0) < timeout:
        return False
    return _identity(line["path"]).items() <= line.items()


def _problems(clip: Clip, line: dict[str, Any]) -> Iterator[tuple[str, str]]:
    """The problems of a clip, at most one."""
    if "problem" in line:
        yield line["problem"], line["reason"]
    elif (clip.start or 0.0) >= line["duration"]:
        yield "range", f"begins at {clip.start:g} s, but the video ends at {line['duration']:.2f} s"


def _decode(path: str) -> dict[str, Any]:
    try:
        decoded = decode_all(path)
    except OutOfReach:
        raise
    except DecodeError as error:
        return {"problem": "unreadable", "reason": error.reason}
    result: dict[str, Any] = {"frames": decoded.frames, "duration": round(decoded.duration, 6)}
    if decoded.damaged:
        result |= {"problem": "damaged", "reason": f"{decoded.damaged} parts of it cannot be decoded"}
    return result


# ---------------------------------------------------------------- processes


@dataclass
class _Worker:
    """A process that does the jobs that it is sent, and the time by which its present job must be done."""

    process: BaseProcess
    pipe: Connection
    job: Any = None
    deadline: float = math.inf

    def send(self, job: Any, timeout: float) -> None:
        self.job, self.deadline = job, time.monotonic() + timeout
        self.pipe.send(job)

    def stop(self) -> None:
        self.process.kill()
        self.process.join()
        self.pipe.close()


Job = TypeVar("Job")


def in_processes(
    jobs: Iterable[Job], workers: int, timeout: float, work: Callable[[Job], dict[str, Any]]
) -> Iterator[tuple[Job, dict[str, Any]]]:
    """(job, ``work(job)``), in the order in which they finish. Slow processes are killed, and dead ones replaced.

    Raises:
        DataError: a job met a server that does not answer (OutOfReach). Nothing is known against its file.
    """
    check_main_guard("spawn")
    waiting = iter(jobs)
    busy: list[_Worker] = []
    try:
        busy += [_start(work, job, timeout) for job in islice(waiting, workers)]
        while busy:
            patience = max(0.0, min(worker.deadline for worker in busy) - time.monotonic())
            ready = wait([worker.pipe for worker in busy], patience)
            for worker in list(busy):
                if worker.pipe in ready:
                    result = _receive(worker)
                elif time.monotonic() >= worker.deadline:
                    worker.stop()
                    result = {"problem": "timeout", "reason": f"not decoded within {timeout:g} s"}
                else:
                    continue
                if isinstance(result, DataError):
                    raise result
                done, following = worker.job, next(waiting, None)
                if following is not None and not worker.pipe.closed:
                    worker.send(following, timeout)
                else:
                    worker.stop()
                    busy.remove(worker)
                    if following is not None:
                        busy.append(_start(work, following, timeout))
                yield done, result
    finally:
        for worker in busy:
            worker.stop()


def _receive(worker: _Worker) -> dict[str, Any] | DataError:
    try:
        result: dict[str, Any] | DataError = worker.pipe.recv()
        return result
    except (EOFError, OSError):
        worker.process.join()
        code = worker.process.exitcode or 0
        worker.stop()
        how = signal.Signals(-code).name if code < 0 else f"exit code {code}"
        return {"problem": "crash", "reason": f"the decoding process died ({how})"}


def _start(work: Callable[[Job], dict[str, Any]], job: Job, timeout: float) -> _Worker:
    """A new process with its first job."""
    # Processes come of a server that has imported what they need: cheap, and free of this process' threads and locks.
    if "forkserver" in multiprocessing.get_all_start_methods():
        server: Any = multiprocessing.get_context("forkserver")
        server.set_forkserver_preload([__name__])
    else:
        server = multiprocessing.get_context("spawn")
    here, there = server.Pipe()
    process = server.Process(target=_serve, args=(there, work), daemon=True)
    process.start()
    there.close()
    worker = _Worker(process, here)
    try:
        here.recv()  # its imports are not the file's time
    except EOFError:
        worker.stop()
        raise MSTAError(
            "a decoding process could not start, for want of memory perhaps; take fewer --workers"
        ) from None
    worker.send(job, timeout)
    return worker


def _serve(pipe: Connection, work: Callable[[Any], dict[str, Any]]) -> None:
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C reaches all; the main process ends this one
    try:
        pipe.send("ready")
        while True:
            job = pipe.recv()
            try:
                pipe.send(work(job))
            except OutOfReach as error:
                pipe.send(DataError(str(error)))
    except (EOFError, OSError):
        return
