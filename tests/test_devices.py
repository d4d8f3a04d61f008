"""Every method on a device that is not there, see fake_devices.py; and no waiting for one in a step."""

from __future__ import annotations

import os
import subprocess
import sys

import fake_devices
import pytest
import torch
from conftest import KINDS, refused
from fake_devices import adapted, batch, decoded, forward_and_backward, moved, train_step
from torch._subclasses.fake_tensor import FakeTensorMode
from torch.utils._python_dispatch import TorchDispatchMode

from msta.backbone.device import best_device
from msta.data.processes import decoders
from msta.methods import METHODS
from msta.training.processes import set_tf32


@pytest.mark.parametrize("options", [(), pytest.param(("--every",), marks=pytest.mark.slow)])
def test_whole_steps_of_every_method_stay_on_one_device(options):
    command = [sys.executable, fake_devices.__file__, *options]
    done = subprocess.run(command, capture_output=True, text=True, timeout=1200)
    assert done.returncode == 0, done.stderr
    assert done.stdout == ""


def test_a_tensor_that_is_left_behind_is_noticed():
    mode, real = FakeTensorMode(allow_non_fake_inputs=True), adapted("joint", "msta")
    with torch.no_grad():
        model = moved(real, mode, "cuda")
        with mode, pytest.raises(RuntimeError, match="same device"):
            model.logits(torch.zeros(2, 24, device="cuda"), torch.zeros(3, 24))


@pytest.mark.parametrize("name", ["cuda", "mps", "xpu"])
def test_the_device_is_the_accelerator_that_torch_finds(name, monkeypatch):
    assert best_device() == torch.device("cpu") or torch.accelerator.is_available()
    monkeypatch.setattr(torch.accelerator, "is_available", lambda: True)
    monkeypatch.setattr(torch.accelerator, "current_accelerator", lambda: torch.device(name))
    assert best_device() == torch.device(name)


def test_fp32_is_fp32_on_a_cuda_card_unless_tf32_is_asked_for():
    before = torch.backends.cuda.matmul.allow_tf32, torch.backends.cudnn.allow_tf32
    try:
        for allowed in (True, False):
            set_tf32(torch.device("cuda"), allowed)
            assert (torch.backends.cuda.matmul.allow_tf32, torch.backends.cudnn.allow_tf32) == (allowed, allowed)
        set_tf32(torch.device("cpu"), True)
        assert not torch.backends.cuda.matmul.allow_tf32
    finally:
        torch.backends.cuda.matmul.allow_tf32, torch.backends.cudnn.allow_tf32 = before


class Waiting(TorchDispatchMode):
    """Collects what would make a host wait for its GPU: a number read, a copy to the CPU, shapes that depend on data."""

    READS = ("aten::_local_scalar_dense", "aten::is_nonzero", "aten::item", "aten::nonzero", "aten::equal")

    def __init__(self) -> None:
        super().__init__()
        self.seen: list[str] = []

    def __torch_dispatch__(self, function, types, arguments=(), options=None):
        if function.name().split(".")[0] in self.READS:
            self.seen.append(function.name())
        return function(*arguments, **(options or {}))


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("method", sorted(METHODS))
def test_a_step_waits_for_nothing_until_its_losses_are_read(kind, method):
    if refused(method, kind):
        pytest.skip("does not fit")
    model = adapted(kind, method)
    step = train_step(model, model.prepare_prompts(model.tokenize(fake_devices.CLASSES)), "cpu", torch.no_grad)
    step.processes.accelerator.autocast = torch.enable_grad
    samples = [decoded(first, 2) for first in (0, 2)]
    with Waiting() as waiting:
        forward_and_backward(step, map(batch, samples))
    assert waiting.seen == []
    with Waiting() as waiting:
        torch.ones(1).item()
    assert waiting.seen, "the test sees nothing"


def test_decoding_processes_are_as_many_as_the_cores_allow(monkeypatch):
    monkeypatch.setattr(os, "sched_getaffinity", lambda process: set(range(16)), raising=False)
    cpu, gpu = torch.device("cpu"), torch.device("cuda")
    assert [decoders(cpu), decoders(gpu), decoders(gpu, None, 8), decoders(gpu, None, 64)] == [1, 15, 1, 1]
    assert [decoders(cpu, 3), decoders(gpu, 0)] == [3, 0]
