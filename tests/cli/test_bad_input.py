"""Bad input, one table: each case ends on one screen with exit code 2, and every file is as it was."""

import hashlib
import pickle
import shlex
import shutil
import stat
import zlib
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

import numpy as np
import pytest
import torch
from safetensors.torch import save

from bad_input_toys import (
    FOLDER,
    Content,
    RunsCode,
    add,
    arrange,
    changed_array,
    cut,
    edit,
    hashes,
    make_bad_input_project,
    member,
    npz,
    overwrite,
    png,
    stored,
    tiff,
    torch_file,
)
from reader_toys import npy, rows, zipped


class Group(NamedTuple):
    """Cases of one command and one file: name -> the content of the file, or of several, and what the screen has."""

    arguments: str
    file: str
    cases: dict[str, tuple]
    others: dict[str, Content] = {}  # noqa: RUF012


NINES = "9" * 5000
NAMES = 'source = "names"\nlabel_pattern = "{}"'
RECIPE = 'architecture = "fastnet"\nepochs = 1\nlearning_rate = 0.1\n'
PUBLISHED = "pretrained = true\nstored_pixels = 16\n"
LOCK_HEAD = '{"format": 1, "fingerprint": "", "classes": ["a"], "validation": {}, "train": 1, "test": 0, '


def signed_lock(rows: str) -> str:
    """A lock with these rows, whose checksum is right."""
    sha256 = hashlib.sha256(f'["a"]\n{rows}'.encode()).hexdigest()
    return f'{LOCK_HEAD}"rows_sha256": "{sha256}"}}\n{rows}'


