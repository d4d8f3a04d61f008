"""``msta serve``: right answers, and refusals with a reason, whatever is sent."""

from __future__ import annotations

import asyncio
import contextlib
import gzip
import http.client
import io
import json
import os
import random
import re
import shutil
import signal
import socket
import subprocess
import sys
import threading
import time
import zipfile
from pathlib import Path

import numpy as np
import pytest
import torch
from conftest import saved_adapter, tiny
from video_files import numbered_frames, write_video

import msta
from msta.data.clips import ONE_VIEW, read_views
from msta.data.decode import VideoInfo
from msta.errors import ConfigError, MSTAError
from msta.inference.predictor import Predictor
from msta.inference.shared_backbone import SharedBackbone

pytest.importorskip("fastapi", reason="needs the extra serve")
from fastapi.testclient import TestClient

from msta.inference.serving import exceeded_limit, listen
from msta.serve.adapters import Adapters
from msta.serve.app import create_app
from msta.serve.batching import Batcher
from msta.serve.limits import Limits, Refusal, path_under, refuse_archives
from msta.serve.server import read_keys, serve
from msta.serve.workers import Workers

CLASSES = ("push", "hug", "walk")
KEY = "a-key-of-sixteen-characters"
SOURCE = Path(msta.__file__).parents[1]


@pytest.fixture(scope="module")
def folder(tmp_path_factory) -> Path:
    """adapters/a, b, c (of one backbone), d (of another); videos/clip.mp4 and other.mp4; bb: the backbone."""
    where = tmp_path_factory.mktemp("service")
    backbone = msta.random_backbone(tiny())
    backbone.save(where / "bb")
    for i, name in enumerate("abcd"):
        own = backbone if name != "d" else msta.random_backbone(tiny(), seed=1)
        saved_adapter(where / "adapters" / name, i, CLASSES, own)
    (where / "videos").mkdir()
    write_video(where / "videos" / "clip.mp4", 20)
    write_video(where / "videos" / "other.mp4", numbered_frames(30, start=900))
    return where


@pytest.fixture(scope="module")
def backbone(folder) -> msta.DualEncoder:
    return msta.load_backbone(str(folder / "bb"))


@pytest.fixture(scope="module")
def client(folder, backbone):
    app = create_app(backbone, folder / "adapters", root=folder / "videos", keys=[KEY], workers=1)
    with TestClient(app, headers={"Authorization": f"Bearer {KEY}"}, raise_server_exceptions=False) as client:
        yield client


def send(client, content: bytes, adapter: str = "a", **fields):
    return client.post("/v1/classify", files={"file": ("x.mp4", content)}, data={"adapter": adapter, **fields})


def refused(response, status: int, says: str) -> None:
    assert response.status_code == status, response.text
    assert set(response.json()) == {"detail"}
    assert re.search(says, response.json()["detail"]), response.text
    assert "Traceback" not in response.text
    assert "\n" not in response.json()["detail"]


def probabilities(folder: Path, backbone, adapter: str, video: str) -> list[float]:
    member = Predictor(msta.load_adapter(folder / "adapters" / adapter, backbone))
    views = read_views(str(folder / "videos" / video), member.format, ONE_VIEW)
    with torch.no_grad():
        return member.probabilities(member.model.encode_video(views)[None])[0].tolist()


# ---------------------------------------------------------------- answers


@pytest.mark.parametrize("adapter", ["a", "b", "c"])
@pytest.mark.parametrize("video", ["clip.mp4", "other.mp4"])
def test_an_answer_is_what_the_adapter_says_alone(client, folder, backbone, adapter, video):
    expected = probabilities(folder, backbone, adapter, video)
    uploaded = send(client, (folder / "videos" / video).read_bytes(), adapter).json()
    by_path = client.post("/v1/classify", data={"adapter": adapter, "path": video}).json()
    assert uploaded == by_path
    assert uploaded["adapter"] == adapter
    found = {p["label"]: p["probability"] for p in uploaded["predictions"]}
    assert [found[name] for name in CLASSES] == pytest.approx(expected, abs=1e-5)
    ranked = [p["probability"] for p in uploaded["predictions"]]
    assert ranked == sorted(ranked, reverse=True)


