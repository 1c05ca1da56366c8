"""`--devices`, before any process is started."""

import pytest
import torch

from dcft_cli.errors import UserError
from dcft_cli.training.launch import launch


@pytest.mark.parametrize(
    ("device", "gpus", "mps", "message"),
    [
        ("cuda", 0, False, "--devices 2, but there are 0 CUDA devices"),
        ("auto", 1, False, "--devices 2, but there are 1 CUDA devices"),
        ("auto", 0, True, "an Apple GPU is one device"),
    ],
)
def test_more_processes_than_devices(
    device: str, gpus: int, mps: bool, message: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(torch.cuda, "device_count", lambda: gpus)
    monkeypatch.setattr(torch.backends.mps, "is_available", lambda: mps)
    with pytest.raises(UserError, match=message):
        launch([], 2, device)
