"""Adapters to and from the Hub, by a stand-in for it on loopback that speaks its protocol."""

from __future__ import annotations

import base64
import hashlib
import json
import os
import subprocess
import sys
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from urllib.parse import unquote, urlparse

import pytest
import torch
from conftest import DATA, tiny
from safetensors.torch import save as to_safetensors

import msta
from msta.adapters.artefact import WEIGHTS
from msta.adapters.card import licence_of
from msta.adapters.hub import adapter_folder
from msta.adapters.task import Task
from msta.adapters.zoo import ZOO, get, read_zoo, write_zoo
from msta.backbone.published import PUBLISHED
from msta.errors import CheckpointError, DataError, MSTAError
from msta.training.cost import flop_counter

SOURCE = Path(msta.__file__).parents[1]


class Hub(BaseHTTPRequestHandler):
    """Repositories in memory: {id: {file: content}}. Commits carry small files inline; LFS is not needed."""

    repos: dict[str, dict[str, bytes]]
    asked: list[str]
    protocol_version = "HTTP/1.1"

    def log_message(self, *args):
        pass

    def _answer(self, status: int, body: bytes = b"", **headers: str):
        self.send_response(status)
        for name, value in {"Content-Length": str(len(body)), **headers}.items():
            self.send_header(name.replace("_", "-"), value)
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(body)

    def _json(self, data, status: int = 200):
        self._answer(status, json.dumps(data).encode(), Content_Type="application/json")

    def do_POST(self):
        body = self.rfile.read(int(self.headers.get("Content-Length") or 0))
        path = unquote(urlparse(self.path).path)
        self.asked.append(f"POST {path}")
        if self.headers.get("Authorization") != "Bearer hf_test":
            return self._json({"error": "Invalid credentials"}, 401)
        if path == "/api/repos/create":
            asked = json.loads(body)
            name = f"{asked.get('organization') or 'me'}/{asked['name']}"
            self.repos.setdefault(name, {})
            return self._json({"url": f"http://{self.headers['Host']}/{name}"})
        if path == "/api/validate-yaml":
            return self._json({"errors": [], "warnings": []})
        kind, name = path.split("/")[-2], "/".join(path.split("/")[3:5])
        if kind == "preupload":
            files = [
                {"path": f["path"], "uploadMode": "regular", "shouldIgnore": False} for f in json.loads(body)["files"]
            ]
            return self._json({"files": files})
        if kind == "commit":
            for line in map(json.loads, body.splitlines()):
                if line["key"] == "file":
                    self.repos[name][line["value"]["path"]] = base64.b64decode(line["value"]["content"])
            url = f"http://{self.headers['Host']}/{name}/commit/{'a' * 40}"
            return self._json({"success": True, "commitUrl": url, "commitOid": "a" * 40})
        return self._json({"error": f"not in the stand-in: {path}"}, 501)

    def do_GET(self):
        path = unquote(urlparse(self.path).path)
        self.asked.append(f"GET {path}")
        parts = path.strip("/").split("/")
        name = "/".join(parts[2:4] if parts[0] == "api" else parts[:2])
        if name.startswith("ill/"):
            return self._answer(200, b"<html>log in") if name == "ill/page" else self._answer(int(name[4:]))
        if name not in self.repos or "nothing" in parts:
            return self._answer(404, b"{}", X_Error_Code="RepoNotFound")
        files = self.repos[name]
        if parts[0] == "api" and "tree" in parts:
            return self._json(
                [
                    {"type": "file", "path": f, "size": len(c), "oid": hashlib.sha1(c).hexdigest()}
                    for f, c in files.items()
                ]
            )
        if parts[0] == "api":
            return self._json(
                {"id": name, "modelId": name, "sha": "a" * 40, "siblings": [{"rfilename": f} for f in files]}
            )
        file = "/".join(parts[4:])
        if file not in files:
            return self._answer(404, b"{}", X_Error_Code="EntryNotFound")
        digest = (
            hashlib.sha256 if file.endswith(".safetensors") else hashlib.sha1
        )  # as the Hub: large files, and others
        tag = f'"{digest(files[file]).hexdigest()}"'
        return self._answer(200, files[file], ETag=tag, X_Repo_Commit="a" * 40)

    do_HEAD = do_GET


@pytest.fixture
def hub():
    handler = type("ThisHub", (Hub,), {"repos": {}, "asked": []})
    server = ThreadingHTTPServer(("127.0.0.1", 0), handler)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    yield handler, f"http://127.0.0.1:{server.server_address[1]}"
    server.shutdown()


