"""What the service and the app share: limits on videos, and listening on an address. It does not import torch."""

from __future__ import annotations

import ipaddress
import socket
from collections.abc import Mapping

from msta.data.decode import VideoInfo
from msta.errors import MSTAError

FRAME_RATE = 60
"""Frames per second up to which a limit on the seconds of a video decides."""


def exceeded_limit(info: VideoInfo, limits: Mapping[str, float]) -> str | None:
    """Why a video is refused, or None. ``limits`` holds the most "seconds", "pixels" and "frames" it may have."""
    frames = info.frames or round(info.duration * (info.fps or 0))
    if info.duration > limits["seconds"]:
        return f"{info.duration:.0f} s of video; the limit is {limits['seconds']:g} s"
    if info.width * info.height > limits["pixels"]:
        return f"frames of {info.width} x {info.height} pixels; the limit is {limits['pixels']:,} pixels"
    if frames > limits["frames"]:
        return f"{frames:,} frames; the limit is {limits['frames']:,}"
    return None


def is_loopback(host: str) -> bool:
    """Whether only this machine can reach an address."""
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"


def listen(host: str, port: int) -> socket.socket:
    """A socket that listens on a port, or on any free port for 0. Raises MSTAError if the port is taken."""
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    # TCP must be named: only then does asyncio turn off Nagle's algorithm, which delays every answer by 40 ms
    listening = socket.socket(family, socket.SOCK_STREAM, socket.IPPROTO_TCP)
    listening.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    try:
        listening.bind((host, port))
        listening.listen()  # requests that arrive before all is ready wait
    except OSError as error:
        listening.close()
        raise MSTAError(f"--host {host} --port {port}: {error.strerror}") from error
    return listening
