"""Settings out of range are refused at once, and torch comes only when it is needed."""

import subprocess
import sys

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


def test_importing_the_package_imports_no_torch() -> None:
    code = "import sys, dcft_cli; assert 'torch' not in sys.modules; dcft_cli.inject"
    subprocess.run([sys.executable, "-c", code], check=True)