def test_embeddings(client, backbone, folder):
    plain = client.post("/v1/embed", data={"path": "clip.mp4"}).json()
    adapted = client.post("/v1/embed", data={"path": "clip.mp4", "adapter": "a"}).json()
    assert np.linalg.norm(plain["embedding"]) == pytest.approx(1, abs=1e-5)
    assert not np.allclose(plain["embedding"], adapted["embedding"], atol=1e-3)


def test_adapters_are_listed_loaded_and_unloaded(client):
    assert client.post("/v1/adapters/a/load").json()["loaded"]
    state = client.post("/v1/adapters/a/unload").json()
    assert state == {"name": "a", "loaded": False, "bytes": None, "classes": None}
    listed = {a["name"]: a["loaded"] for a in client.get("/v1/adapters").json()}
    assert set(listed) == set("abcd")
    assert not listed["a"]
    assert client.post("/v1/adapters/a/load").json()["classes"] == list(CLASSES)
    refused(client.post("/v1/adapters/nobody/unload"), 404, "nobody")
    refused(client.post("/v1/adapters/d/load"), 409, "^adapter: d: was trained on the backbone")


def test_any_folder_is_a_name_and_an_adapter_that_changed_is_loaded_again(folder, backbone, tmp_path):
    for name in ("gestes-été", "my adapter", ".hidden"):
        shutil.copytree(folder / "adapters" / "a", tmp_path / name)
    adapters = Adapters(backbone, tmp_path, 2**30)
    assert adapters.names() == ["gestes-été", "my adapter"]
    assert asyncio.run(adapters.get("my adapter")).classes == CLASSES
    for name in ("../adapters/a", ".hidden", "a/../my adapter", "a\0"):
        with pytest.raises(Refusal):
            asyncio.run(adapters.get(name))
    shutil.rmtree(tmp_path / "my adapter")
    saved_adapter(tmp_path / "my adapter", 1, ("sit", "stand"), backbone)
    assert asyncio.run(adapters.get("my adapter")).classes == ("sit", "stand")


def test_a_file_that_may_not_be_read_is_not_there(tmp_path):
    with pytest.raises(Refusal) as refusal:
        refuse_archives(tmp_path)  # no file can be opened here
    assert refusal.value.status_code == 404


def test_the_adapters_not_asked_for_longest_make_room(folder, backbone):
    size = Predictor(msta.load_adapter(folder / "adapters" / "a", backbone)).own_bytes(backbone)
    limits = Limits(adapter_bytes=2 * size)
    with TestClient(create_app(backbone, folder / "adapters", root=folder / "videos", limits=limits, workers=1)) as c:
        for name in "abacb":
            assert c.post("/v1/adapters/" + name + "/load").status_code == 200
            loaded = [a["name"] for a in c.get("/v1/adapters").json() if a["loaded"]]
            assert len(loaded) <= 2
            assert name in loaded
        assert loaded == ["b", "c"], "a was asked for before c, and c before b"
        assert "msta_adapters_evicted 2.0" in c.get("/metrics").text


@pytest.mark.parametrize(("lanes", "expected"), [(1, [4, 4, 1]), (2, [4, 4, 1]), (3, [3, 3, 3])])
def test_requests_that_wait_together_are_computed_together(folder, backbone, lanes, expected):
    shared, sizes = SharedBackbone(backbone), []
    members = [Predictor(msta.load_adapter(folder / "adapters" / name, backbone)) for name in "abc"]
    clips = torch.randn(9, 1, 4, 3, 32, 32)

    async def run():
        batcher = Batcher(shared, 4, sizes.append, lanes)
        jobs = [asyncio.create_task(batcher.answer(clip, members[i % 3])) for i, clip in enumerate(clips)]
        await asyncio.sleep(0)
        batcher.start()
        answers = await asyncio.gather(*jobs)
        await batcher.stop()
        return answers

    answers = asyncio.run(run())
    assert sizes == expected
    for i, (found, embeddings) in enumerate(answers):
        with torch.no_grad():
            alone = members[i % 3].model.encode_video(clips[i])
        assert torch.allclose(embeddings, alone, atol=1e-5)
        assert np.allclose(found, members[i % 3].probabilities(alone[None])[0], atol=1e-5)


