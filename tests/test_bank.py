"""The bank: one file, looked up by name, exchanged with the authors' format; class names from files."""

from __future__ import annotations

import csv
import json
import re
from pathlib import Path

import pytest
from conftest import OUTSIDE, needs
from hypothesis import given
from hypothesis import strategies as st

from msta.config import make_config
from msta.data.layouts.parts import class_key
from msta.descriptions.bank import FORMAT, Described, DescriptionBank, key, load_descriptions
from msta.descriptions.describe import describe_by_template, edit, export_official, import_official
from msta.descriptions.labels import read_labels
from msta.errors import ConfigError, DataError, MSTAError

OFFICIAL = OUTSIDE / "reference" / "official_descriptions"
LABELS = OUTSIDE / "reference" / "labels"
needs_official = needs("reference/official_descriptions", "reference/labels")

sentence = st.text(st.characters(exclude_categories=("Cs",)), min_size=1).filter(str.strip)
sentences = st.lists(sentence, max_size=3).map(tuple)
described = st.builds(
    Described, sentences, sentences, st.none() | sentence, st.none() | sentence, st.none() | sentence, st.booleans()
)
PUSH = Described(("A video of hands.",), ("Arms go forward.",), "m", "1", "2025-12-31")


def save(path: Path, **classes: Described) -> Path:
    DescriptionBank("", classes).save(path)
    return path


@given(st.dictionaries(sentence, described, max_size=4))
def test_a_bank_is_read_as_it_was_written(tmp_path_factory, classes):
    path = tmp_path_factory.mktemp("bank") / "bank.json"
    DescriptionBank("", classes).save(path)
    read = DescriptionBank.load(path)
    assert read.classes == classes
    assert list(read.classes) == list(classes)


def test_a_sentence_has_a_line_of_its_own_in_its_own_letters(tmp_path):
    text = save(tmp_path / "bank.json", hug=Described(("Ein Mann umarmt – fest.", "Zwei."))).read_text()
    assert '        "Ein Mann umarmt – fest.",\n' in text


def test_classes_are_found_by_name_however_it_is_spelled():
    bank = DescriptionBank("b", {"swipe left": PUSH, "Apply Eye Makeup": Described(("eye",))})
    assert bank.find("swipe_left") is bank.find("Swipe-Left") is PUSH
    assert bank.find("ApplyEyeMakeup").spatial == ("eye",)
    assert bank.find("swipe") is None
    accented = DescriptionBank("b", {"caf\u00e9 au lait": PUSH})
    assert accented.find("cafe\u0301 au lait") is PUSH  # letter and accent apart
    part = bank.subset(["apply_eye_makeup", "swipe left"])
    assert list(part.classes) == ["apply_eye_makeup", "swipe left"]
    assert part.sentences("spatial") == {"apply_eye_makeup": ("eye",), "swipe left": PUSH.spatial}
    with pytest.raises(DataError, match=r"b: 1 of 2 classes are not in it: 'swipe leff'; did you mean 'swipe left'"):
        bank.subset(["swipe left", "swipe leff"])


@pytest.mark.parametrize(("one", "other"), [("กิน", "กัน"), ("ताली", "तेल"), ("வா", "வீ")])
def test_vowel_signs_tell_classes_apart(one, other, tmp_path):
    bank = DescriptionBank("b", {one: PUSH})
    assert bank.find(one) is PUSH
    assert bank.find(other) is None
    (tmp_path / "names.txt").write_text(f"{one}\n{other}\n", encoding="utf-8")
    assert read_labels(tmp_path / "names.txt") == (one, other)
    assert class_key(one) != class_key(other)


