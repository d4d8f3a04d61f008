"""The optional decoder gives the frames that the default one gives."""

from __future__ import annotations

from fractions import Fraction

import numpy as np
import pytest
from conftest import SHARED
from hypothesis import given
from hypothesis import strategies as st
from video_files import frame_number, write_video

from msta.data import torchcodec_reader
from msta.data.decode import DecodeError, read_frames
from msta.errors import ConfigError

try:
    torchcodec_reader.require_torchcodec()
except ConfigError as error:
    pytest.skip(f"{error}", allow_module_level=True)


@pytest.fixture(scope="module")
def files(tmp_path_factory):
    folder = tmp_path_factory.mktemp("videos")
    return {
        "constant": write_video(folder / "constant.mp4", 30, b_frames=2),
        "variable": write_video(
            folder / "variable.mkv", 12, pts=[0, 40, 50, 300, 340, 700, 720, 730, 900, 1500, 1510, 1600]
        ),
        "wide pixels": write_video(folder / "wide.mp4", 20, sample_aspect_ratio=Fraction(4, 3)),
        "turned": write_video(folder / "turned.mp4", 20, rotation=(90, False, False)),
        "old": write_video(folder / "old.avi", 20),
    }


@given(data=st.data())
def test_it_shows_the_same_frames(files, data):
    path = files[data.draw(st.sampled_from(["constant", "variable", "old"]))]
    times = data.draw(st.lists(st.floats(-1, 3), min_size=1, max_size=6))
    within = data.draw(st.sampled_from([(None, None), (0.2, 0.6), (0.1, None)]))
    ours = read_frames(path, times, within=within)
    theirs = torchcodec_reader.read_frames(path, times, within=within)
    assert [frame_number(f) for f in theirs] == [frame_number(f) for f in ours]


@pytest.mark.parametrize("name", ["constant", "wide pixels", "turned"])
@pytest.mark.parametrize("squash", [False, True])
def test_it_has_the_same_shape_and_nearly_the_same_pixels(files, name, squash):
    ours = read_frames(files[name], [0, 0.3], 32, squash=squash)
    theirs = torchcodec_reader.read_frames(files[name], [0, 0.3], 32, squash=squash)
    assert ours.shape == theirs.shape
    assert np.abs(ours.astype(int) - theirs).mean() < 12  # of 255; the patterns have hard edges


def test_what_cannot_be_read_is_a_decode_error(tmp_path):
    (tmp_path / "no.mp4").write_bytes(b"no video")
    for path in (tmp_path / "no.mp4", tmp_path / "gone.mp4"):
        with pytest.raises(DecodeError, match=path.name):
            torchcodec_reader.read_frames(path, [0.0])


@pytest.mark.skipif(not (SHARED / "clips").is_dir(), reason="../shared/clips is not there")
@pytest.mark.parametrize("pattern", ["egogestar/swipe_left/*01.mp4", "ut_interaction/*/*.avi"])
def test_real_clips_look_the_same(pattern):
    path = sorted((SHARED / "clips").glob(pattern))[0]
    choose = lambda seconds: np.linspace(0, seconds, 8)  # noqa: E731
    ours, theirs = (read(path, choose, 64, squash=True) for read in (read_frames, torchcodec_reader.read_frames))
    assert np.abs(ours.astype(int) - theirs).mean() < 6  # bicubic and bilinear