def test_metrics_count(client, folder):
    before = client.get("/metrics").text
    client.post("/v1/classify", data={"adapter": "a", "path": "clip.mp4"})
    line = re.compile(r'^msta_requests_total\{route="/v1/classify",status="200"\} (\S+)$', re.M)
    assert float(line.search(client.get("/metrics").text)[1]) == float((line.search(before) or [0, 0])[1]) + 1


# ---------------------------------------------------------------- refusals


def test_keys(folder, backbone, client):
    assert client.get("/healthz", headers={"Authorization": ""}).json()["status"] == "ok"
    assert client.get("/readyz", headers={"Authorization": ""}).json()["status"] == "ready"
    for header in ("", "Bearer", "Bearer wrong", KEY, f"Basic {KEY}", f"Bearer {KEY[:-1]}", f"Bearer {KEY}x"):
        for path in ("/v1/adapters", "/metrics", "/v1/nothing"):
            refused(client.get(path, headers={"Authorization": header}), 401, "key")
    assert client.get("/v1/adapters", headers={"Authorization": f"bearer {KEY}"}).status_code == 200


def test_keys_are_read_and_needed(tmp_path, monkeypatch, folder, backbone):
    file = tmp_path / "keys"
    file.write_text(f"# mine\n{KEY}\n\nanother-key-of-mine\n")
    assert read_keys(file) == [KEY, "another-key-of-mine"]
    file.write_text(f"{KEY}\nanother-key-of-mine\n", encoding="utf-16")  # by a Windows shell
    assert read_keys(file) == [KEY, "another-key-of-mine"]
    monkeypatch.setenv("MSTA_API_KEYS", f"{KEY}, another-key-of-mine")
    assert read_keys(None) == [KEY, "another-key-of-mine"]
    for content in ("", "# none\n", "short\n", "with a space in the middle\n", "ümlaute-sind-kein-ascii\n"):
        file.write_text(content)
        with pytest.raises(MSTAError, match=re.escape(str(file))):
            read_keys(file)
    with pytest.raises(ConfigError, match="--keys"):
        serve(backbone, folder / "adapters", host="0.0.0.0", keys=[])


@pytest.mark.parametrize(
    "path",
    ["../bb/config.json", "/etc/passwd", "x/../../bb/config.json", "link", "out/config.json", "./../bb/config.json"],
)
def test_paths_that_lead_out_of_the_root(client, folder, path):
    for name, target in (("link", folder / "bb" / "config.json"), ("out", folder / "bb")):
        if not (folder / "videos" / name).is_symlink():
            (folder / "videos" / name).symlink_to(target)
    refused(client.post("/v1/classify", data={"adapter": "a", "path": path}), 403, "leads out")


@pytest.mark.parametrize(
    "path",
    ["none.mp4", "http://localhost/x.mp4", "file:clip.mp4", "concat:clip.mp4|other.mp4", "x" * 900, "", "a\0b", "~"],
)
def test_paths_that_are_no_files(client, path):
    response = client.post("/v1/classify", data={"adapter": "a", "path": path})
    refused(response, 422 if path == "" else 404, "no such file|either file or path|adapter")


def test_no_root_no_paths():
    with pytest.raises(Refusal, match="upload"):
        path_under(None, "clip.mp4")


def zipped(content: bytes) -> bytes:
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("clip.mp4", content)
    return buffer.getvalue()


PLAYLIST = "#EXTM3U\n#EXT-X-TARGETDURATION:10\n#EXTINF:10,\n{}\n#EXT-X-ENDLIST\n"


