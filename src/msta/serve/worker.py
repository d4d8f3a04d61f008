"""Decodes files other people sent, in a process of its own: ``python -m msta.serve.worker BYTES SECONDS``.

A line of JSON on standard input is a job; the answer is a line of JSON and, if it went well, the frames' bytes. What
goes wrong in FFmpeg goes wrong here: this process may not take more memory or processor time than it is told, cannot
write a file, and knows no key. It does not import torch, so that it is small and starts at once.
"""

from __future__ import annotations

import json
import os
import resource
import sys
from typing import Any

from msta.data.decode import DecodeError, probe, read_frames
from msta.data.times import view_times
from msta.inference.guards import too_much

_TOO_LARGE = {"status": 413, "reason": "decoding it takes more memory than the service allows"}
_NO_VIDEO = ("not a video file", "no video stream", "its video codec")


def main(memory: int, seconds: float) -> None:
    """Answer jobs until standard input ends."""
    pipe = os.fdopen(os.dup(1), "wb")
    os.dup2(2, 1)  # whatever a library prints must not get between the answers
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
    """No more memory than ``memory`` bytes beside what the process has, few open files, none written, no core dump."""
    with open("/proc/self/statm", encoding="ascii") as statm:
        taken = int(statm.read().split()[0]) * resource.getpagesize()
    resource.setrlimit(resource.RLIMIT_AS, (taken + memory, taken + memory))
    resource.setrlimit(resource.RLIMIT_NOFILE, (32, 32))
    resource.setrlimit(resource.RLIMIT_FSIZE, (0, 0))
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))


def allow_seconds(seconds: float) -> None:
    """So many seconds of processor time from here on; the system ends a process that takes more."""
    usage = resource.getrusage(resource.RUSAGE_SELF)
    until = int(usage.ru_utime + usage.ru_stime + seconds) + 1
    resource.setrlimit(resource.RLIMIT_CPU, (until, resource.getrlimit(resource.RLIMIT_CPU)[1]))


def answer(job: dict[str, Any]) -> tuple[dict[str, Any], bytes]:
    """{"path", "frames", "size", "squash", "limits"} -> {"shape"} and bytes, or {"status", "reason"}."""
    try:
        info = probe(job["path"])
        if reason := too_much(info, job["limits"]):
            return {"status": 413, "reason": reason}, b""
        count = job["frames"]
        frames = read_frames(
            job["path"], lambda d: view_times(d, count, 1).ravel(), job["size"], squash=job["squash"], threads=1
        )
        return {"shape": frames.shape}, frames.tobytes()
    except DecodeError as error:
        if "Cannot allocate memory" in error.reason:
            return _TOO_LARGE, b""
        return {"status": 415 if error.reason.startswith(_NO_VIDEO) else 422, "reason": error.reason}, b""
    except MemoryError:
        return _TOO_LARGE, b""
    except Exception as error:  # of a damaged file, which nobody foresaw: this is what the process is for
        return {"status": 422, "reason": f"it cannot be decoded ({type(error).__name__})"}, b""


if __name__ == "__main__":
    main(int(sys.argv[1]), float(sys.argv[2]))