def test_a_spelling_that_two_classes_share_finds_neither_and_their_own_finds_each():
    bank = DescriptionBank("b", {"log in": PUSH, "log-in": Described(("noun",))})
    assert bank.find("log-in").spatial == ("noun",)
    assert bank.find("log in") is PUSH
    assert bank.find("LOG IN") is None


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("{", "no valid JSON"),
        ("[]", "expected a JSON object"),
        ("{}", "expected format 'msta-descriptions-1', found None"),
        ('{"0": ["a"], "1": ["b"]}', "authors' format, not a bank; import it with"),
        ('{"format": "msta-descriptions-1", "classes": {"a": []}}', "the class 'a': expected an object"),
        ('{"format": "msta-descriptions-1", "classes": {"a": {"spatial": "x"}}}', "the class 'a': spatial: expected a list"),
        ('{"format": "msta-descriptions-1", "classes": {"a": {"spatial": [" "]}}}', "none of them empty"),
        ('{"format": "msta-descriptions-1", "classes": {"a": {"spatal": []}}}', "nothing is called 'spatal' there"),
        ('{"format": "msta-descriptions-1", "classes": {"a": {"edited": 1}}}', "edited: expected true or false"),
        ('{"format": "msta-descriptions-1", "classes": {"a": {"model": 1}}}', "model: expected a text"),
        ('{"format": "msta-descriptions-1", "classes": {"a": {}, "a": {}}}', "'a' is there twice"),
    ],
)  # fmt: skip
def test_a_damaged_bank_is_named_with_the_class_at_fault(tmp_path, content, message):
    (tmp_path / "bank.json").write_text(content)
    with pytest.raises(DataError, match=rf"bank\.json: .*{re.escape(message)}"):
        DescriptionBank.load(tmp_path / "bank.json")


def test_what_a_hand_leaves_out_is_filled_in(tmp_path):
    (tmp_path / "bank.json").write_text(json.dumps({"format": FORMAT, "classes": {"hug": {"spatial": ["x"]}}}))
    assert DescriptionBank.load(tmp_path / "bank.json").classes == {"hug": Described(("x",))}


def test_a_run_takes_the_kinds_it_wants_from_a_larger_bank(tmp_path):
    half = Described(("only seen",))
    path = save(tmp_path / "bank.json", push=PUSH, hug=PUSH, kick=half)
    bank = load_descriptions(None, None, ["hug", "push"], bank=path)
    assert list(bank.sentences("spatial")) == list(bank.sentences("temporal")) == ["hug", "push"]
    assert load_descriptions(None, None, ["hug"], bank=path, kinds=["temporal"]).sentences("spatial") is None
    assert (
        load_descriptions(None, None, ["push", "kick"], bank=path, kinds=["spatial"]).sentences("spatial")["kick"]
        == half.spatial
    )
    with pytest.raises(DataError, match=r"no temporal sentences for 'kick'"):
        load_descriptions(None, None, ["push", "kick"], bank=path)
    with pytest.raises(DataError, match=r"'wave'"):
        load_descriptions(None, None, ["push", "wave"], bank=path)
    with pytest.raises(DataError, match="no sentences in it for these classes"):
        load_descriptions(None, None, ["kick"], bank=path, kinds=["temporal"])


def test_a_bank_and_files_beside_it_are_one_too_many(tmp_path):
    given = {"data.path": tmp_path, "descriptions.bank": "b.json"}
    assert make_config("small", given).descriptions.bank == Path.cwd() / "b.json"
    with pytest.raises(ConfigError, match=r"descriptions\.spatial: stands beside descriptions\.bank"):
        make_config("small", given, ["descriptions.spatial=s.json"])


# ---------------------------------------------------------------- the authors' format


