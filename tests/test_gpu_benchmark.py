"""The benchmark for a GPU runs, on a CPU, and refuses to time what is wrong."""

from __future__ import annotations

import importlib.util
import json
from pathlib import Path

import pytest
import torch

from msta.methods import METHODS


@pytest.fixture
def gpu(monkeypatch):
    pytest.importorskip("peft")
    pytest.importorskip("transformers")
    monkeypatch.syspath_prepend(Path(__file__).parents[1] / "benchmarks")
    torch._dynamo.reset()
    spec = importlib.util.spec_from_file_location("gpu", Path(__file__).parents[1] / "benchmarks" / "gpu.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_it_compares_every_method_and_writes_its_table(gpu, tmp_path, monkeypatch):
    monkeypatch.setattr("sys.argv", ["gpu.py", "--tiny", "--rounds", "1", "--out", str(tmp_path)])
    gpu.main()
    report = json.loads((tmp_path / "gpu.json").read_text())
    assert set(report["differences"]) == set(METHODS)
    assert all(each["from the plain path"] < gpu.NEAR for each in report["differences"].values())
    assert {(row["mode"], row["way"]) for row in report["rows"]} == {(m, way) for m in gpu.MODES for way in gpu.WAYS}
    assert set(report["other methods"]) == set(gpu.MODES)
    assert all(seconds > 0 for each in report["other methods"].values() for seconds in each.values())
    assert report["decoding"]["clips per second"] > 0
    assert all(rate > 0 for rate in report["matrix product, TFLOP/s"].values())
    assert all(row["step"] > 0 for row in report["rows"])
    assert len((tmp_path / "gpu.md").read_text().splitlines()) == 11 + len(gpu.MODES) + len(report["rows"])


def test_it_times_nothing_if_results_differ(gpu, tmp_path, monkeypatch):
    right = gpu.results

    def wrong(architecture, method, device, *, exact=False):
        found = right(architecture, method, device, exact=exact)
        return [1.01 * each for each in found] if exact and method == "msta" else found

    monkeypatch.setattr(gpu, "results", wrong)
    monkeypatch.setattr("sys.argv", ["gpu.py", "--tiny", "--out", str(tmp_path)])
    with pytest.raises(SystemExit, match="msta"):
        gpu.main()
    assert not list(tmp_path.iterdir())


@pytest.mark.skipif(torch.accelerator.is_available(), reason="there is one")
def test_without_a_gpu_it_says_so(gpu, monkeypatch):
    monkeypatch.setattr("sys.argv", ["gpu.py"])
    with pytest.raises(SystemExit, match="no GPU"):
        gpu.main()
