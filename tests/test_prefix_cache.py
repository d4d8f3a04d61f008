"""The prefix cache: the same run, without decoding; and what happens to it on bad days."""

from __future__ import annotations

import io
import os
import shutil
import signal
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from conftest import KINDS, saved_backbone, tiny
from rich.console import Console
from safetensors.torch import load_file
from video_files import write_video

import msta
from msta.config import make_config, read_config
from msta.data.augment import Augmentation
from msta.data.clips import ClipDataset, ClipFormat
from msta.data.reading import read_catalog
from msta.errors import ConfigError, DataError, Interrupted
from msta.training import prefix_cache as features
from msta.training.loop import train
from msta.training.prefix_cache import PrefixCache

QUIET = Console(quiet=True)


@pytest.fixture(scope="module")
def clips(tmp_path_factory) -> Path:
    root = tmp_path_factory.mktemp("clips")
    for k, name in enumerate(("push", "pull")):
        (root / name).mkdir()
        for i in range(6):
            noise = np.random.default_rng(10 * k + i).integers(0, 256, (8, 5, 5, 3), np.uint8)
            write_video(root / name / f"{i}.mp4", noise.repeat(8, 1).repeat(8, 2))
    return root


@pytest.fixture(scope="module", params=KINDS)
def backbone(request, tmp_path_factory) -> Path:
    return saved_backbone(tmp_path_factory, request.param)


def run(clips: Path, backbone: Path, out: Path, *overrides: str, **options):
    quick = [
        "train.epochs=3",
        "train.batch_size=4",
        "train.warmup_epochs=1",
        "data.workers=0",
        "method.dim=8",
        "method.scale=1",
    ]
    settings = {"data.path": clips, "data.shots": 3, "backbone": str(backbone)}
    metrics = train(make_config("small", settings, [*quick, *overrides]), out, QUIET, **options)
    return metrics, load_file(out / "adapter" / "adapter_model.safetensors")


def same(one: dict[str, torch.Tensor], other: dict[str, torch.Tensor]) -> bool:
    return all(torch.equal(one[name], other[name]) for name in one)


def near(one: dict[str, torch.Tensor], other: dict[str, torch.Tensor]) -> bool:
    """The same but for rounding, which depends on the batch that a clip is computed in."""
    flat = [torch.cat([weights[name].flatten() for name in sorted(one)]) for weights in (one, other)]
    return torch.cosine_similarity(*flat, dim=0).item() > 0.99999


def test_a_view_an_epoch_gives_the_run_without_a_cache(clips, backbone, tmp_path):
    cache = [f"cache.path={tmp_path / 'cache'}", "cache.views=3"]
    plain, expected = run(clips, backbone, tmp_path / "plain")
    exact, found = run(clips, backbone, tmp_path / "exact", *cache, "cache.dtype=fp32")
    assert near(found, expected)
    assert exact["nll"] == pytest.approx(plain["nll"], rel=1e-3)
    rounded, found = run(clips, backbone, tmp_path / "rounded", *cache, "cache.dtype=fp16")
    assert not same(found, expected)
    assert rounded["nll"] == pytest.approx(plain["nll"], rel=1e-2)


def test_later_epochs_and_runs_decode_nothing(clips, backbone, tmp_path, monkeypatch):
    decoded = []
    real = ClipDataset.__getitem__
    monkeypatch.setattr(ClipDataset, "__getitem__", lambda self, key: decoded.append(key) or real(self, key))
    cache = [f"cache.path={tmp_path / 'cache'}", "cache.views=2", "train.epochs=5"]
    run(clips, backbone, tmp_path / "one", *cache)
    assert len(decoded) == 2 * 6 + 6  # two views of six training clips; validation and test clips once
    run(clips, backbone, tmp_path / "two", *cache)
    assert len(decoded) == 2 * 6 + 6
    run(clips, backbone, tmp_path / "three", *cache, "train.seed=1")
    assert len(decoded) == 2 * (2 * 6) + 6  # other augmentations, the same test views
    run(clips, backbone, tmp_path / "four", *cache, "train.tf32=true")
    assert len(decoded) == 3 * (2 * 6) + 2 * 6  # a card computes other numbers


def test_views_come_again(clips):
    catalog = read_catalog(clips)
    form = ClipFormat(4, 32, (0.5,) * 3, (0.25,) * 3)
    dataset = ClipDataset(catalog.clips, form, augmentation=Augmentation(), seed=1, repeat=2, keep=(2, 4))
    first, second, third = (dataset[epoch, 0] for epoch in range(3))
    assert np.array_equal(first["video"], third["video"])
    assert np.array_equal(first["kept"], third["kept"])
    assert not np.array_equal(first["video"], second["video"])