@needs_official
def test_every_official_file_goes_into_a_bank_and_comes_out_the_same(tmp_path, caplog):
    labels = {
        "hmdb": "hmdb_51", "k400": "kinetics_400", "k600": "kinetics_600", "ucf_101": "ucf_101", "ssv2": "ssv2",
        "hmdb_base": "hmdb_51_base", "hmdb_novel": "hmdb_51_novel", "k400_base": "kinetics_400_base",
        "k400_novel": "kinetics_400_novel", "ucf_101_base": "ucf_101_base", "ucf_101_novel": "ucf_101_novel",
        "ssv2_base": "ssv2_174_base", "ssv2_novel": "ssv2_174_novel",
    }  # fmt: skip
    files = sorted(OFFICIAL.glob("*.json"))
    assert len(files) > 40
    for file in files:
        _, kind, name = re.fullmatch(r"(\d)_([st])_description_(\w+)", file.stem).groups()
        csv_file, bank = LABELS / f"{labels[name]}_labels.csv", tmp_path / f"{file.stem}.bank.json"
        given = (file, None) if kind == "s" else (None, file)
        import_official(*given, csv_file, bank)
        again = tmp_path / file.name
        export_official(bank, *((again, None) if kind == "s" else (None, again)), csv_file)
        assert json.loads(again.read_text()) == json.loads(file.read_text())
    assert "8_s_description_k400.json: 8 sentences per class" in caplog.text


@needs_official
def test_a_subset_finds_its_classes_in_the_whole_by_name(tmp_path):
    whole = tmp_path / "k400.json"
    files = (OFFICIAL / "8_s_description_k400.json", OFFICIAL / "8_t_description_k400.json")
    assert "400 classes, 3193 spatial and 3200 temporal sentences" in import_official(
        *files, LABELS / "kinetics_400_labels.csv", whole
    )
    names = [name for _, name in csv.reader((LABELS / "kinetics_400_labels.csv").open())][1:]
    for half in ("base", "novel"):
        classes = read_labels(LABELS / f"kinetics_400_{half}_labels.csv")
        bank = load_descriptions(None, None, classes, bank=whole)
        content = json.loads(files[0].read_text())
        assert len(classes) == 200
        assert {name: list(s) for name, s in bank.sentences("spatial").items()} == {
            name: content[str(names.index(name))] for name in classes
        }


def test_import_completes_a_bank_and_export_refuses_to_overwrite(tmp_path):
    labels = tmp_path / "labels.txt"
    labels.write_text("push it\nhug\n")
    (tmp_path / "s.json").write_text(json.dumps({"0": ["seen"], "1": ["seen too"]}))
    bank = save(tmp_path / "bank.json", **{"Push It": PUSH, "kick": PUSH})
    import_official(tmp_path / "s.json", None, labels, bank)
    assert list(DescriptionBank.load(bank).classes) == ["Push It", "kick", "hug"]
    export_official(bank, tmp_path / "out.json", None, labels)
    assert json.loads((tmp_path / "out.json").read_text()) == {"0": ["seen"], "1": ["seen too"]}
    with pytest.raises(MSTAError, match=r"out\.json: exists already"):
        export_official(bank, tmp_path / "out.json", None, labels)
    assert DescriptionBank.load(bank).classes["Push It"].temporal == PUSH.temporal
    with pytest.raises(DataError, match="no temporal sentences for 'hug'"):
        export_official(bank, None, tmp_path / "t.json", None)


# ---------------------------------------------------------------- without a language model


def test_templates_fill_what_is_missing_and_say_so(tmp_path):
    path = save(tmp_path / "bank.json", hug=PUSH)
    done = describe_by_template(["hug", "ApplyEyeMakeup"], path, sentences=8).bank
    assert DescriptionBank.load(path).classes == done.classes
    assert done.classes["hug"] == PUSH
    made = done.classes["ApplyEyeMakeup"]
    assert made.model == "template"
    assert len({*made.spatial, *made.temporal}) == 16
    assert all("Apply Eye Makeup" in s for s in (*made.spatial, *made.temporal))
    with pytest.raises(ConfigError, match="1 to 8 templates, got 9"):
        describe_by_template(["hug"], path, sentences=9)


def editor(folder: Path, script: str) -> str:
    """A command that changes the file it is given, as a user would."""
    program = folder / "editor.py"
    program.write_text(
        f"import sys, pathlib\np = pathlib.Path(sys.argv[1])\ntext = p.read_text()\n{script}\np.write_text(text)\n"
    )
    import sys

    return f"{sys.executable} {program}"