SETTINGS = {
    "not TOML": ("[data", "Not a TOML file.", "Expected ']'", "edit"),
    "empty": ("", "title: missing", "data: missing"),
    "not UTF-8": (b"\xff\xfet", "Not a TOML file.", "0xff"),
    "nested too deep": ("a = " + "[" * 100_000, "Not a TOML file.", "recursion"),
    "an integer of 5,000 digits": (f"title = {NINES}", "Not a TOML file.", "4300 digits"),
    "a key twice": (edit("title", 'title = "a"\ntitle'), "Not a TOML file.", "overwrite"),
    "a folder": (FOLDER, "cannot be read", "Is a directory"),
    "an unknown key": (edit("rows", "rowz"), "validation.rowz", "did you mean rows?"),
    "a wrong type": (edit("40", '"many"'), "validation.rows = 'many': expected int"),
    "out of range": (add("notebook_hours = 0"), "kaggle.notebook_hours = 0.0: expected at least 1"),
    "a retired accelerator": (add('notebook_accelerator = "NvidiaTeslaP100"'), "notebook_accelerator", "NvidiaTeslaT4"),
    "an image without its hash": (
        add('notebook_image = "gcr.io/kaggle-images/python:latest"'),
        "kaggle.notebook_image",
        "latest, original or a docker image",
    ),
    "not a number": (add("notebook_hours = nan"), "kaggle.notebook_hours = nan: expected"),
    "larger than any float": (add(f"notebook_hours = {NINES[:400]}"), "notebook_hours = 999", "expected float"),
    "a null character": (
        edit("[kaggle]", '[submission]\nid_column = "a\\u0000"\n[kaggle]'),
        "without a null character",
    ),
    "no regular expression": (edit('source = "folders"', NAMES.format("(")), "expected a regular expression"),
    "too many repetitions": (edit('source = "folders"', NAMES.format("(a){99999999999}")), "a regular expression"),
    "parentheses too deep": (edit('source = "folders"', NAMES.format("(" * 5000 + ")" * 5000)), "a regular expression"),
    "a key of 100,000 characters": (add("k" * 100_000 + " = 1"), "kkk", " ... ", "known here: competition"),
    "codes of a terminal": (add('"\\u001b[2J\\n" = 1'), r"\x1b[2J\n: unknown key"),
    "keys that contradict each other": (edit('"toy"', '"toy"\nmetric = "rmse"'), 'metric = "rmse": expected'),
}
NET = {
    "without epochs": (RECIPE.replace("epochs", "#"), "epochs: missing"),
    "weights of fastnet": (f"{RECIPE}pretrained = true\n", "pretrained = true: expected false, as fastnet"),
    "a key without effect": (f"{RECIPE}muon_rate = 1\n", "muon_rate = 1.0: expected", 'optimiser = "muon"'),
    "a folder": (FOLDER, "cannot be read", "Is a directory"),
    "a seed in its name": ({"competitions/toy/net.s2.toml": RECIPE}, "'net.s2' cannot be the name", "rename it"),
    "several": (
        {"competitions/toy/a.toml": "a", "competitions/toy/b.toml": "b"},
        "Several recipes",
        "a.toml",
        "b.toml",
    ),
}
SEARCH = {
    "an unknown key": (add("[search]\ndroput = [0, 0.5]"), "search.droput: unknown key; did you mean dropout?"),
    "no table": (add("search = 5"), "Not a table.", "search = 5"),
    "a range upside down": (add("[search]\ndropout = {low = 0.5, high = 0}"), "search.dropout", "low < high"),
}
LABELS = {
    "missing": (None, "train.csv: missing"),
    "empty": ("", "train.csv: no rows"),
    "a header alone": ("id,label\n", "train.csv: no rows"),
    "UTF-16": ("id,label".encode("utf-16"), "not a CSV table in UTF-8", "save it as UTF-8"),
    "an open quote": (add('"1,'), "train.csv: not a CSV table"),
    "a cell of 200,000 characters": (add("x" * 200_000), "field larger than field limit"),
    "semicolons": ("id;label\n1;cat\n", "no column 'id', 'label'; it has 'id;label'"),
    "two columns of one name": (edit("id,label", "id,label,label"), "several columns are called 'label'"),
    "an id twice": (add("1,cat\n"), "line 3", "line 14", "occurs 2 times"),
    "an id without an image": (add("99,cat\n"), "line 14: '99' has no image"),
    "an image without a label": (edit("\n11,dog", ""), "11.png: an image without a label"),
    "an empty label": (edit("11,dog", "11,"), "line 13: label is empty"),
    "one class": (lambda old: old.replace(b"dog", b"cat"), "1 class(es) with images; expected 2 or more"),
    "numbers": (rows("id,label", (f"{k},{k / 7}" for k in range(12))), "look like a number", 'target = "number"'),
    "a null character": (edit("11,dog", "11,d\0g"), r"the class 'd\x00g' contains a control character"),
}
SAMPLE = {
    "missing": (None, "sample.csv: missing"),
    "other columns": (edit("label", "breed"), "its columns are id, breed; a submission would have id, label"),
    "an id without an image": (add("c,cat\n"), "sample.csv line 4: 'c' has no image"),
    "an image that it lacks": (edit("b,dog\n", ""), "b.png: a test image that is not in"),
    "an id twice": (add("a,cat\n"), "line 2", "line 4", "occurs 2 times"),
}
SUBMISSION = {
    "faults": ("id,label\n99,cta\n", "Not a submission of toy", "'99'", "'cta'"),
    "empty": ("", "the file is empty", "make ensemble COMPETITION=toy"),
    "a byte order mark": ("\ufeffid,label\n", "begins with a byte order mark"),
    "not UTF-8": (b"id,label\n\xe9", "byte 0xe9 at offset 9"),
    "an open quote": ('id,label\n1,"', "line 2: not CSV from here on"),
    "a folder": (FOLDER, "Is a directory"),
    "missing": ({}, "cannot be read: No such file"),
}
TABLE = rows("id,bird,cat,dog", (f"v{row},0.2,0.3,0.5" for row in range(40)))
TESTS = rows("id,bird,cat,dog", (f"{row},0.2,0.3,0.5" for row in range(1, 31)))
IMPORT = {
    "missing": (None, "No such file"),
    "empty": ("", "no columns"),
    "another class": (TABLE.replace(b"cat", b"catt"), "columns that are not classes: catt"),
    "a ragged row": (TABLE + b"v40,1\n", "line 42 has 2 cells, 4 columns"),
    "a word": (TABLE.replace(b"0.2", b"much", 1), "no finite number: line 2, id v0: much for "),
    "NaN": (TABLE.replace(b"0.2", b"nan", 1), "no finite number: line 2, id v0: nan for "),
    "wrong sums": (TABLE.replace(b"0.2", b"0.9", 1), "rows do not sum to 1"),
    "an id twice": (TABLE.replace(b"v1,", b"v0,"), "repeated (v0)", "missing (v1)"),
    "another kind": ({"oof.csv": TABLE, "test.csv": TESTS.replace(b"0.2", b"20")}, "different kinds", "logits"),
}
IMPORT_NPZ = {
    "no archive": (b"PK\3\4", "not a zip file"),
    "single values": (npz(id=5, bird=1.0, cat=1.0, dog=1.0), "not of one length"),
    "two lengths": (npz(id=["v0"], bird=[1.0, 2], cat=[1.0, 2], dog=[1.0, 2]), "not of one length"),
}
LOCK = {
    "edited": (edit("v1,", "V1,"), "Not a data.lock file", "changed after it was written", "make prepare"),
    "cut": (cut, "Not a data.lock file"),
    "empty": ("", "Not a data.lock file"),
    "nested too deep": ("[" * 100_000, "Not a data.lock file", "recursion"),
    "another target": (
        {"competitions/toy/competition.toml": edit('"folders"', '"csv"\ntarget = "ordinal"\n')},
        *("prepared for another target", "data.lock", 'target = "ordinal"', "make prepare"),
    ),
    "larger than any integer": (signed_lock(f"v,0,{NINES[:30]}\n"), "Not a data.lock file", "too large"),
}
LEDGER = {
    "edited": ("a,b\n", "The ledger cannot be read.", "git checkout"),
    "not UTF-8": (b"\xff", "The ledger cannot be read."),
}
PSEUDO = {
    "unknown ids": ("id,label\nx,1\n", "cannot be used", "line 2: 'x' is no test image", "make pseudo"),
    "not text": (b"\xff\0", "not a CSV table in UTF-8", "make pseudo"),
    "missing": ({}, "p.csv: missing", "make pseudo"),
}
IMAGE = {
    "cut": (cut, "1 fault(s)", "0.png: not a whole image: Truncated File Read"),
    "empty": ("", "0.png: not a whole image: not in any format"),
    "a page": ("<html>", "0.png: not a whole image: not in any format"),
    "a wrong checksum": (overwrite(60, b"\0\0\0"), "0.png: not a whole image: broken PNG file"),
    "a million pixels a side": (png(10**6, b""), "not a whole image: Image size (1000000000000 pixels) exceeds"),
    "fewer pixels than its header claims": (png(9, zlib.compress(b"\0")), "0.png: not a whole image"),
    "floating-point grey": (tiff("F", 0.5), "0.png: not a whole image: floating-point grey"),
    "32-bit grey": (tiff("I", 10**6), "0.png: not a whole image: 32-bit grey"),
    "a folder": (FOLDER, "'0' has no image"),
    "no test images": ({"data/pets/test/a.png": None, "data/pets/test/b.png": None}, "test: no images"),
    "two of one id": ({"data/pets/train/0.jpg": ""}, "0.jpg", "the id '0' occurs 2 times"),
    "another file": ({"data/pets/test/a.psdx": ""}, "a.psdx: not an image that Podium can read"),
}
NEW_IMAGE = {
    "damaged": ("no", "a.png", "not a whole image"),
    "no folder": ({}, "There are no images.", "found:    nothing"),
    "no image": ({"new/a.txt": ""}, "There are no images.", "found:    a folder without images"),
}
ENTRY = b"PK\1\2"
LINK = {"create_system": 3, "external_attr": stat.S_IFLNK << 16}
ARCHIVE = {
    "cut": (cut, "damaged or truncated", "download it again"),
    "a page": ("<html>", "damaged or truncated"),
    "empty": ("", "damaged or truncated"),
    "a damaged member": (overwrite(60, b"\0\0\0\0"), "damaged or truncated", "cats.zip/"),
    "encrypted": (overwrite(8, b"\1", after=ENTRY), "is encrypted", "DATA="),
    "an unknown compression": (overwrite(10, b"\x63", after=ENTRY), "damaged", "not supported"),
    "gigabytes": (overwrite(24, b"\0\0\0\x7f", after=ENTRY), "not safe", "far more than its size"),
    "a name that leads out": (zipped({"../x.png": b""}), "not safe", "../x.png: leads out of its folder"),
    "a link": (zipped({"train": b"/etc"}, **LINK), "not safe", "train: neither a file nor a folder"),
    "no labelled images": (zipped({"a/1.png": b""}), "'train' is missing", "a folder train/ or an archive"),
    "missing": (None, "were not found", "DATA="),
}
OTHERS = {
    "a.7z": (b"7z\xbc\xaf\x27\x1c\0\4", "damaged or truncated"),
    "a.tar": (b"\1" * 600, "damaged or truncated"),
    "a.tgz": (b"\x1f\x8b\x08\0", "damaged or truncated"),
    "a.rar": (b"", "Not an archive that Podium can read.", ".tar.gz"),
}
SHAPE = "{{'descr': '<U{}', 'fortran_order': False, 'shape': (99999999999,)}}\n"
PREDICTIONS = {
    "cut": (cut, "is damaged", "rm oof/toy/net.s1.npz && make net.s1"),
    "no archive": (pickle.dumps(1), "is damaged", "not a zip file"),
    "a changed byte": (overwrite(-900, b"\0\0\0\0\0"), "is damaged"),
    "no arrays": (zipped({"about.json": b"{}"}), "is damaged", "oof_ids.npy"),
    "NaN": (changed_array("oof_logits", lambda old: old * np.nan), "oof_logits: NaN or infinity in 40 rows"),
    "a row too few": (
        changed_array("test_logits", lambda old: old[1:]),
        "of shape (30, 3), found float32 of shape (29",
    ),
    "text for numbers": (member("oof_logits", stored(["a"])), "oof_logits: expected floats", "found <U1"),
    "objects that would run code": (member("classes", stored(np.array([RunsCode()]))), "is damaged"),
    "other ids": (
        changed_array("oof_ids", lambda old: np.char.replace(old, "v", "w")),
        "40 validation ids are missing",
    ),
    "an id twice": (changed_array("test_ids", lambda old: old[[0, *range(29)]]), "1 test ids are repeated"),
    "other labels": (changed_array("oof_labels", lambda old: 2 - old), "other labels in"),
    "another order of classes": (changed_array("classes", lambda old: old[::-1]), "classes: expected bird, cat, dog"),
    "other data": (member("about", edit('"data"', '"other"')), "fingerprint: expected data, found other"),
    "a description that is no JSON": (member("about", b"{run:"), "is damaged"),
    "a description nested too deep": (member("about", b"[" * 100_000), "is damaged", "recursion"),
    "a description that is a list": (member("about", b"[]"), "about: expected a JSON object, found list"),
    "a header that does not end": (member("classes", npy("{'descr': (")), "is damaged"),
    "a header of other types": (member("classes", npy("{[]: 1}")), "is damaged"),
    "a header of terabytes": (member("oof_ids", npy(SHAPE.format(9))), "is damaged", "of shape (99999999999,)"),
    "a header of empty values": (member("classes", npy(SHAPE.format(0))), "is damaged", "of shape (99999999999,)"),
    "a file where their folder should be": ({"oof/toy": ""}, "operating system", "oof/toy", "Not a directory"),
    "a file where submissions should be": ({"submissions": ""}, "Not a directory", "submissions"),
}
WEIGHTS = {
    "no file": ("no", "cannot be loaded without running code", "state_dict()"),
    "a pickle that would run code": (pickle.dumps(RunsCode()), "cannot be loaded without running code"),
    "an object that would run code": (torch_file(RunsCode()), "cannot be loaded without running code"),
    "a list": (torch_file([1]), "cannot be loaded without running code"),
    "another network": (torch_file({"a": torch.zeros(1)}), "of another architecture", "1 tensors"),
    "missing": ({}, "The weights file is missing.", "`pretrained`"),
    "a folder": (FOLDER, "The weights file is missing."),
}
SAFETENSORS = {
    "cut": (save({"a": torch.zeros(9)})[:40], "cannot be loaded without running code"),
    "a header of exabytes": (b"\xff" * 7 + b"\0{}", "cannot be loaded without running code"),
}
ZERO = {"a": torch.zeros(1)}
PARAMETERS = {
    "cut": (cut, "The parameters file is damaged.", "podium train tiny.s1 --again"),
    "without description": (save(ZERO), "The parameters file is damaged.", "--again"),
    "a number of 5,000 digits": (save(ZERO, {"about": NINES, "normalisations": "{}"}), "parameters file is damaged"),
    "another training": (save(ZERO, {"about": '{"stamp": "x"}', "normalisations": "{}"}), "different", "stamp x"),
    "missing": (None, "tiny.s1 has no trained parameters here.", "--again"),
}
VARIANT = "variant fast.s1 epochs="
NEW = "new -c birds --data data/pets"
ARGUMENTS: dict[str, tuple[str, ...]] = {
    **{f"{name} -c toy": ("A competition without a recipe.",) for name in ("train", "estimate", "suggest")},
    **{f"{name} x -c toy": ("A competition without a recipe.",) for name in ("tune", "show", "lr-find")},
    **{f"{name}": ("which competition on Kaggle", "make check") for name in ("submissions", "download")},
    "submit -m first": ("which competition on Kaggle", "make check"),
    "prepare -c digit": ("There is no competition 'digit'.", "COMPETITION=digits"),
    "runs -c ../digits": ("There is no competition '../digits'.",),
    "runs -c ''": ("Which competition?",),
    "check none.csv -c cats": ("not prepared yet", "data.lock", "make prepare COMPETITION=cats"),
    "ensemble -c cats": ("There are no predictions to blend.", "make train COMPETITION=cats"),
    "train tiny.s2": ("There is no run or recipe 'tiny.s2'.", "RUN=tiny.s1"),
    "show fasd": ("There is no run or recipe 'fasd'.", "RUN=fast"),
    "show ''": ("Which run or recipe?", "RUN=fast"),
    "lr-find fast.s1": ("There is no recipe 'fast.s1'.", "RECIPE=fast"),
    "lr-find fasst --write": ("There is no recipe 'fasst'.", "RECIPE=fast"),
    "embed fasst": ("There is no recipe 'fasst'.", "RECIPE=fast"),
    "embed fast": ("fast: Features of a network that is not trained", "expected: pretrained weights"),
    "tune tny": ("There is no recipe 'tny'.", "RECIPE=tiny"),
    "tune": ("Which recipe?", "one of fast, tiny"),
    "tune tiny --out fast": ("cannot replace an existing file", "fast.toml"),
    **{f"tune tiny --trials {value}": ("Invalid value for '--trials'",) for value in ("abc", "0")},
    **{f"tune tiny --minutes {value}": ("Invalid value for '--minutes'",) for value in ("soon", "-1", "nan", "inf")},
    "variant fast.s1 epocks=3": ("epocks: unknown key; did you mean epochs?", "correct SET="),
    f"{VARIANT}many": ("epochs = 'many': expected int", "correct SET="),
    f"{VARIANT}{NINES}": ("File name too long",),
    f"{VARIANT}{'[' * 9000}": ("epochs = '[[[", "expected int", "correct SET="),
    f"{VARIANT}1": ("without effect", "correct SET="),
    "pseudo": ("There is no blend of the present runs", "make ensemble COMPETITION=digits"),
    "ensemble -c toy --threshold nan": ("threshold = nan: expected 0 to 1", "THRESHOLD="),
    "ensemble -c toy --strategy greedi": ("did you mean greedy?", "STRATEGY="),
    "ensemble -c toy --out ../x": ("cannot be the name of a submission", "OUT=try2"),
    "ensemble -c toy --out ''": ("cannot be the name of a submission", "OUT=try2"),
    "submit -c toy": ("A submission needs a message.", "MESSAGE="),
    "submit none.csv -m first -c toy": ("There is no such file.", "none.csv", "make ensemble COMPETITION=toy"),
    "submit -m first -c alone": ("nothing to submit: the competition has no test images", "podium predict"),
    "score none.csv -c toy": ("Only the test labels of digits come with Podium.",),
    "score none.csv": ("cannot be scored", "none.csv", "No such file", "make ensemble"),
    "predict fast.s1 data/pets/test": ("fast.s1 has no trained parameters here.", "--again"),
    "import ../x --oof o.csv -c toy": ("'../x' cannot be the name of a run.", "letters, digits"),
    "import vit.s1 --oof o.xlsx -c toy": ("cannot read this kind of file", "o.xlsx", ".csv, .parquet, .npz"),
    "new -c digits --data data/pets": ("exists already", "rm -r competitions/digits"),
    "new -c a/b --data data/pets": ("'a/b' cannot be the name of a competition.", "make new COMPETITION=a-b"),
    "new -c '' --data data/pets": ("The new competition has no name.", "make new COMPETITION=my-photos"),
    "new -c birds --data data/pet": ("DATA= names a file or folder that does not exist", "fix:      DATA=data/pets"),
    "new -c birds": ("needs either KAGGLE= or DATA=",),
    "new -c birds --data none": ("DATA= names a file or folder that does not exist", "none"),
    "new -c birds --data oof": ("There is no folder or archive of labelled images.", "oof"),
    f"{NEW} --target ordnal": ("did you mean ordinal?",),
    f"{NEW} --metric quadratic_kappa": ("expected one of accuracy",),
    f"{NEW} --target number --metric auc": ("do not fit each other",),
    f"{NEW} --set group_column=x": ("did you mean data.group_column?",),
    f"{NEW} --set data.target": ("expected <key>=<value>",),
    "trian": ("No such command 'trian'",),
    "train --agian": ("No such option: --agian",),
    "import friend.s1": ("Missing option '--oof'",),
}
ENVIRONMENT = {  # variable=value, arguments
    "PODIUM_DEVICE=tpu train fast": ("PODIUM_DEVICE=tpu", "one of", "unset PODIUM_DEVICE"),
    "PODIUM_DATA=none prepare -c cats": ("PODIUM_DATA= names a file or folder that does not exist.", "none"),
    "PODIUM_DATA=data/pets/train.csv prepare -c cats": ("Not an archive that Podium can read.", "train.csv", ".tar.gz"),
    "PODIUM_CACHE=data/pets/train.csv prepare -c cats": ("cannot be written", "train.csv", "set PODIUM_CACHE"),
    "PODIUM_WEIGHTS=none train published": ("PODIUM_WEIGHTS= names a file or folder that does not exist.", "none"),
    "COMPETITION=digit runs": ("There is no competition 'digit'.", "COMPETITION=digits"),
    "COMPETITION= runs": ("Which competition?", "one of alone, cats, digits"),
}
TOY, TINY, FAST = "competitions/toy", "competitions/digits/tiny.toml", "competitions/digits/fast.toml"
OOF = "import friend.s1 --oof {} --test test.csv -c toy"
PRETRAINED = {TINY: add('pretrained = "w.pth"\n')}
GROUPS = {
    "TOML": Group("runs -c toy", f"{TOY}/competition.toml", SETTINGS),
    "recipe": Group("runs -c toy", f"{TOY}/net.toml", NET),
    "no recipe": Group("rehearse", TINY, {"": ({TINY: None, FAST: None}, "A competition without a recipe.")}),
    "search": Group("tune tiny", TINY, SEARCH),
    "labels": Group("prepare -c pets", "data/pets/train.csv", LABELS),
    "sample": Group("prepare -c pets", "data/pets/sample.csv", SAMPLE),
    "submission": Group("check x.csv -c toy", "x.csv", SUBMISSION),
    "import": Group(OOF.format("oof.csv"), "oof.csv", IMPORT, {"test.csv": TESTS}),
    "import of .npz": Group(OOF.format("oof.npz"), "oof.npz", IMPORT_NPZ, {"test.csv": TESTS}),
    "import of Parquet": Group(OOF.format("a.parquet"), "a.parquet", {"cut": ("PAR1", "cannot be read")}),
    "lock": Group("ensemble -c toy", f"{TOY}/data.lock", LOCK),
    "ledger": Group("submissions -c toy", "submissions/toy/ledger.csv", LEDGER),
    "pseudo-labels": Group("train tiny", "p.csv", PSEUDO, {TINY: add('pseudo_labels = "p.csv"\n')}),
    "image": Group("prepare -c pets", "data/pets/train/0.png", IMAGE),
    "image to predict": Group("predict tiny.s1 new", "new/a.png", NEW_IMAGE),
    "archive": Group("prepare -c cats", "data/cats.zip", ARCHIVE),
    **{f"archive {name}": Group(f"prepare -c cats --data {name}", name, {"": case}) for name, case in OTHERS.items()},
    "predictions": Group("ensemble -c toy", "oof/toy/net.s1.npz", PREDICTIONS),
    "results": Group("train fast", "models", {"a file where their folder should be": ("", "Not a directory")}),
    "weights": Group("train tiny", "w.pth", WEIGHTS, PRETRAINED),
    "safetensors": Group("train tiny", "w.safetensors", SAFETENSORS, {TINY: add('pretrained = "w.safetensors"\n')}),
    "parameters": Group("predict tiny.s1 data/pets/test", "models/digits/tiny.s1.safetensors", PARAMETERS),
}


