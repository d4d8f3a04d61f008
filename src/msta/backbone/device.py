"""Where to compute if nobody says."""

from __future__ import annotations

import torch


def best_device() -> torch.device:
    """The accelerator that torch finds (CUDA, Apple's MPS, XPU …), else the CPU."""
    found = torch.accelerator.current_accelerator() if torch.accelerator.is_available() else None
    return found or torch.device("cpu")


def accelerator_of(device: torch.device) -> torch.device | None:
    """The device, unless it is the CPU."""
    return None if device.type == "cpu" else device