@pytest.mark.parametrize(
    ("content", "status", "says"),
    [
        (b"", 422, "empty|file"),
        (b"no video", 415, "not a video"),
        (random.Random(0).randbytes(5000), 415, "not a video"),
        (b"[00:01.00]a line of a song\n", 415, "not a video"),
        (zipped(bytes(10**6)), 415, "zip archive"),
        (gzip.compress(bytes(10**7)), 415, "gzip archive"),
        (b'<?xml version="1.0"?><!DOCTYPE x [<!ENTITY a "b">]><svg>&a;</svg>', 415, "not a video"),
    ],
    ids=["empty", "text", "noise", "lyrics", "zip bomb", "gzip bomb", "xml"],
)
def test_what_is_no_video(client, content, status, says):
    refused(send(client, content), status, says)


def test_playlists_open_neither_files_nor_connections(client, folder):
    """m3u8, concat and the like name files or URLs; FFmpeg would open them."""
    listening = socket.create_server(("127.0.0.1", 0))
    listening.settimeout(0.2)
    url = f"http://127.0.0.1:{listening.getsockname()[1]}/clip.mp4"
    clip = folder / "videos" / "clip.mp4"
    for target in (url, str(clip), clip.as_uri(), f"concat:{clip}", f"subfile,,start,0,end,0,,:{clip}"):
        for content in (
            PLAYLIST.format(target),
            f"ffconcat version 1.0\nfile '{target}'\n",
            f"[playlist]\nFile1={target}\n",
            f'<?xml version="1.0"?><MPD xmlns="urn:mpeg:dash:schema:mpd:2011" type="static"><Period><AdaptationSet '
            f'mimeType="video/mp4"><Representation id="1" bandwidth="1"><BaseURL>{target}</BaseURL></Representation>'
            f"</AdaptationSet></Period></MPD>",
            f"v=0\no=- 0 0 IN IP4 127.0.0.1\ns=x\nc=IN IP4 127.0.0.1\nm=video 5004 RTP/AVP 96\na=control:{target}\n",
        ):
            response = send(client, content.encode())
            assert response.status_code in (415, 422), (content, response.text)
    with pytest.raises(TimeoutError):
        listening.accept()
    listening.close()


def test_limits_of_a_video(folder, backbone, tmp_path):
    clip = (folder / "videos" / "clip.mp4").read_bytes()  # 20 frames of 64 x 48, under a second
    for limits, says in (
        (Limits(seconds=0.1), "s of video; the limit is 0.1 s"),
        (Limits(pixels=3000), "64 x 48 pixels; the limit is 3,000"),
        (Limits(frames=19), "20 frames; the limit is 19"),
        (Limits(body_bytes=1000), "1,000 bytes"),
    ):
        with TestClient(create_app(backbone, folder / "adapters", limits=limits, workers=1)) as c:
            refused(send(c, clip), 413, says)