def trained(folder: Path) -> msta.AdaptedModel:
    backbone = msta.random_backbone(tiny())
    backbone.save(folder / "bb")
    model = msta.attach(msta.load_backbone(str(folder / "bb")), msta.MSTAConfig(dim=8))
    with torch.no_grad():
        for p in model.trainable_parameters():
            p.add_(0.1 * torch.randn_like(p))
    model.task = Task(("push", "hug"))
    return model


def run(code: str, endpoint: str, home: Path, token: str = "hf_test") -> subprocess.CompletedProcess[str]:
    """In a process of its own: the Hub's client reads its address when it is imported."""
    environment = {"HF_ENDPOINT": endpoint, "HF_HOME": str(home), "HF_TOKEN": token, "HF_HUB_DISABLE_XET": "1"}
    environment |= {"HF_HUB_DISABLE_PROGRESS_BARS": "1", "HF_HUB_DISABLE_TELEMETRY": "1", "PYTHONPATH": str(SOURCE)}
    environment |= {"OMP_NUM_THREADS": "1", "PATH": os.environ["PATH"]}
    return subprocess.run([sys.executable, "-c", code], env=environment, capture_output=True, text=True, timeout=300)


def test_there_and_back(hub, tmp_path):
    handler, endpoint = hub
    model = trained(tmp_path)
    model.save(tmp_path / "adapter", {"top1": 87.5})
    there = run(
        f"import msta; print(msta.load_adapter({str(tmp_path / 'adapter')!r}).push_to_hub('me/hands'))",
        endpoint, tmp_path / "home",
    )  # fmt: skip
    assert there.returncode == 0, there.stderr + "\n".join(handler.asked)
    assert there.stdout.strip().startswith(endpoint)
    files = handler.repos["me/hands"]
    assert {n for n in files if not n.startswith(".")} == {
        "adapter_config.json", "adapter_model.safetensors", "classes.json", "metrics.json", "README.md",
    }  # fmt: skip
    card = files["README.md"].decode()
    for said in (
        "top1: 87.5",
        "- push",
        "- hug",
        "--adapter me/hands",
        "licence of the backbone",
        'load_adapter("me/hands")',
    ):
        assert said in card, said
    assert str(tmp_path) not in card
    files["evil.py"] = files["pickle.pt"] = b"import os"
    back = run(
        "import msta, torch, os; m = msta.load_adapter('me/hands', revision='main')\n"
        f"torch.save((m.task.classes, m.metrics, m.adapter_state()), {str(tmp_path / 'back.pt')!r})\n"
        "from msta.adapters.hub import adapter_folder; print(sorted(os.listdir(adapter_folder('me/hands'))))",
        endpoint, tmp_path / "home2",
    )  # fmt: skip
    assert back.returncode == 0, back.stderr + "\n".join(handler.asked)
    classes, metrics, state = torch.load(tmp_path / "back.pt", weights_only=False)
    assert (classes, metrics) == (("push", "hug"), {"top1": 87.5})
    assert all(torch.equal(state[name], tensor) for name, tensor in model.adapter_state().items())
    assert back.stdout.strip() == "['adapter_config.json', 'adapter_model.safetensors', 'classes.json', 'metrics.json']"
    assert not any("evil" in one or "pickle" in one for one in handler.asked)


def test_backbones_by_every_kind_of_id(hub, tmp_path):
    handler, endpoint = hub
    state = torch.load(DATA / "viclip_tiny.pth", weights_only=True)
    tensors = {name: tensor.contiguous().clone() for name, tensor in state.get("model", state).items()}
    folder = {f.name: f.read_bytes() for f in (DATA / "open_clip" / "clipa").iterdir()}
    handler.repos |= {
        "lab/clipa": {**folder, "README.md": b"no weights"},
        "lab/viclip-hf": {
            "model.safetensors": to_safetensors(tensors),
            "config.json": b'{"architectures": ["ViCLIP"]}',
        },
        "lab/viclip": {"weights/viclip.pth": (DATA / "viclip_tiny.pth").read_bytes(), "README.md": b""},
        "lab/text": {"config.json": b'{"model_type": "bert"}'},
    }
    names = [
        "lab/clipa",
        "hf-hub:lab/clipa",
        "lab/viclip-hf",
        "lab/viclip/weights/viclip.pth",
        "lab/text",
        "lab/nothing",
    ]
    code = f"""
import msta
from msta.errors import MSTAError
for name in {names}:
    try:
        backbone = msta.load_backbone(name)
        print(backbone.source, backbone.fingerprint())
    except MSTAError as error:
        print(str(error).count(chr(10)), error)
"""
    done = run(code, endpoint, tmp_path / "hf")
    found = done.stdout.splitlines()
    clipa, viclip = (msta.load_backbone(DATA / name).fingerprint() for name in ("open_clip/clipa", "viclip_tiny.pth"))
    assert found[:4] == [
        f"{name} {print_}" for name, print_ in zip(names, (clipa, clipa, viclip, viclip), strict=False)
    ]
    assert found[4].startswith("0 ")
    assert "'bert'" in found[4]
    assert found[5].startswith("0 lab/nothing: ")
    assert not any("README" in asked for asked in handler.asked if "resolve" in asked)


