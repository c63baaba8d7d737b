"""One screen, whatever a file is called."""

from podium.errors import DataError


def test_a_screen_names_the_file_what_was_expected_and_found_and_what_to_type():
    error = DataError("Wrong.", file="a.png", expected="this", found="that", fix="fix it", faults=["one", "two"])
    told = [
        "Wrong.",
        "  file:     a.png",
        "  expected: this",
        "  found:    that",
        "  - one",
        "  - two",
        "  fix:      fix it",
    ]
    assert str(error).splitlines() == told


def test_a_file_name_that_is_no_text_can_be_printed():
    name = b"caf\xe9.png".decode(errors="surrogateescape")
    str(DataError("Wrong.", file=name)).encode()


def test_many_faults_are_counted_and_not_all_shown():
    lines = str(DataError("Wrong.", faults=[f"fault {one}" for one in range(100)])).splitlines()
    assert len(lines) == 23 and lines[-2] == "  ... and 80 more"


def test_a_screen_stays_one_whatever_a_file_contains():
    error = DataError("a\nb", file="c\x1b[2Jd", found="e" * 10**6 + "f", fix="one\ntwo")
    first, file, found, *fix = str(error).splitlines()
    assert (first, file, fix) == (r"a\nb", r"  file:     c\x1b[2Jd", ["  fix:      one", "two"])
    assert len(found) < 1600 and found.endswith("ef")


def test_an_error_without_a_command_that_fixes_it_says_what_to_do():
    assert str(DataError("Wrong.")).splitlines()[-1] == "  fix:      correct this, then repeat the command"