def test_requests_over_the_limit_are_told_to_come_again(folder, backbone):
    limits = Limits(concurrent=1, queue=1)
    with TestClient(create_app(backbone, folder / "adapters", root=folder / "videos", limits=limits, workers=1)) as c:
        answers = []

        def ask():
            answers.append(c.post("/v1/classify", data={"adapter": "a", "path": "clip.mp4"}))

        threads = [threading.Thread(target=ask) for _ in range(12)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        statuses = [r.status_code for r in answers]
        assert set(statuses) == {200, 429}
        for r in answers:
            if r.status_code == 429:
                refused(r, 429, "waiting")
                assert r.headers["retry-after"] == "1"
        ask()
        assert answers[-1].status_code == 200, "afterwards there is room again"


@pytest.mark.parametrize(
    ("fields", "says"),
    [
        ({}, "adapter"),
        ({"adapter": "a"}, "file or path"),
        ({"adapter": "a", "path": "clip.mp4", "top": "0"}, "top"),
        ({"adapter": "a", "path": "clip.mp4", "top": "many"}, "top"),
        ({"adapter": "x" * 200, "path": "clip.mp4"}, "adapter"),
    ],
)
def test_wrong_fields(client, fields, says):
    refused(client.post("/v1/classify", data=fields), 422, says)


@pytest.mark.parametrize("name", ["..", "../adapters/a", ".", "a/../a", "%2e%2e", "a\0", "A" * 101])
def test_names_that_are_no_adapters(client, name):
    refused(
        client.post("/v1/classify", data={"adapter": name, "path": "clip.mp4"}), 422 if len(name) > 100 else 404, ""
    )


def test_links_out_of_the_adapters_folder_are_no_adapters(client, folder, tmp_path):
    shutil.copytree(folder / "adapters" / "a", tmp_path / "outside")
    link = folder / "adapters" / "linked"
    link.symlink_to(tmp_path / "outside")
    try:
        assert "linked" not in {a["name"] for a in client.get("/v1/adapters").json()}
        refused(client.post("/v1/adapters/linked/load"), 404, "linked")
    finally:
        link.unlink()


def test_forms_of_very_many_parts_are_refused(client):
    fields = [("adapter", "a"), ("path", "clip.mp4")]
    refused(client.post("/v1/classify", files=[(f"f{i}", ("x", b"")) for i in range(5000)]), 400, "Too many")
    assert client.post("/v1/classify", data=dict(fields)).status_code == 200


def test_compressed_bodies_are_not_unpacked(client):
    body = gzip.compress(b"x" * 10**6)
    refused(client.post("/v1/classify", content=body, headers={"Content-Encoding": "gzip"}), 415, "compressed")


def test_requests_that_take_too_long_are_given_up(folder, backbone, monkeypatch):
    limits = Limits(request_seconds=0.5)
    with TestClient(create_app(backbone, folder / "adapters", root=folder / "videos", limits=limits, workers=1)) as c:

        async def never(*args):
            await asyncio.sleep(60)

        monkeypatch.setattr(c.app.state.service.workers, "decode", never)
        refused(c.post("/v1/classify", data={"adapter": "a", "path": "clip.mp4"}), 504, "not done within 0.5 s")
        assert c.get("/v1/adapters").status_code == 200


def test_errors_of_the_service_itself_say_nothing_of_it(client, monkeypatch):
    monkeypatch.setattr(client.app.state.service.workers, "decode", lambda *args: 1 / 0)
    refused(
        client.post("/v1/classify", data={"adapter": "a", "path": "clip.mp4"}), 500, "internal error of the service"
    )


def test_answers_are_not_held_back():
    """asyncio turns Nagle's algorithm off for sockets that say they are TCP; else each answer waits for 40 ms."""
    with listen("127.0.0.1", 0) as listening:
        assert listening.proto == socket.IPPROTO_TCP


# ---------------------------------------------------------------- hostile files


def run_with_workers(limits: Limits, jobs, count: int = 1):
    """What ``jobs(workers, lost)`` gives; lost: why processes were replaced."""

    async def run():
        lost: list[str] = []
        workers = Workers(count, limits, lost.append)
        await workers.start()
        try:
            return await jobs(workers, lost)
        finally:
            await workers.stop()

    return asyncio.run(run())


def test_a_file_that_kills_or_stops_its_worker_costs_only_itself(folder, backbone):
    form = Predictor(msta.load_adapter(folder / "adapters" / "a", backbone)).format
    clip = folder / "videos" / "clip.mp4"

    async def jobs(workers, lost):
        expected = await workers.decode(clip, form)
        for how, why in ((signal.SIGKILL, "ended its process"), (signal.SIGSTOP, "takes more than")):
            (process,) = workers._alive
            os.kill(process.pid, how)
            with pytest.raises(Refusal, match=why):
                await workers.decode(clip, form)
            assert np.array_equal(await workers.decode(clip, form), expected), "a new process goes on"
        assert lost == ["died", "timeout"]

    run_with_workers(Limits(decode_seconds=10), jobs)


def test_memory_of_a_worker_is_limited(tmp_path, backbone, folder):
    form = Predictor(msta.load_adapter(folder / "adapters" / "a", backbone)).format
    large = tmp_path / "large.mp4"
    write_video(large, numbered_frames(2, 2048, 2048))

    async def jobs(workers, lost):
        with pytest.raises(Refusal) as caught:
            await workers.decode(large, form)
        assert caught.value.status_code in (413, 422)
        assert (await workers.decode(folder / "videos" / "clip.mp4", form)).shape == (4, 32, 43, 3)

    run_with_workers(Limits(decode_bytes=16 * 2**20), jobs)


def test_a_worker_may_do_little(tmp_path):
    code = (
        "import resource as r, socket; from msta.serve.worker import confine, allow_seconds\n"
        "confine(2**28); allow_seconds(1)\n"
        "try: open('made', 'wb', buffering=0).write(b'x')\n"
        "except OSError: print('no file')\n"
        "try: bytearray(2**29)\n"
        "except MemoryError: print('no memory', flush=True)\n"
        "while True: pass\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", f"import signal; signal.signal(signal.SIGXFSZ, signal.SIG_IGN)\n{code}"],
        env={"PYTHONPATH": str(SOURCE)}, capture_output=True, text=True, timeout=60, cwd=tmp_path,
    )  # fmt: skip
    assert done.stdout.split("\n")[:2] == ["no file", "no memory"], done.stderr
    assert done.returncode == -signal.SIGXCPU