def test_what_a_hand_changes_is_marked_and_the_rest_is_not(tmp_path, monkeypatch):
    path = save(tmp_path / "bank.json", hug=PUSH, kick=PUSH)
    monkeypatch.setenv(
        "VISUAL", editor(tmp_path, "text = text.replace('A video of hands.', 'A video of two people.', 1)")
    )
    outcome = edit(["wave"], path)
    bank = DescriptionBank.load(path)
    assert bank.classes["hug"].spatial == ("A video of two people.",)
    assert [name for name, each in bank.classes.items() if each.edited] == ["hug"]
    assert bank.classes["kick"] == PUSH
    assert list(outcome.incomplete) == ["wave"]


def test_a_slip_of_the_hand_leaves_the_bank_and_keeps_the_text(tmp_path, monkeypatch):
    path = save(tmp_path / "bank.json", hug=PUSH)
    before = path.read_text()
    monkeypatch.setenv("VISUAL", editor(tmp_path, "text = text.replace('A video of hands.\"', 'A video of arms.', 1)"))
    with pytest.raises(MSTAError, match=r"bank\.edit\.json: no valid JSON"):
        edit([], path)
    assert path.read_text() == before
    monkeypatch.setenv("VISUAL", editor(tmp_path, "text = text.replace('A video of arms.', 'A video of arms.\"', 1)"))
    edit([], path)
    assert DescriptionBank.load(path).classes["hug"].spatial == ("A video of arms.",)
    assert sorted(p.name for p in tmp_path.iterdir()) == ["bank.json", "editor.py"]
    monkeypatch.setenv("VISUAL", "no-such-editor")
    with pytest.raises(ConfigError, match="EDITOR"):
        edit([], path)


# ---------------------------------------------------------------- labels


@pytest.mark.parametrize(
    ("name", "content", "expected"),
    [
        ("l.txt", "push\n\n hug it \n", ("push", "hug it")),
        ("l.txt", "\ufeffPutting something, something and something\n", ("Putting something, something and something",)),
        ("l.csv", 'id,name\n0,push\n1,"hug, tightly"\n', ("push", "hug, tightly")),
        ("l.json", '{"0": "push", "1": "hug"}', ("push", "hug")),
        ("l.json", '{"push": 0, "hug": 1}', ("push", "hug")),
        ("l.json", '{"push": 2, "hug": 0, "wave": 1}', ("hug", "wave", "push")),
        ("l.json", '{"push": 7, "hug": 3}', ("push", "hug")),
        ("l.json", json.dumps({str(i): f"c{i}" for i in sorted(range(11), key=str)}), tuple(f"c{i}" for i in range(11))),
        ("l.csv", "name,id\npush,2\nhug,1\n", ("hug", "push")),
        ("l.csv", "1,push\n0,hug\n", ("hug", "push")),
        ("l.txt", "1 push\n0 hug\n", ("hug", "push")),
    ],
)  # fmt: skip
def test_labels_are_read_from_what_there_is(tmp_path, name, content, expected):
    (tmp_path / name).write_text(content)
    assert read_labels(tmp_path / name) == expected


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("l.txt", "", "no class names"),
        ("l.txt", "swipe_left\nSwipe left\n", "'swipe_left' and 'Swipe left'"),
        ("l.txt", "a\na\n", "'a' and 'a'"),
        ("l.csv", "id,name\n0\n", "expected id,name"),
        ("l.json", '{"0": 1}', "the name of class 0"),
        ("l.json", "[1]", "JSON object"),
    ],
)
def test_labels_that_are_none_are_named(tmp_path, name, content, message):
    (tmp_path / name).write_text(content)
    with pytest.raises(DataError, match=rf"{re.escape(name)}: .*{re.escape(message)}"):
        read_labels(tmp_path / name)
    with pytest.raises(DataError, match="No such file"):
        read_labels(tmp_path / "gone.txt")


@given(st.text(max_size=20))
def test_the_key_of_a_name_is_its_own_key(name):
    assert key(key(name)) == key(name)