@pytest.mark.parametrize("change", ["clip", "backbone", "augmentation", "size", "seed", "precision", "keep"])
def test_what_is_kept_is_known_by_all_that_made_it(clips, tmp_path, change):
    shutil.copytree(clips, tmp_path / "clips")
    form = ClipFormat(4, 64 if change == "size" else 32, (0.5,) * 3, (0.25,) * 3)
    plain = ClipFormat(4, 32, (0.5,) * 3, (0.25,) * 3)

    def key(form=plain, seed=0, augmentation=None, backbone=0, precision="fp32", keep=None):
        catalog = read_catalog(tmp_path / "clips")
        model = msta.attach(msta.random_backbone(tiny(), backbone), msta.MSTAConfig(dim=8))
        cache = PrefixCache(tmp_path, model, max_gb=1, precision=precision)
        dataset = ClipDataset(catalog.clips, form, augmentation=augmentation or Augmentation(), seed=seed, keep=keep)
        return cache.file(dataset, (0, 0)).name

    before = key()
    assert key() == before
    if change == "clip":
        with open(read_catalog(tmp_path / "clips").clips[0].path, "ab") as file:
            file.write(b"\0")
        assert key() != before
    else:
        other = {
            "backbone": 1,
            "augmentation": Augmentation(flip=0),
            "size": form,
            "seed": 1,
            "precision": "bf16",
            "keep": (2, 4),
        }
        assert key(**{"form" if change == "size" else change: other[change]}) != before


