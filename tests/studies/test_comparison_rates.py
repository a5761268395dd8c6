"""Rates of a comparison: read from the command line, chosen, and the width around the best."""

import math

import pytest

from toolkit.errors import ToolkitError
from toolkit.studies.comparison_rates import best_rate, interval, is_at_end, next_rate, read_rates


def test_a_range_is_a_grid_of_equal_factors_with_both_ends():
    assert read_rates("1e-4:1e-1:7") == (0.0001, 0.00032, 0.001, 0.0032, 0.01, 0.032, 0.1)
    assert read_rates("0.5:8:5") == (0.5, 1.0, 2.0, 4.0, 8.0)


@pytest.mark.parametrize(
    ("text", "why"),
    [
        ("1e-3", "is no range of rates"),
        ("1e-3:1e-1", "is no range of rates"),
        ("a:b:c", "is no range of rates"),
        ("1e-3:1e-1:3:4", "is no range of rates"),
        ("1e-3:1e-1:0", "is no range of rates"),
        ("0:1e-1:5", "must be a number above 0"),
        ("-1:1:5", "must be a number above 0"),
        ("nan:1:5", "must be a number above 0"),
        ("1e-3:inf:5", "must be a number above 0"),
        ("1e-1:1e-3:5", "must be above 0.1"),
        ("1:1e9:5", "at most 1e\\+06"),
        ("1e-3:1e-1:1", "1 rates for each optimizer"),
        ("1e-3:1e-1:2", "2 rates for each optimizer"),
        ("1e-300:1:1000", "1000 rates"),
        ("1e-3:1e-1:9", "differ by a factor of 1.78"),
    ],
)
def test_what_is_no_range_is_refused_with_what_to_write(text, why):
    with pytest.raises(ToolkitError, match=why) as caught:
        read_rates(text)
    assert "\n" not in str(caught.value)


def test_the_highest_accuracy_is_best_of_equal_ones_the_middle_and_what_diverged_never():
    assert best_rate({0.1: 0.9, 0.01: 0.95, 0.001: 0.8}) == 0.01
    assert best_rate({1: 0.5, 2: 0.5, 3: 0.5, 4: None}) == 2
    assert best_rate({0.1: None, 1.0: None}) is None


def test_further_rates_go_beyond_an_end_that_is_best():
    assert next_rate({0.01: 0.3, 0.1: 0.4, 1.0: 0.5}, 10) == 10
    assert next_rate({0.01: 0.5, 0.1: 0.4, 1.0: 0.3}, 10) == 0.001
    assert next_rate({0.01: None, 0.1: None}, 10) == 0.001
    assert is_at_end({0.01: 0.5, 0.1: 0.4})
    assert not is_at_end({0.01: 0.3, 0.1: 0.4, 1.0: None})


def test_further_rates_go_between_the_best_and_its_better_neighbour():
    assert next_rate({0.01: 0.3, 0.1: 0.5, 1.0: 0.4}, 10) == 0.32
    assert next_rate({0.01: 0.4, 0.1: 0.5, 1.0: 0.3}, 10) == 0.032
    assert next_rate({0.01: 0.0, 0.1: 0.5, 1.0: None}, 10) == 0.032


def test_three_further_rates_in_the_closest_grid_are_all_new():
    for low in (1.0, 1.9, 3.3, 9.0):
        rates = read_rates(f"{low}:{low * 8}:4")
        for best in range(1, 3):
            tried = {rate: 0.9 - abs(math.log(rate / rates[best])) / 10 for rate in rates}
            for _ in range(3):
                further = next_rate(tried, 2.0)
                assert further not in tried
                tried[further] = 0.9 - abs(math.log(further / rates[best])) / 10


def test_the_interval_ends_where_a_line_over_the_logarithm_falls_by_a_point():
    # From 0.1 down to 0.01 it falls by 4 points: one point lies a quarter of the decade away. Upwards by 2: half.
    found = interval({0.01: 0.91, 0.1: 0.95, 1.0: 0.93})
    assert found.low == pytest.approx(0.1 * 10**-0.25)
    assert found.high == pytest.approx(0.1 * 10**0.5)
    assert found.factor == pytest.approx(10**0.75)
    assert not found.low_is_open
    assert not found.high_is_open


def test_an_interval_that_reaches_the_last_rate_tried_is_open_and_what_diverged_is_outside():
    found = interval({0.001: 0.949, 0.01: 0.945, 0.1: 0.95, 1.0: 0.941, 10.0: None, 100.0: 0.949})
    assert (found.low, found.low_is_open) == (0.001, True)
    assert (found.high, found.high_is_open) == (1.0, False)  # what comes after a divergence does not count
    assert interval({0.1: None, 1.0: None}) is None