def test_the_worker_does_without_torch():
    code = "import sys, msta.serve.worker; print('torch' in sys.modules)"
    done = subprocess.run([sys.executable, "-c", code], env={"PYTHONPATH": str(SOURCE)}, capture_output=True, text=True)
    assert done.stdout == "False\n", done.stderr


def test_videos_of_one_odd_shape_do_not_fill_memory(tmp_path):
    info = VideoInfo("x", 1.0, 10, 10.0, 100_000, 2, 0, "h264")
    assert exceeded_limit(info, {"seconds": 9, "pixels": 150_000, "frames": 99})


# ---------------------------------------------------------------- the process


@pytest.fixture(scope="module")
def process(folder):
    """``msta serve`` as a user starts it; its port."""
    environment = {**os.environ, "PYTHONPATH": str(SOURCE), "MSTA_API_KEYS": KEY, "OMP_NUM_THREADS": "1"}
    running = subprocess.Popen(
        [sys.executable, "-m", "msta", "serve", "--adapters", folder / "adapters", "--backbone", folder / "bb",
         "--root", folder / "videos", "--port", "0", "--max-mb", "1", "--workers", "1"],
        env=environment, stderr=subprocess.PIPE, text=True,
    )  # fmt: skip
    running.port = int(re.search(r":(\d+) ", running.stderr.readline())[1])
    while ask(running.port, "GET", "/readyz")[0] != 200:
        time.sleep(0.1)
    yield running
    running.kill()
    running.wait()


def ask(port: int, method: str, path: str, body=None, headers=None, **more) -> tuple[int, bytes]:
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=30)
    try:
        connection.request(method, path, body, {"Authorization": f"Bearer {KEY}", **(headers or {})}, **more)
        response = connection.getresponse()
        return response.status, response.read()
    finally:
        connection.close()


def test_bodies_without_a_length_are_counted(process):
    chunk, sent = b"x" * 65536, []

    def endless():
        for _ in range(200):
            sent.append(1)
            yield chunk

    head = b'--b\r\nContent-Disposition: form-data; name="file"; filename="x"\r\n\r\n'

    def body():
        yield head
        yield from endless()

    headers = {"Content-Type": "multipart/form-data; boundary=b", "Transfer-Encoding": "chunked"}
    try:
        status, answer = ask(process.port, "POST", "/v1/classify", body(), headers, encode_chunked=True)
        assert status == 413, answer
        assert "1,048,576 bytes" in json.loads(answer)["detail"]
    except (BrokenPipeError, ConnectionResetError):
        pass  # it does not read on to the end
    assert ask(process.port, "GET", "/healthz")[0] == 200


def test_a_stated_length_is_believed_before_it_comes(process):
    with socket.create_connection(("127.0.0.1", process.port), timeout=30) as s:
        head = f"POST /v1/classify HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer {KEY}\r\nContent-Length: 9999999999\r\n\r\n"
        s.sendall(head.encode())
        assert s.recv(4096).startswith(b"HTTP/1.1 413")


@pytest.mark.parametrize("headers", [{"X": "y" * 100_000}, {f"X-{i}": "y" * 100 for i in range(1000)}])
def test_headers_that_are_too_long(process, headers):
    with contextlib.suppress(OSError, http.client.HTTPException):  # the connection may be closed before the answer
        assert ask(process.port, "GET", "/v1/adapters", headers=headers)[0] in (400, 431)
    assert ask(process.port, "GET", "/healthz")[0] == 200