def test_refusals_are_one_line(hub, tmp_path):
    _, endpoint = hub
    trained(tmp_path).save(tmp_path / "adapter")
    code = (
        "import msta\nfrom msta.errors import MSTAError\nfrom msta.adapters.hub import push_adapter\n"
        f"for what in (lambda: msta.load_adapter('me/nothing'), lambda: push_adapter({str(tmp_path / 'adapter')!r}, 'me/x')):\n"
        "    try: what(); print('no error')\n"
        "    except MSTAError as e: print(e)\n"
    )
    done = run(code, endpoint, tmp_path / "home", token="hf_wrong")
    lines = done.stdout.splitlines()
    assert len(lines) == 2, done.stdout + done.stderr
    assert lines[0].startswith("me/nothing: no directory here, and not to be had from the Hub: ")
    assert lines[1].startswith("me/x: the Hub does not take it: ")


def refusals(names: list[str], endpoint: str, home: Path, offline: str = "0") -> list[str]:
    """What is said of these ids, as backbones and, if they name no file, as adapters too."""
    code = f"""
import os, time
os.environ["HF_HUB_OFFLINE"] = {offline!r}
time.sleep = lambda seconds: None  # the client tries five times
import msta
from msta.errors import MSTAError
for load in msta.load_backbone, msta.load_adapter:
    for name in {names}:
        try: name.endswith(".pth") and load is msta.load_adapter or print(load(name))
        except MSTAError as error: print(error)
"""
    done = run(code, endpoint, home)
    said = done.stdout.splitlines()
    assert len(said) == sum(1 if name.endswith(".pth") else 2 for name in names), done.stdout + done.stderr
    return said


def test_why_the_hub_gives_nothing_is_said_and_what_to_do(hub, tmp_path):
    _, endpoint = hub
    ills = {
        "429": "the error 429; try again later",
        "500": "the error 500; try again later",
        "page": "log in to the network",
    }
    names = [f"ill/{ill}{file}" for ill in ills for file in ("", "/c.pth")]
    for said in refusals(names, endpoint, tmp_path):
        ill = said.split(":")[0].split("/")[1]
        assert ills[ill] in said
        assert "connection" not in said
    both = ["lab/x", "lab/x/c.pth"]
    for said in refusals(both, endpoint, tmp_path, offline="1"):
        assert "HF_HUB_OFFLINE" in said
        assert "connection" not in said
    for said in refusals(both, "http://127.0.0.1:9", tmp_path):
        assert "no connection ([Errno 111] Connection refused); check the network, its proxy and HF_ENDPOINT" in said


def test_a_repository_without_weights_is_called_that(hub, tmp_path):
    handler, endpoint = hub
    handler.repos |= {"lab/empty": {"README.md": b""}, "lab/below": {"weights/c.pth": b"x"}}
    for said in refusals(["lab/empty", "lab/below"], endpoint, tmp_path)[:2]:
        assert "no file at the top of its repository ends in .safetensors, .bin" in said
        assert str(tmp_path) not in said


def test_a_directory_comes_before_the_hub(tmp_path, monkeypatch):
    trained(tmp_path).save(tmp_path / "owner" / "name", {"top1": 50.0})
    monkeypatch.chdir(tmp_path)
    assert adapter_folder("owner/name") == Path("owner/name")
    loaded = msta.load_adapter("owner/name")
    loaded.save(tmp_path / "again")
    assert json.loads((tmp_path / "again" / "metrics.json").read_text()) == {"top1": 50.0}, "kept"
    with pytest.raises(CheckpointError, match="no adapter directory"):
        msta.load_adapter(tmp_path / "nowhere")


def test_licences_are_only_told_of_known_sources():
    assert "MIT" in licence_of("openai/clip-vit-base-patch16")
    assert "Apache" in licence_of("toy")
    assert "Apache" in licence_of("toy-frames")
    for source in ("/models/openai/clip", "somebody/clip", "toy2", "random:clip-b16:0"):
        assert "not known" in licence_of(source)


