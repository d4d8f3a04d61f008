"""The device and the precision to compute with, if the user does not say."""

from __future__ import annotations

import os
from typing import Literal, cast

import torch

from msta.errors import ConfigError

Precision = Literal["auto", "fp32", "bf16", "fp16"]
DTYPES = {"fp32": torch.float32, "bf16": torch.bfloat16, "fp16": torch.float16}


def best_device() -> torch.device:
    """The device in the environment variable MSTA_DEVICE ("cpu", "cuda:1" …).

    If it is not set: the accelerator that torch finds (CUDA, Apple's MPS, XPU …), else the CPU.

    Raises:
        ConfigError: torch does not know such a device, or does not find it.
    """
    found = torch.accelerator.current_accelerator() if torch.accelerator.is_available() else None
    name = os.environ.get("MSTA_DEVICE")
    if not name:
        return found or torch.device("cpu")
    try:
        device = torch.device(name)
    except RuntimeError:
        raise ConfigError(f"--device: torch knows no device {name!r}; try cpu, cuda, cuda:1, mps or xpu") from None
    kinds = {"cpu", found.type} if found else {"cpu"}
    if device.type not in kinds or (device.index or 0) >= max(1, torch.accelerator.device_count()):
        raise ConfigError(f"--device: torch does not find {name} on this machine; it finds {', '.join(sorted(kinds))}")
    return device


def device_name() -> str:
    """The name of :func:`best_device`: that of the graphics card, else its kind, such as CPU or MPS."""
    device = best_device()
    return torch.cuda.get_device_name(device) if device.type == "cuda" else device.type.upper()


def accelerator_of(device: torch.device) -> torch.device | None:
    """The device, unless it is the CPU."""
    return None if device.type == "cpu" else device


def precision_on(device: torch.device, wanted: Precision = "auto") -> Literal["fp32", "bf16", "fp16"]:
    """The precision to compute with: ``wanted``, or if that is "auto", bf16 on CUDA and fp32 elsewhere.

    CUDA cards without bf16 (before Ampere) compute in fp16.
    """
    if wanted != "auto":
        return wanted
    if device.type != "cuda":
        return "fp32"
    return "bf16" if torch.cuda.is_bf16_supported(including_emulation=False) else "fp16"


def inference_precision(device: torch.device) -> Literal["fp32", "bf16", "fp16"]:
    """:func:`precision_on` with the environment variable MSTA_PRECISION, if it is set.

    Raises:
        ConfigError: it is not a precision.
    """
    name = os.environ.get("MSTA_PRECISION") or "auto"
    if name not in ("auto", *DTYPES):
        raise ConfigError(f"--precision: expected one of auto, {', '.join(DTYPES)}, got {name!r}")
    return precision_on(device, cast(Precision, name))