def test_a_kill_while_it_fills_leaves_nothing_half_written(clips, backbone, tmp_path, monkeypatch):
    cache = [f"cache.path={tmp_path / 'cache'}", "cache.views=3", "cache.dtype=fp32"]
    _, expected = run(clips, backbone, tmp_path / "whole", *cache[1:], f"cache.path={tmp_path / 'other'}")
    code = f"""
import os, signal, numpy as np, sys
sys.argv = ["msta", "train", "--data", {str(clips)!r}, "--backbone", {str(backbone)!r}, "--shots", "3", "--out", {str(tmp_path / "killed")!r},
  "train.epochs=3", "train.batch_size=4", "train.warmup_epochs=1", "data.workers=0", "method.dim=8", "method.scale=1", *{cache!r}]
from msta.training import prefix_cache as features
real, count = np.save, [0]
def save(stream, tokens):
    count[0] += 1
    if count[0] == 9:
        stream.write(b"half"); stream.flush(); os.kill(os.getpid(), signal.SIGKILL)
    real(stream, tokens)
features.np.save = save
from msta.cli import main
main()
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=600)
    assert done.returncode == -signal.SIGKILL, done.stderr
    kept = list((tmp_path / "cache").glob("*/*.npy"))
    assert kept
    assert all(np.load(file).dtype == np.float32 for file in kept if not file.name.startswith("."))
    _, found = run(clips, backbone, tmp_path / "again", *cache)
    assert same(found, expected)


def test_two_processes_share_it(clips, backbone, tmp_path):
    command = [
        sys.executable, "-m", "msta", "train", "--data", str(clips), "--backbone", str(backbone), "--shots", "3",
        "train.epochs=2", "data.workers=0", "method.dim=8", "cache.views=2", f"cache.path={tmp_path / 'cache'}",
    ]  # fmt: skip
    both = [
        subprocess.Popen([*command, "--out", str(tmp_path / name)], stderr=subprocess.PIPE, text=True) for name in "ab"
    ]
    for process in both:
        _, errors = process.communicate(timeout=600)
        assert process.returncode == 0, errors
    weights = [load_file(tmp_path / name / "adapter" / "adapter_model.safetensors") for name in "ab"]
    assert same(*weights)


def test_a_run_that_is_stopped_goes_on_from_it(clips, backbone, tmp_path, monkeypatch):
    cache = [f"cache.path={tmp_path / 'cache'}", "cache.views=2", "cache.dtype=fp32"]
    _, expected = run(clips, backbone, tmp_path / "whole", *cache)
    real = features.PrefixCache.loader

    def loader(self, dataset, *args, **kwargs):
        os.kill(os.getpid(), signal.SIGINT)
        return real(self, dataset, *args, **kwargs)

    monkeypatch.setattr(features.PrefixCache, "loader", loader)
    with pytest.raises(Interrupted):
        run(clips, backbone, tmp_path / "parts", *cache)
    monkeypatch.setattr(features.PrefixCache, "loader", real)
    settings = tmp_path / "parts" / "config.yaml"
    train(read_config(settings), tmp_path / "parts", QUIET, resume=True)
    assert same(load_file(tmp_path / "parts" / "adapter" / "adapter_model.safetensors"), expected)


def test_a_run_goes_on_without_the_cache_that_it_had(clips, backbone, tmp_path, monkeypatch):
    cache = ["cache.views=1", "cache.dtype=fp32"]
    _, expected = run(clips, backbone, tmp_path / "whole", *cache, f"cache.path={tmp_path / 'other'}")
    seen = []
    real = features.PrefixCache.loader

    def loader(self, dataset, batches, *rest):
        if dataset.augmentation is None and seen:  # the second time validation clips are read: an epoch is over
            os.kill(os.getpid(), signal.SIGINT)
        seen.append(dataset)
        return real(self, dataset, batches, *rest)

    monkeypatch.setattr(features.PrefixCache, "loader", loader)
    with pytest.raises(Interrupted):
        run(clips, backbone, tmp_path / "parts", *cache, f"cache.path={tmp_path / 'cache'}")
    monkeypatch.undo()
    shutil.rmtree(tmp_path / "cache")
    train(read_config(tmp_path / "parts" / "config.yaml"), tmp_path / "parts", QUIET, resume=True)
    assert same(load_file(tmp_path / "parts" / "adapter" / "adapter_model.safetensors"), expected)


def test_a_damaged_file_is_named(clips, backbone, tmp_path):
    cache = ["cache.views=1", f"cache.path={tmp_path / 'cache'}"]
    run(clips, backbone, tmp_path / "one", *cache)
    for file in (tmp_path / "cache").glob("*/*.npy"):
        file.write_bytes(file.read_bytes()[:200])
    with pytest.raises(DataError, match=r"\.npy: damaged"):
        run(clips, backbone, tmp_path / "two", *cache)


def test_the_cache_is_where_it_was_from_any_folder(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    config = make_config("small", {"data.path": "."}, ["cache.path=kept"])
    assert config.cache.folder() == tmp_path / "kept"


def test_it_says_what_it_needs_and_stays_within_bounds(clips, backbone, tmp_path):
    cache = [f"cache.path={tmp_path / 'cache'}", "cache.views=2", "cache.dtype=fp32"]
    lines = Console(record=True, quiet=False, file=io.StringIO(), width=200)
    settings = {"data.path": clips, "data.shots": 3, "backbone": str(backbone)}
    config = make_config("small", settings, ["train.epochs=2", "data.workers=0", "method.dim=8", *cache])
    train(config, tmp_path / "run", lines)
    text = lines.export_text()
    assert "2 views of every training clip: 0.00 GB" in text
    assert "Approximate: prefix cache of 2 views of every training clip, in fp32" in text
    held = sum(file.stat().st_size for file in (tmp_path / "cache").glob("*/*.npy"))
    model = msta.attach(msta.load_backbone(backbone), msta.MSTAConfig(dim=8))
    dataset = ClipDataset(
        read_catalog(clips).clips, ClipFormat(4, 32, (0.5,) * 3, (0.25,) * 3), augmentation=Augmentation()
    )
    each = PrefixCache(tmp_path, model, max_gb=1, dtype="fp32").bytes_per_view(dataset)
    assert held == pytest.approx((2 * 6 + 6) * each, rel=0.1)  # NumPy's headers aside
    with pytest.raises(ConfigError, match=r"cache\.max_gb"):
        run(clips, backbone, tmp_path / "two", *cache, "cache.max_gb=1e-6", "train.seed=1")
    assert held == sum(file.stat().st_size for file in (tmp_path / "cache").glob("*/*.npy"))


def test_a_clip_that_cannot_be_read_is_left_out(clips, backbone, tmp_path):
    shutil.copytree(clips, tmp_path / "clips")
    broken = tmp_path / "clips" / "push" / "3.mp4"
    broken.write_bytes(broken.read_bytes()[:100])
    shots = {"data.path": tmp_path / "clips", "backbone": str(backbone), "data.val_fraction": 0}
    cache = [f"cache.path={tmp_path / 'cache'}", "cache.views=2", "train.epochs=2", "data.workers=0", "method.dim=8"]
    metrics = train(make_config("small", shots, cache), tmp_path / "run", QUIET)
    assert list(metrics["unreadable"]) == [str(broken)]


@pytest.mark.parametrize("method", ["full"])
def test_a_method_without_a_frozen_prefix_has_nothing_to_keep(clips, backbone, tmp_path, method):
    settings = {"data.path": clips, "data.shots": 3, "backbone": str(backbone), "cache.views": 2}
    with pytest.raises(ConfigError, match=r"cache\.views.*full"):
        train(make_config("small", settings, method=method), tmp_path / "run", QUIET)


def test_dropping_keeps_whole_tubes_and_still_learns(clips, backbone, tmp_path):
    if msta.load_backbone(backbone).architecture.rotary:
        with pytest.raises(ConfigError, match=r"train\.keep_tokens: this backbone, whose positions are rotary"):
            run(clips, backbone, tmp_path / "half", "train.keep_tokens=0.5")
        return
    _, dropped = run(clips, backbone, tmp_path / "half", "train.keep_tokens=0.5")
    _, cached = run(
        clips,
        backbone,
        tmp_path / "cached",
        "train.keep_tokens=0.5",
        "cache.views=3",
        f"cache.path={tmp_path / 'c'}",
        "cache.dtype=fp32",
    )
    assert near(dropped, cached)
