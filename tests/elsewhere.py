"""Run commands as on another system: ``elsewhere.py SYSTEM FOLDER``, for test_systems.py.

What POSIX alone has is taken away, as far as a program can tell. The libraries are imported before, as themselves.
"""

from __future__ import annotations

import builtins
import ctypes
import importlib
import logging
import multiprocessing
import os
import pkgutil
import shutil
import signal
import sys
from pathlib import Path
from types import SimpleNamespace

LIBRARIES = "matplotlib.font_manager multiprocessing.sharedctypes multiprocessing.popen_spawn_posix multiprocessing.resource_tracker"
"""What the package imports late, or Python does for it."""


def pretend(system: str) -> None:
    """Let this process take the system for another one; those it starts are as they are."""
    import_all()
    for name in LIBRARIES.split():
        importlib.import_module(name)
    for name in [name for name in sys.modules if name == "msta" or name.startswith("msta.")]:
        del sys.modules[name]
    sys.platform = system
    multiprocessing.set_start_method("spawn", force=True)
    multiprocessing.get_all_start_methods = lambda: ["spawn"]
    library, load = ctypes.CDLL, builtins.open

    def cdll(name, *rest, **more):
        if name is None and system == "win32":
            raise TypeError("bad argument type for built-in operation")
        found = library(name, *rest, **more)
        if name is None:
            found.__dict__["mallopt"] = property()  # glibc's alone
        return found

    def open_(file, *rest, **more):
        if str(file).startswith(("/dev/shm", "/proc")):
            raise FileNotFoundError(2, "No such file or directory", file)
        return load(file, *rest, **more)

    ctypes.CDLL, builtins.open = cdll, open_
    if system != "win32":
        return
    sys.modules["matplotlib.font_manager"].findSystemFonts = list  # it would ask Windows' registry
    shutil._use_fd_functions = False
    multiprocessing.popen_fork.signal = SimpleNamespace(**vars(signal))  # Python ends processes as it does here
    for name in ("fcntl", "resource", "pwd", "grp"):
        sys.modules[name] = None
    for module, names in (
        (os, "fork getuid geteuid mkfifo sched_getaffinity uname"),
        (signal, "SIGKILL SIGHUP SIGUSR1"),
    ):
        for name in names.split():
            if hasattr(module, name):
                delattr(module, name)
    rename, open_handle = os.rename, os.open

    def rename_(source, target, **more):
        if os.path.lexists(target):
            raise FileExistsError(17, "Cannot create a file when that file already exists", target)
        rename(source, target, **more)

    def os_open(path, flags, *rest, **more):
        if os.path.isdir(path):
            raise PermissionError(13, "Permission denied", path)
        return open_handle(path, flags, *rest, **more)

    os.rename, os.open = rename_, os_open


def import_all() -> None:
    """Import the package's modules, and so its libraries."""
    import msta

    for module in pkgutil.walk_packages(msta.__path__, "msta."):
        if module.name != "msta.__main__":
            importlib.import_module(module.name)


def run(*arguments: object) -> int:
    """A command line -> its exit code."""
    from msta import cli

    logging.getLogger("msta").handlers.clear()
    sys.argv = ["msta", *map(str, arguments)]
    print("$", *arguments, flush=True)
    try:
        cli.main()
    except SystemExit as stopped:
        return stopped.code or 0
    return 0


def main(folder: Path) -> None:
    import_all()
    data, backbone, out = folder / "clips", folder / "backbone", folder / "out"
    one = next(data.glob("*/*.mp4"))
    of = ("--adapter", out / "run" / "adapter")
    done = [
        run("train", "--data", data, "--shots", 2, "--backbone", backbone, "--out", out / "run", "train.epochs=1",
            "data.workers=1", "method.dim=8"),
        run("train", "--resume", out / "run"),
        run("predict", data, *of),
        run("predict", data, *of, "--window", "0.4s", "--format", "srt", "--out", out / "srt"),
        run("predict", one, *of, "--window", "0.4s", "--overlay", out / "o.mp4"),
        run("predict", data, *of, "--format", "csv"),
        run("predict", "--data", data, *of, "--out", out / "p.parquet"),
        run("explain", one, *of, "--out", out / "why", "--steps", 2),
        run("search", "手", "--in", data, "--backbone", backbone, "--window", "0.4s", "--out", out / "found.html"),
        run("describe", "--labels", data, "--template", "--out", out / "bank.json"),
        run("descriptions", "check", "--bank", out / "bank.json", "--backbone", backbone),
        run("data", "index", "--data", data, "--out", out / "index" / "i.csv"),
        run("data", "verify", "--data", data, "--out", out / "verified"),
        run("data", "shard", "--data", data, "--out", out / "shards"),
        run("info", out / "run" / "adapter"),
    ]  # fmt: skip
    print("codes", *done)
    print("serve", run("serve", "--adapters", out, "--backbone", backbone))


if __name__ == "__main__":
    pretend(sys.argv[1])
    main(Path(sys.argv[2]))
