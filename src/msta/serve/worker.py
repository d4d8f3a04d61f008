"""Decode untrusted files in a separate process: ``python -m msta.serve.worker BYTES SECONDS``.

A job is a line of JSON on standard input. The answer is a line of JSON, followed by the bytes of the frames if decoding
succeeded. If FFmpeg fails, it fails here: this process has limits on memory and processor time, cannot write files, and
knows no keys. It does not import torch, so it is small and starts quickly.
"""

from __future__ import annotations

import contextlib
import json
import os
import sys
from typing import Any

from msta.data.decode import probe, read_frames
from msta.data.times import view_times
from msta.data.video_file import DecodeError
from msta.inference.serving import exceeded_limit

with contextlib.suppress(ImportError):  # Windows, where msta serve refuses to start
    import resource

_TOO_LARGE = {"status": 413, "reason": "decoding it takes more memory than the service allows"}
_NO_VIDEO = ("not a video file", "no video stream", "its video codec")


def main(memory: int, seconds: float) -> None:
    """Answer jobs until standard input ends."""
    pipe = os.fdopen(os.dup(1), "wb")
    os.dup2(2, 1)  # keeps what libraries print out of the answers
    confine(memory)
    pipe.write(b"ready\n")
    pipe.flush()
    for line in sys.stdin.buffer:
        allow_seconds(seconds)
        header, frames = answer(json.loads(line))
        pipe.write(json.dumps(header).encode() + b"\n")
        pipe.write(frames)
        pipe.flush()


def confine(memory: int) -> None:
    """Allow only ``memory`` more bytes than the process has, few open files, no written files and no core dump."""
    with open("/proc/self/statm", encoding="ascii") as statm:
        taken = int(statm.read().split()[0]) * resource.getpagesize()
    resource.setrlimit(resource.RLIMIT_AS, (taken + memory, taken + memory))
    resource.setrlimit(resource.RLIMIT_NOFILE, (32, 32))
    resource.setrlimit(resource.RLIMIT_FSIZE, (0, 0))
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))


def allow_seconds(seconds: float) -> None:
    """Allow so many more seconds of processor time. The system ends a process that takes more."""
    usage = resource.getrusage(resource.RUSAGE_SELF)
    until = int(usage.ru_utime + usage.ru_stime + seconds) + 1
    resource.setrlimit(resource.RLIMIT_CPU, (until, resource.getrlimit(resource.RLIMIT_CPU)[1]))


def answer(job: dict[str, Any]) -> tuple[dict[str, Any], bytes]:
    """{"path", "frames", "size", "squash", "limits"} -> {"shape"} and bytes, or {"status", "reason"}."""
    try:
        info = probe(job["path"])
        if reason := exceeded_limit(info, job["limits"]):
            return {"status": 413, "reason": reason}, b""
        count = job["frames"]
        frames = read_frames(job["path"], lambda d: view_times(d, count, 1).ravel(), job["size"], squash=job["squash"])
        return {"shape": frames.shape}, frames.tobytes()
    except DecodeError as error:
        if "Cannot allocate memory" in error.reason:
            return _TOO_LARGE, b""
        return {"status": 415 if error.reason.startswith(_NO_VIDEO) else 422, "reason": error.reason}, b""
    except MemoryError:
        return _TOO_LARGE, b""
    except Exception as error:  # damaged files fail in unforeseen ways, which this process contains
        return {"status": 422, "reason": f"it cannot be decoded ({type(error).__name__})"}, b""


if __name__ == "__main__":
    main(int(sys.argv[1]), float(sys.argv[2]))
