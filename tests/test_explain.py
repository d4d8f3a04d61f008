"""Explanations: they add up, they point at what was put there, and deleting what they point at costs the most."""

from __future__ import annotations

import json

import numpy as np
import pytest
import torch
from conftest import OUTSIDE, needs, stir, tiny
from video_files import write_video

import msta
from msta.data.clips import ONE_VIEW, read_views
from msta.data.decode import read_frames
from msta.data.video_file import DecodeError
from msta.errors import MSTAError
from msta.inference import Predictor
from msta.inference.explain import blank, delete, explain, log_odds, patch_relevance
from msta.inference.overlay import write_explanation

CLIPS = OUTSIDE / "clips" / "egogestar"


@pytest.fixture
def clip(tmp_path):
    rng = np.random.default_rng(0)
    frames = rng.integers(0, 256, (20, 5, 5, 3), np.uint8).repeat(8, 1).repeat(8, 2)
    return write_video(tmp_path / "clip.mp4", frames, fps=10)


@pytest.mark.parametrize("method", ["zero-shot", msta.MSTAConfig(dim=8), "full", "linear-probe"], ids=str)
def test_patches_add_up_to_what_the_clip_does_to_the_score(backbone, method, clip):
    model = msta.attach(backbone, method)
    if method == "linear-probe":
        model.prepare(2, 4)
        model.task = msta.adapters.task.Task(("push", "hug"))
    p = Predictor(stir(model, 0.05), ("push", "hug"))
    video = read_views(str(clip), p.format, ONE_VIEW)
    patches = patch_relevance(p, video, 0, steps=64)
    assert patches.shape == (4, 2, 2)
    with torch.no_grad():
        whole, nothing = (log_odds(p, model.encode_video(v), 0).item() for v in (video, blank(video)))
    assert patches.sum() == pytest.approx(whole - nothing, rel=0.02, abs=0.02)
    assert all(parameter.grad is None for parameter in model.parameters())
    assert bool(explain(p, clip).words) is (method != "linear-probe")


def test_words_are_those_of_the_prompt_and_one_class_alone_has_a_score(backbone, clip):
    p = Predictor(msta.attach(backbone, "zero-shot"), ("push it", "don't-stop"), template="a video of {}, slowly.")
    found = explain(p, clip, "don't-stop", steps=2)
    assert [word for word, _ in found.words] == ["a", "video", "of", "don't-stop", "slowly"]
    again = Predictor(p.model, ("push it", "don't-stop"), template=["a {}.", "the {}."])
    assert [word for word, _ in explain(again, clip, "push it", steps=2).words] == ["push", "it"]
    with pytest.raises(MSTAError, match="--class: 'jump' is none of push it, don't-stop"):
        explain(p, clip, "jump")
    hindi = Predictor(p.model, ("नमस्ते", "push"))
    assert "नमस्ते" in [word for word, _ in explain(hindi, clip, "नमस्ते", steps=2).words]
    assert np.isfinite(explain(Predictor(p.model, ("push",)), clip, steps=2).score)


def test_a_part_of_a_video_is_explained_by_its_own_frames(backbone, clip):
    p = Predictor(msta.attach(backbone, "zero-shot"), ("push", "hug"))
    part = explain(p, clip, span=(1.0, None), steps=2)
    assert part.times == pytest.approx([1.125, 1.375, 1.625, 1.875])
    expected = read_frames(clip, part.times, 32)
    assert np.abs(part.frames.astype(int) - expected).max() <= 1


def test_a_part_between_two_frames_shows_the_frame_on_display(backbone, clip, tmp_path):
    p = Predictor(msta.attach(backbone, "zero-shot"), ("push", "hug"))
    span = (0.01, 0.02)
    write_explanation(explain(p, clip, span=span, steps=2), str(clip), tmp_path / "why", span)
    assert read_frames(tmp_path / "why" / "overlay.mp4", [0.0]).shape[0] == 1
    with pytest.raises(DecodeError, match="a range must begin before it ends, not from 1 to 0.5 s"):
        explain(p, clip, span=(1.0, 0.5), steps=2)


def test_files_that_it_writes(clip, tmp_path):
    p = Predictor(msta.attach(msta.random_backbone(tiny(fit="squash")), "zero-shot"), ("push", "hug"))
    data = write_explanation(explain(p, clip, steps=2), str(clip), tmp_path / "why")
    assert json.loads((tmp_path / "why" / "explanation.json").read_text()) == data
    assert (tmp_path / "why" / "strip.png").read_bytes().startswith(b"\x89PNG")
    assert read_frames(tmp_path / "why" / "overlay.mp4", [1.9]).shape[0] == 1
    with pytest.raises(MSTAError, match="exists already"):
        write_explanation(explain(p, clip, steps=2), str(clip), tmp_path / "why")


@needs("clips")
def test_deleting_what_it_points_at_costs_more_than_deleting_anything_else():
    classes = ("swipe left", "swipe right", "swipe up", "swipe down")
    p = Predictor(msta.attach(msta.load_backbone("toy"), "zero-shot"), classes)
    rng, worse = np.random.default_rng(0), []
    for i in ("03", "11"):
        video = read_views(str(CLIPS / "swipe_left" / f"swipe_left_{i}.mp4"), p.format, ONE_VIEW)
        patches = patch_relevance(p, video, 0, steps=8)

        def drop(order, patches=patches, video=video):
            chosen = np.zeros(patches.size, bool)
            chosen[order[: patches.size // 10]] = True
            with torch.no_grad():
                gone = delete(video, chosen.reshape(patches.shape), p.model.backbone.video.patch_size)
                return float(log_odds(p, p.model.encode_video(video), 0) - log_odds(p, p.model.encode_video(gone), 0))

        random = [drop(rng.permutation(patches.size)) for _ in range(8)]
        worse.append(drop(np.argsort(-patches.ravel())) > max(random))
    assert all(worse)


def test_the_command_says_what_mattered(clip, tmp_path, monkeypatch, capsys):
    from msta import cli

    msta.random_backbone(tiny()).save(tmp_path / "backbone")
    command = f"msta explain {clip} --backbone {tmp_path / 'backbone'} --labels push,hug --class hug --steps 2"
    monkeypatch.setattr(
        "sys.argv", [*command.split(), "--start", "0.5s", "--end", "1.5s", "--out", str(tmp_path / "why")]
    )
    with pytest.raises(SystemExit) as stopped:
        cli.main()
    assert not stopped.value.code
    told = capsys.readouterr().out
    assert told.startswith("hug ")
    assert told.endswith(f"pictures in {tmp_path / 'why'}\n")
    assert {path.name for path in (tmp_path / "why").iterdir()} == {"strip.png", "overlay.mp4", "explanation.json"}
    data = json.loads((tmp_path / "why" / "explanation.json").read_text())
    assert all(0.5 < frame["time"] < 1.5 for frame in data["frames"])
