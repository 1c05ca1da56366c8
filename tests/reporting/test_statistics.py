"""Means, deviations and intervals, against scipy and numbers computed by hand."""

from statistics import fmean, stdev

import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy import stats

from dcft_cli.reporting.statistics import Difference, Summary, paired_difference, summarize

SCORES = st.lists(st.floats(-1, 1), min_size=2, max_size=8)


def test_by_hand() -> None:
    assert summarize([0.2, 0.4, 0.9]) == Summary(3, 0.5, pytest.approx(0.1300**0.5))
    # t for 2 degrees of freedom is 4.3027; the differences are 0.1, 0.2, 0.3.
    found = paired_difference({1: 0.4, 2: 0.6, 3: 0.8}, {1: 0.3, 2: 0.4, 3: 0.5})
    assert found is not None
    assert (found.n, found.mean) == (3, pytest.approx(0.2))
    assert found.half == pytest.approx(4.302653 * 0.1 / 3**0.5, rel=1e-6)


def test_the_interval_is_that_of_a_paired_t_test() -> None:
    a, b = [0.71, 0.74, 0.69, 0.80], [0.70, 0.69, 0.70, 0.74]
    found = paired_difference(dict(enumerate(a)), dict(enumerate(b)))
    assert found is not None and found.half is not None
    interval = stats.ttest_rel(a, b).confidence_interval(0.95)
    assert (found.mean - found.half, found.mean + found.half) == pytest.approx(interval)


@given(SCORES, SCORES)
def test_any_scores(first: list[float], second: list[float]) -> None:
    differences = [x - y for x, y in zip(first, second, strict=False)]
    n = len(differences)
    found = paired_difference(dict(enumerate(first)), dict(enumerate(second)))
    assert found is not None and found.n == n
    assert found.mean == pytest.approx(fmean(differences), abs=1e-12)
    half = stats.t.ppf(0.975, n - 1) * stdev(differences) / n**0.5
    assert found.half == pytest.approx(half, abs=1e-12)
    summary = summarize(first)
    assert (summary.mean, summary.sd) == pytest.approx((fmean(first), stdev(first)), abs=1e-12)


def test_only_seeds_in_both_are_paired() -> None:
    values, reference = {1: 0.5, 2: 0.7, 3: 0.9}, {2: 0.6, 3: 0.6, 4: 0.1}
    found = paired_difference(values, reference)
    assert found == paired_difference({2: 0.7, 3: 0.9}, {2: 0.6, 3: 0.6})
    assert found is not None and found.n == 2


def test_one_seed_has_no_interval_and_none_has_no_difference() -> None:
    assert summarize([0.5]) == Summary(1, 0.5, None)
    one = paired_difference({1: 0.5}, {1: 0.25, 2: 0.9})
    assert one == Difference(1, 0.25, None)
    assert paired_difference({1: 0.5}, {2: 0.5}) is None
