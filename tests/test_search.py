"""Search: the nearest moments by brute force, and an index that reads only what is new."""

from __future__ import annotations

import json
import os

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from conftest import stir, tiny
from video_files import write_video

import msta
from msta.adapters.inputs import clip_format
from msta.data.clips import ONE_VIEW, cut_views
from msta.data.decode import read_frames
from msta.errors import ConfigError, DataError
from msta.inference import Windows
from msta.inference import search as module
from msta.inference.search import INDEX, Index, index_file, index_key, query_embedding, read_index, update_index
from msta.inference.windows import window_at

WINDOWS = Windows(1.0, 0.5)


@pytest.fixture
def folder(tmp_path):
    (tmp_path / "videos" / "below").mkdir(parents=True)
    for k, name in enumerate(("a.mp4", "below/b.mp4")):
        frames = np.random.default_rng(k).integers(0, 256, (20, 5, 5, 3), np.uint8).repeat(8, 1).repeat(8, 2)
        write_video(tmp_path / "videos" / name, frames, fps=10)
    return tmp_path / "videos"


@pytest.fixture
def model():
    return msta.attach(msta.random_backbone(tiny()), "zero-shot").eval()


@pytest.fixture
def reads(monkeypatch):
    seen, read = [], module._read
    monkeypatch.setattr(module, "_read", lambda m, path, w: (seen.append(path.name), read(m, path, w))[1])
    return seen


def test_the_nearest_moments_are_those_of_each_window_on_its_own(folder, model):
    index = update_index(model, folder, folder / "i.parquet", WINDOWS)
    query = query_embedding(model, "someone falls")
    form, scores = clip_format(model), {}
    for name in ("a.mp4", "below/b.mp4"):
        for i in range(3):
            window = window_at(i, Windows(1.0, 0.5), form.frames)
            clip = cut_views(read_frames(folder / name, window.times, form.size), form, ONE_VIEW)
            with torch.no_grad():
                scores[name, window.start] = float(F.normalize(model.encode_video(clip))[0] @ torch.from_numpy(query))
    assert {(p, s) for p, (s, _) in zip(index.paths, index.spans, strict=True)} == set(scores)
    first, *others = index.nearest(query, 10)
    assert (first.path, first.start) == max(scores, key=lambda k: scores[k])
    assert first.score == pytest.approx(max(scores.values()), abs=1e-5)
    for a in others:
        assert a.path != first.path or a.start >= first.end or a.end <= first.start  # no overlap
        assert a.score == pytest.approx(scores[a.path, a.start], abs=1e-5)


def test_only_what_is_new_or_changed_is_read_and_what_is_gone_is_dropped(folder, model, reads):
    file = folder / "i.parquet"
    first = update_index(model, folder, file, WINDOWS)
    assert reads == ["a.mp4", "b.mp4"]
    again = update_index(model, folder, file, WINDOWS)
    assert len(reads) == 2
    np.testing.assert_array_equal(first.embeddings, again.embeddings)
    write_video(folder / "c.mp4", 20, fps=10)
    os.utime(folder / "a.mp4", ns=(1, 1))
    (folder / "below" / "b.mp4").unlink()
    (folder / "bad.mp4").write_bytes(b"no video")
    changed = update_index(model, folder, file, WINDOWS)
    assert reads[2:] == ["a.mp4", "bad.mp4", "c.mp4"]
    assert set(changed.paths) == {"a.mp4", "c.mp4"}
    update_index(model, folder, file, WINDOWS)
    assert len(reads) == 5  # a broken one, too, is not read again


def test_a_link_that_leads_nowhere_is_left_out(folder, model, caplog):
    (folder / "gone.mp4").symlink_to("nowhere.mp4")
    index = update_index(model, folder, folder / "i.parquet", WINDOWS)
    assert set(index.files) == {"a.mp4", "below/b.mp4"}
    assert "Left out, cannot be read: " in caplog.text
    assert "gone.mp4" in caplog.text


def test_what_was_read_is_kept_when_it_is_interrupted(folder, model, reads, monkeypatch):
    def stop(number, count, path):
        if (number, count) == (2, 2) and path.endswith("b.mp4"):
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        update_index(model, folder, folder / "i.parquet", WINDOWS, stop)
    update_index(model, folder, folder / "i.parquet", WINDOWS)
    assert reads == ["a.mp4", "b.mp4"]


