"""The output and the files of `podium show`, `podium lr-find` and `podium variant`."""


def test_show_draws_a_sheet_and_prints_what_to_check(project, podium):
    done = podium(project, "show", "fast")
    assert done.returncode == 0 and not done.stderr
    assert "wrote reports/digits/show/fast.s1.png: 10 labelled images" in done.stdout
    assert "no augmentation. Stored at 16 px" in done.stdout and "check: Does each label fit" in done.stdout
    assert (project / "reports/digits/show/fast.s1.png").is_file()
    assert not (project / "oof").exists()


def test_lr_find_prints_its_suggestions_and_write_puts_one_into_the_recipe(project, podium):
    file = project / "competitions" / "digits" / "fast.toml"
    before = file.read_text()
    done = podium(project, "lr-find", "fast")
    assert done.returncode == 0 and not done.stderr, done.stderr
    expected = (
        "their rate is muon_rate",
        "valley",
        "slide",
        "steep",
        "minimum",
        "the recipe          find",
        "WRITE=1 writes",
    )
    assert all(text in done.stdout for text in expected), done.stdout
    assert len(done.stdout.splitlines()) == 10 and "\r" not in done.stdout
    assert file.read_text() == before
    done = podium(project, "lr-find", "fast", "--write")
    assert done.returncode == 0 and "stale now: fast.s1, fast.s2; make fast trains them" in done.stdout, done.stderr
    old_lines, lines = before.splitlines(), file.read_text().splitlines()
    assert lines[3].startswith(("learning_rate = 0.", "learning_rate = 1"))
    assert " # lr_find's valley, 20" in lines[3] and lines[3].endswith(", batch 128")
    assert old_lines[:3] + old_lines[4:] == lines[:3] + lines[4:]
    names = {path.name for path in (project / "reports/digits/lr-find").iterdir()}
    assert names == {"fast.csv", "fast.json", "fast.png"}


def test_a_variant_is_written_and_its_runs_are_printed_and_listed(project, podium):
    done = podium(project, "variant", "fast", "epochs=2", "augment.shift_pixels=2")
    first, second = (f"fast-epochs2-augment.shift_pixels2.s{seed}" for seed in (1, 2))
    assert done.returncode == 0 and done.stdout == f"{first} {second}\n", done.stderr
    lines = podium(project, "runs").stdout.splitlines()
    assert len(lines) == 6 and f"{first} not trained" in "\n".join(lines)
    assert len({line.find("not trained") for line in lines[1:]}) == 1  # one column, however long the names are


def test_a_run_that_is_not_trained_has_no_scores_and_no_seconds(project, podium):
    header, *lines = podium(project, "runs").stdout.splitlines()
    assert header.split() == ["run", "state", "accuracy", "log", "loss", "seconds", "device"]
    assert [line.split() for line in lines] == [
        [name, "not", "trained", "-", "-", "-", "-"] for name in ("fast.s1", "fast.s2", "tiny.s1")
    ]


def test_a_read_only_recipe_is_an_error_before_lr_find_runs(project, podium):
    (project / "competitions" / "digits" / "fast.toml").chmod(0o444)
    done = podium(project, "lr-find", "fast", "--write")
    assert done.returncode == 2 and "write-protected" in done.stderr and not done.stdout
