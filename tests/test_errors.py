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
    assert len(lines) == 22 and lines[-1] == "  ... and 80 more"