def test_another_model_or_other_windows_have_an_index_of_their_own(folder, model, reads):
    file = folder / "i.parquet"
    update_index(model, folder, file, WINDOWS)
    other = stir(msta.attach(msta.random_backbone(tiny()), msta.MSTAConfig(dim=8)), 0.1).eval()
    keys = {index_key(model, WINDOWS), index_key(model, Windows(1.0, 0.25)), index_key(other, WINDOWS)}
    assert len(keys) == 3
    assert read_index(file).key in keys
    with pytest.raises(DataError, match=r"i\.parquet: was made by another model .* name another --index"):
        update_index(other, folder, file, WINDOWS)
    assert len(reads) == 2
    places = [index_file(m, folder, WINDOWS) for m in (model, other)]
    assert places == [folder / INDEX] * 2  # the first that comes has it
    update_index(model, folder, places[0], WINDOWS)
    places = [index_file(m, folder, w) for m in (model, other) for w in (WINDOWS, Windows(1.0, 0.25))]
    assert places[0] == folder / INDEX
    assert len(set(places)) == 4
    for m in (model, other, model, other):
        update_index(m, folder, index_file(m, folder, WINDOWS), WINDOWS)
    assert len(reads) == 6  # each model read each video once


def test_an_empty_sentence_ranks_nothing(model):
    for text in ("", "  "):
        with pytest.raises(ConfigError, match="the sentence is empty"):
            query_embedding(model, text)


def test_errors_name_the_file(tmp_path, model):
    with pytest.raises(DataError, match="no folder"):
        update_index(model, tmp_path / "gone", tmp_path / "i.parquet", WINDOWS)
    with pytest.raises(DataError, match="no video files"):
        update_index(model, tmp_path, tmp_path / "i.parquet", WINDOWS)
    (tmp_path / "i.parquet").write_bytes(b"PAR1 and nothing more")
    with pytest.raises(DataError, match=r"i\.parquet: no index that msta wrote"):
        read_index(tmp_path / "i.parquet")
    with pytest.raises(ConfigError, match="linear-probe reads no words"):
        query_embedding(msta.attach(model.backbone, "linear-probe"), "someone falls")


def test_the_page_and_the_command(folder, model, tmp_path, monkeypatch, capsys):
    from msta import cli

    model.backbone.save(tmp_path / "backbone")
    page = tmp_path / "found.html"
    monkeypatch.setattr("sys.argv", ["msta", "search", "a <b> & c", "--in", str(folder), "--backbone", str(tmp_path / "backbone"),
                                     "--window", "1s", "--top", "2", "--out", str(page), "--json"])  # fmt: skip
    with pytest.raises(SystemExit) as stopped:
        cli.main()
    assert not stopped.value.code
    found = json.loads(capsys.readouterr().out)
    assert len(found) == 2
    assert found[0]["score"] >= found[1]["score"]
    text = page.read_text()
    assert "a &lt;b&gt; &amp; c" in text
    assert text.count("data:image/jpeg;base64,") == 2
    assert (folder / ".msta-index.parquet").exists()


def test_of_many_windows_the_best_without_overlap():
    rng = np.random.default_rng(0)
    embeddings = F.normalize(torch.from_numpy(rng.normal(size=(60, 8))).float(), dim=1).numpy()
    spans = np.stack([np.arange(60) % 20, np.arange(60) % 20 + 3], axis=1).astype(float)
    index = Index("", {}, [f"{i // 20}" for i in range(60)], spans, embeddings)
    found = index.nearest(embeddings[7], 100)
    assert (found[0].path, found[0].start) == ("0", 7.0)
    assert [m.score for m in found] == sorted((m.score for m in found), reverse=True)
    for i in range(60):  # whatever is left out overlaps a better one
        score = float(embeddings[i] @ embeddings[7])
        near = [m for m in found if m.path == index.paths[i] and m.start < spans[i, 1] and spans[i, 0] < m.end]
        assert any(m.score >= score - 1e-6 for m in near)
