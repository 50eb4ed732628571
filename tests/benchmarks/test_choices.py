from __future__ import annotations

import pytest

from benchmarks.choices import _describe, _split, expected_calibration_error


def test_the_calibration_error_is_the_mean_distance_weighted_by_answers() -> None:
    sure = [(1.0, True)] * 6 + [(0.95, False)] * 2  # on average 0.9875, and 0.75 are right
    unsure = [(0.3, False), (0.35, True)]  # 0.325 and 0.5
    assert expected_calibration_error(sure + unsure) == pytest.approx((8 * 0.2375 + 2 * 0.175) / 10)
    assert expected_calibration_error([(0.5, True), (0.5, False)]) == 0


def test_bins_are_named_by_their_range() -> None:
    parts = _split([(1.0, True), (0.74, True), (0.7, False), (0.0, False)], 10)
    assert [_describe(number, len(part)) for number, part in parts.items()] == [
        "bin 0-0.1, 1 answer, right",
        "bin 0.7-0.8, 2 answers, right",
        "bin 0.9-1, 1 answer, right",
    ]
