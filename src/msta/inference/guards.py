"""What the service and the app both refuse."""

from __future__ import annotations

import ipaddress
from collections.abc import Mapping

from msta.data.decode import VideoInfo


def too_much(info: VideoInfo, limits: Mapping[str, float]) -> str | None:
    """Why a video is refused: "seconds", "pixels" and "frames" are what it may have."""
    frames = info.frames or round(info.duration * (info.fps or 0))
    if info.duration > limits["seconds"]:
        return f"{info.duration:.0f} s of video; the limit is {limits['seconds']:g} s"
    if info.width * info.height > limits["pixels"]:
        return f"frames of {info.width} x {info.height} pixels; the limit is {limits['pixels']:,} pixels"
    if frames > limits["frames"]:
        return f"{frames:,} frames; the limit is {limits['frames']:,}"
    return None


def is_loopback(host: str) -> bool:
    """Whether an address to listen on is out of others' reach."""
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"
