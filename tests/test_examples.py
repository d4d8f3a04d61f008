"""The notebooks in examples/ run from top to bottom, in a folder of their own and without the network."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import msta

EXAMPLES = Path(__file__).parents[1] / "examples"


def run(notebook: str, folder: Path) -> str:
    cells = json.loads((EXAMPLES / notebook).read_text(encoding="utf-8"))["cells"]
    assert not any(cell.get("outputs") for cell in cells), "saved without its output"
    code = "\n\n".join("".join(cell["source"]) for cell in cells if cell["cell_type"] == "code")
    (folder / "notebook.py").write_text(f"if __name__ == '__main__':\n    exec({code!r})\n", encoding="utf-8")
    environment = os.environ | {"HF_HUB_OFFLINE": "1", "HF_HOME": str(folder / "hub"), "OMP_NUM_THREADS": "1"}
    environment["PYTHONPATH"] = str(Path(msta.__file__).parents[1])
    done = subprocess.run(
        [sys.executable, "notebook.py"], cwd=folder, env=environment, capture_output=True, text=True, timeout=900
    )
    assert done.returncode == 0, done.stderr[-3000:]
    return done.stdout


def test_own_clips(tmp_path):
    said = run("own_clips.ipynb", tmp_path)
    metrics = json.loads((tmp_path / "run" / "metrics.json").read_text())
    assert f"top-1 {metrics['top1']:.1f} % of 18 clips" in said
    assert "by cross-validation in 3 folds" in said
    assert (tmp_path / "run" / "report.html").exists()
    assert "swipe_up_005.mp4" in said


def test_a_viclip_says_what_is_skipped_without_its_weights(tmp_path):
    said = run("viclip.ipynb", tmp_path)
    for part in ("Skipped below, the weights cannot be had here", "1,744,000 parameters", "Skipped: no weights."):
        assert part in said
