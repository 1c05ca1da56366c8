"""Settings out of range are refused at once, and torch comes only when it is needed."""

import pytest

from dcft_cli import DCFTConfig


@pytest.mark.parametrize(
    "settings",
    [
        {"kernel_size": 0},
        {"rank": 0},
        {"stride": 9},
        {"stride": 0},
        {"scale": 0.0},
        {"scale": float("nan")},
        {"init": "ones"},
        {"targets": []},
        {"targets": "Q"},
    ],
)
def test_impossible_settings_are_refused(settings: dict) -> None:
    with pytest.raises(ValueError, match=next(iter(settings))):
        DCFTConfig(**settings)