def test_backbones_are_fetched_by_a_short_name_and_checked(hub, tmp_path):
    handler, endpoint = hub
    msta.random_backbone(tiny()).save(tmp_path / "bb")
    wanted = PUBLISHED["viclip-b16"].hub
    handler.repos[wanted] = {file.name: file.read_bytes() for file in (tmp_path / "bb").iterdir()}
    fetching = "import sys; sys.argv = ['msta', 'backbones', 'viclip-b16']; from msta.cli import main; main()"
    got = run(fetching, endpoint, tmp_path / "home")
    assert got.returncode == 0, got.stderr
    folder = Path(got.stdout.strip())
    ours = run("import msta; print(msta.load_backbone('viclip-b16').fingerprint())", endpoint, tmp_path / "home")
    assert ours.stdout.strip() == msta.load_backbone(folder).fingerprint()
    blob = next(folder.glob("*.safetensors")).resolve()
    content = bytearray(blob.read_bytes())
    content[-1] ^= 1
    blob.write_bytes(content)
    damaged = run(fetching, endpoint, tmp_path / "home")
    assert damaged.returncode == 1
    assert "damaged" in damaged.stderr
    assert str(blob) in damaged.stderr


def test_a_zoo_is_made_listed_and_copied(hub, tmp_path):
    handler, endpoint = hub
    model = trained(tmp_path)
    model.save(tmp_path / "zoo" / "hands", {"top1": 87.5, "clips": 40})
    model.save(tmp_path / "zoo" / "run" / "adapter", {})
    made = write_zoo(tmp_path / "zoo")
    assert read_zoo(str(tmp_path / "zoo")) == made
    assert [(entry.name, entry.path, entry.top1) for entry in made] == [
        ("hands", "hands", 87.5), ("run", "run/adapter", None),
    ]  # fmt: skip
    assert made[0].classes == ("push", "hug")
    assert get(str(tmp_path / "zoo"), "run", tmp_path / "copy").name == "run"
    assert msta.load_adapter(tmp_path / "copy").task == model.task
    files = (f for f in (tmp_path / "zoo").rglob("*") if f.is_file())
    handler.repos["lab/zoo"] = {f.relative_to(tmp_path / "zoo").as_posix(): f.read_bytes() for f in files}
    remote = (
        f"import msta.adapters.zoo as z; print(z.get('lab/zoo', 'hands', z.Path({str(tmp_path / 'remote')!r})).top1)"
    )
    assert run(remote, endpoint, tmp_path / "home").stdout.strip() == "87.5"
    assert msta.load_adapter(tmp_path / "remote").task == model.task


def test_a_zoo_whose_weights_are_others_is_refused(tmp_path):
    trained(tmp_path).save(tmp_path / "zoo" / "hands", {})
    with pytest.raises(DataError, match="msta zoo make"):
        read_zoo(str(tmp_path / "zoo"))
    write_zoo(tmp_path / "zoo")
    with pytest.raises(MSTAError, match="no adapter 'feet'; there are hands"):
        get(str(tmp_path / "zoo"), "feet", tmp_path / "copy")
    (tmp_path / "zoo" / "hands" / WEIGHTS).write_bytes(b"others")
    with pytest.raises(CheckpointError, match="not the weights of the list"):
        get(str(tmp_path / "zoo"), "hands", tmp_path / "copy")
    listed = json.loads((tmp_path / "zoo" / ZOO).read_text())
    listed["adapters"][0]["path"] = "../zoo/../.."
    (tmp_path / "zoo" / ZOO).write_text(json.dumps(listed))
    with pytest.raises(CheckpointError, match="no adapter is there"):
        get(str(tmp_path / "zoo"), "hands", tmp_path / "copy")
    with pytest.raises(DataError, match="no adapters in it"):
        write_zoo(tmp_path / "bb")


def test_a_folder_of_a_short_name_comes_first(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    saved = msta.random_backbone(tiny())
    saved.save(tmp_path / "clip-b32")
    assert msta.load_backbone("clip-b32").fingerprint() == saved.fingerprint()


@pytest.mark.parametrize(
    ("short", "architecture"),
    [
        ("clip-b32", "clip-b32"),
        *(pytest.param(name, name, marks=pytest.mark.slow) for name in ("clip-b16", "viclip-b16", "pe-core-b16")),
    ],
)
def test_sizes_and_arithmetic_of_the_list_are_counted(short, architecture):
    backbone = msta.random_backbone(architecture)
    counted = sum(p.numel() for p in backbone.parameters()) * 4e-6
    assert PUBLISHED[short].megabytes == pytest.approx(counted, rel=0.02)
    with flop_counter() as counter, torch.no_grad():
        backbone.encode_video(torch.zeros(1, 8, 3, 224, 224))
    assert PUBLISHED[short].gflop == pytest.approx(counter.get_total_flops() / 1e9, rel=0.03)