def test_what_is_no_http(process):
    for data in (b"\0" * 2000, b"GET\r\n\r\n", b"\x16\x03\x01\x02\x00\x01" + random.Random(0).randbytes(300)):
        with socket.create_connection(("127.0.0.1", process.port), timeout=30) as s:
            s.sendall(data)
            s.shutdown(socket.SHUT_WR)
            assert s.recv(4096)[:12] in (b"", b"HTTP/1.1 400")
    assert ask(process.port, "GET", "/healthz")[0] == 200


def test_a_run_is_served_as_its_adapter_and_none_is_said(folder, backbone, tmp_path):
    name = sorted(p.name for p in (folder / "adapters").iterdir() if (p / "adapter_config.json").exists())[0]
    shutil.copytree(folder / "adapters" / name, tmp_path / "runs" / "first" / "adapter")
    (tmp_path / "runs" / "no_adapter").mkdir()
    with TestClient(create_app(backbone, tmp_path / "runs")) as served:
        assert [each["name"] for each in served.get("/v1/adapters").json()] == ["first"]


@pytest.mark.parametrize("path", ["/", "/docs", "/openapi.json"])
def test_the_document_is_there_and_needs_nothing_from_elsewhere(client, path):
    answer = client.get(path)
    assert answer.status_code == 200
    assert "/v1/classify" in answer.text
    assert "adapter" in answer.text
    assert not re.search(r"(src|href)=[^>]*//|<script|url\(", answer.text)


VIDEOS = """
import os, schemathesis
from hypothesis import strategies as st
from pathlib import Path
from schemathesis.transport.serialization import Binary
videos = [path.read_bytes() for path in Path(os.environ["VIDEOS"]).glob("*.mp4")]
schemathesis.openapi.format("binary", st.sampled_from(videos).map(Binary))
"""
"""A schema says of a file that it is bytes; that they are a video, this says. (Other bytes are test_fuzz.py's.)"""


def test_schemathesis_finds_nothing(process, folder, tmp_path):
    pytest.importorskip("schemathesis")
    (tmp_path / "videos_hook.py").write_text(VIDEOS)
    done = subprocess.run(
        [sys.executable, "-m", "schemathesis.cli", "run", f"http://127.0.0.1:{process.port}/openapi.json",
         "--header", f"Authorization: Bearer {KEY}", "--max-examples", "5", "--seed", "1", "--workers", "1"],
        env={**os.environ, "SCHEMATHESIS_HOOKS": "videos_hook", "VIDEOS": str(folder / "videos"),
             "PYTHONPATH": str(tmp_path)},
        capture_output=True, text=True, timeout=300, cwd=tmp_path,
    )  # fmt: skip
    assert done.returncode == 0, done.stdout[-5000:] + done.stderr[-2000:]


def test_sigterm_lets_requests_finish(process, folder):
    """The last test of this process."""
    clip = (folder / "videos" / "clip.mp4").read_bytes()
    part = b'--b\r\nContent-Disposition: form-data; name="%s"%s\r\n\r\n%s\r\n'
    body = part % (b"adapter", b"", b"a") + part % (b"file", b'; filename="x.mp4"', clip) + b"--b--\r\n"
    with socket.create_connection(("127.0.0.1", process.port), timeout=30) as s:
        s.sendall(
            f"POST /v1/classify HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer {KEY}\r\nContent-Length: {len(body)}\r\n"
            "Content-Type: multipart/form-data; boundary=b\r\nConnection: close\r\n\r\n".encode()
            + body[:100]
        )
        time.sleep(0.5)
        process.send_signal(signal.SIGTERM)
        time.sleep(0.5)
        with pytest.raises((ConnectionError, http.client.HTTPException)):
            ask(process.port, "GET", "/healthz")
        s.sendall(body[100:])
        answer = b"".join(iter(lambda: s.recv(4096), b""))
    assert answer.startswith(b"HTTP/1.1 200"), answer
    assert process.wait(30) == 0
