"""The commands on descriptions, as a user meets them: what they print, and with which code they end."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from conftest import tiny

import msta
from msta import cli
from msta.descriptions.bank import DescriptionBank


@pytest.fixture
def run(tmp_path, monkeypatch, capsys):
    """Run a command in an empty folder with a file of labels -> exit code, standard output, last line of errors."""
    monkeypatch.chdir(tmp_path)
    for name in ("OPENAI_API_KEY", "OPENAI_BASE_URL", "VISUAL", "EDITOR"):
        monkeypatch.delenv(name, raising=False)
    Path("labels.txt").write_text("push it\nhug\n")

    def run(command: str, *more: str) -> tuple[int, str, str]:
        monkeypatch.setattr("sys.argv", ["msta", *command.split(), *more])
        with pytest.raises(SystemExit) as ended:
            cli.main()
        said = capsys.readouterr()
        return int(ended.value.code or 0), said.out, (said.err.strip().splitlines() or [""])[-1]

    return run


def test_from_labels_to_a_bank_to_the_authors_files_and_back(run):
    assert run("describe --labels labels.txt --template --sentences 2 --out bank.json")[:2] == (
        0,
        "2 classes in bank.json\n",
    )
    assert run("descriptions export --bank bank.json --spatial s.json --temporal t.json")[0] == 0
    code, out, _ = run("descriptions import --labels labels.txt --spatial s.json --temporal t.json --out again.json")
    assert (code, out) == (0, "2 classes, 4 spatial and 4 temporal sentences, in again.json\n")
    both = [DescriptionBank.load(Path(name)) for name in ("bank.json", "again.json")]
    assert both[0].sentences("spatial") == both[1].sentences("spatial")
    assert both[0].sentences("temporal") == both[1].sentences("temporal")


def test_check_prints_the_faults_first_or_json_alone_and_writes_the_page(run):
    msta.random_backbone(tiny()).save("backbone")
    run("describe --labels labels.txt --template --sentences 2 --out bank.json")
    code, out, _ = run("descriptions check --bank bank.json --backbone backbone --out page.html")
    assert code == 0
    assert "faults in 8 sentences" in out.splitlines()[0]
    assert out.splitlines()[-1] == "Look at page.html"
    code, out, _ = run("descriptions check --bank bank.json --backbone backbone --json")
    assert {row["class"] for row in json.loads(out)["classes"]} == {"push it", "hug"}


@pytest.mark.parametrize(
    ("command", "code", "words"),
    [
        ("describe --out b.json", 2, "missing --labels"),
        ("describe --out b.json --labels gone.txt --template", 1, "gone.txt: No such file"),
        ("describe --out b.json --labels labels.txt", 2, "missing --model"),
        ("describe --out b.json --labels labels.txt --model m", 2, "OPENAI_API_KEY is not set"),
        ("describe --out b.json --labels labels.txt --model m --key-from K", 2, "variable K is not set"),
        ("describe --out b.json --labels labels.txt --model m --endpoint there", 2, "--endpoint: expected a URL"),
        ("describe --out b.json --labels labels.txt --model m --endpoint http://x --jobs 0", 2, "--jobs"),
        ("describe --out b.json --labels labels.txt --template --sentences 0", 2, "--sentences: there are 1 to 8"),
        ("describe --out no/b.json --labels labels.txt --template", 1, "no/b.json: there is no folder no"),
        ("describe --out b.json --edit", 2, "missing --labels"),
        ("descriptions import --labels labels.txt --out b.json", 2, "missing --spatial or --temporal"),
        ("descriptions import --labels labels.txt --spatial gone.json --out b.json", 1, "gone.json: No such file"),
        ("descriptions export --bank gone.json --spatial s.json", 1, "gone.json: No such file"),
        ("descriptions check --bank labels.txt", 1, "labels.txt: no valid JSON"),
    ],
)
def test_a_failure_is_one_line_that_says_what_to_do(run, monkeypatch, command, code, words):
    monkeypatch.setenv("EDITOR", "true")
    before = sorted(Path().iterdir())
    ended, out, error = run(command)
    assert (ended, out) == (code, "")
    assert error.startswith("msta: ")
    assert words in error
    assert sorted(Path().iterdir()) == before


@pytest.mark.parametrize("command", ["describe", "descriptions import", "descriptions export", "descriptions check"])
def test_help_has_an_example(run, command):
    code, out, _ = run(f"{command} --help")
    assert code == 0
    assert f"Example: msta {command} " in " ".join(out.split())
