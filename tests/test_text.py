"""Tables as text."""

import math

from podium.text import record_lines


def test_what_is_unknown_is_a_dash_and_numbers_are_below_each_other():
    records = [{"run": "a", "log_loss": 0.5, "seconds": 12.3}, {"run": "bcd", "log_loss": math.nan, "seconds": None}]
    assert record_lines(records, {"run": "", "log_loss": ".2f", "seconds": ".0f", "device": ""}) == [
        "run log loss seconds device",
        "a       0.50      12 -",
        "bcd        -       - -",
    ]
    assert record_lines([], {"run": ""}) == []