def cases() -> Iterator[pytest.param]:
    """Arguments, changes of files, environment, and what the screen has; the file of a group is named."""
    for group, (arguments, file, of_group, others) in GROUPS.items():
        for name, (content, *texts) in of_group.items():
            files = others | (content if isinstance(content, dict) else {file: content})
            yield pytest.param(
                arguments, files, {}, texts + [Path(file).stem] * (not isinstance(content, dict)), id=f"{group}: {name}"
            )
    for arguments, texts in ARGUMENTS.items():
        yield pytest.param(arguments, {}, {}, texts, id=arguments[:60])
    for words, texts in ENVIRONMENT.items():
        (assignment, arguments), files = words.split(" ", 1), {}
        variable, value = assignment.split("=")
        if variable == "PODIUM_WEIGHTS":
            files = {"competitions/digits/published.toml": RECIPE.replace("fastnet", "resnet34") + PUBLISHED}
        yield pytest.param(arguments, files, {variable: value}, texts, id=words)


@pytest.fixture(scope="module")
def base(prepared, tmp_path_factory, podium):
    folder = make_bad_input_project(prepared, tmp_path_factory.mktemp("bad") / "project")
    assert podium(folder, "train", "tiny").returncode == 0
    return folder


@pytest.mark.parametrize(("arguments", "files", "environment", "texts"), list(cases()))
def test_bad_input_ends_on_one_screen_and_every_file_is_as_it_was(
    base, tmp_path, podium, arguments, files, environment, texts
):
    folder = shutil.copytree(base, tmp_path / "project")
    arrange(folder, files)
    before = hashes(folder)
    done = podium(folder, *shlex.split(arguments), **environment)
    screen, after = done.stderr, hashes(folder)
    assert done.returncode == 2, (done.stdout, screen)
    assert all(text in screen for text in texts), screen
    assert "fix:" in screen or "Usage:" in screen, screen
    assert len(screen.splitlines()) < 28 and max(map(len, screen.splitlines())) < 1600, screen
    assert {file: after.get(file) for file in before} == before
    made = ".cache/", "reports/digits/tune/", "submissions/toy/.ledger.lock", ".podium/"
    assert not [file for file in after.keys() - before.keys() if not file.startswith(made)]
    assert not [file for file in after if file.endswith(".tmp")]
