"""UCF-101: classInd.txt, trainlist01.txt, testlist01.txt (to 03), and v_Class_g01_c01.avi anywhere below."""

from __future__ import annotations

from pathlib import Path

from msta.data.catalog import Catalog
from msta.data.layouts.parts import Listed, Options, class_key, first_file, gather, list_lines, not_empty, places
from msta.data.names import class_words
from msta.errors import DataError, in_short

FOLDERS = ("ucfTrainTestlist", "UCF101TrainTestSplits-RecognitionTask/ucfTrainTestlist", "annotations", "splits")


def looks_like(path: Path) -> bool:
    """Whether the folder has these lists."""
    return path.is_dir() and first_file(places(path, None, *FOLDERS), "classInd.txt") is not None


def read(root: Path, options: Options) -> Catalog:
    """Classes in the order of classInd.txt, as words; split ``split_number``, by default 1."""
    where = places(root, options.annotations, *FOLDERS)
    index = first_file(where, "classInd.txt")
    if index is None:
        raise DataError(f"{where[0]}: no classInd.txt; give the folder of UCF-101's lists as data.annotations")
    classes: list[str] = []
    for line, words in list_lines(index):
        if len(words) != 2 or words[0] != str(len(classes) + 1):
            got = in_short(" ".join(words))
            raise DataError(f"{index}, line {line}: expected {len(classes) + 1} and a class, got {got!r}")
        classes.append(words[1])
    labels = {class_key(name): label for label, name in enumerate(classes)}
    number = options.split_number or 1
    listed: list[Listed] = []
    for split in ("train", "test"):
        file = first_file([index.parent], f"{split}list{number:02}.txt")
        if file is None:
            there = sorted(str(int(f.stem[-2:])) for f in index.parent.glob(f"{split}list[0-9][0-9].txt"))
            raise DataError(
                f"{index.parent}: no {split}list{number:02}.txt; data.split_number may be {', '.join(there) or 'none'}"
            )
        clips = [_clip(file, line, words, split, labels, classes) for line, words in list_lines(file)]
        not_empty(file, clips)
        listed += clips
    return gather(root, [class_words(name) for name in classes], listed, options.labels)


def _clip(file: Path, line: int, words: list[str], split: str, labels: dict[str, int], classes: list[str]) -> Listed:
    name = words[0] if len(words) == 2 and words[1].isdecimal() else " ".join(words)
    label = labels.get(class_key(Path(name).parent.name))
    if label is None:
        raise DataError(f"{file}, line {line}: {in_short(name)!r} lies in the folder of no class of classInd.txt")
    if name != " ".join(words) and float(words[1]) != label + 1:
        raise DataError(
            f"{file}, line {line}: says class {in_short(words[1])} of the folder {in_short(classes[label])!r}, which "
            f"is {label + 1} in classInd.txt; the lists disagree"
        )
    return Listed((name,), label, split)
