"""Devices, processes and precision."""

import pytest
import torch

from dcft_cli.errors import UserError
from dcft_cli.recipe import ModelSection, TrainingSection
from dcft_cli.training.machine import Machine, find_machine, free_memory, refuse_mixed_on_several


@pytest.fixture(autouse=True)
def without_devices(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    monkeypatch.setattr(torch.backends.mps, "is_available", lambda: False)


def machine(dtype: str = "float32", **settings: object) -> Machine:
    return find_machine(TrainingSection(**settings), ModelSection(name="x", dtype=dtype))


@pytest.mark.parametrize("device", ["auto", "cpu"])
def test_without_cuda(device: str) -> None:
    found = machine(device=device)
    assert (found.device, found.devices, found.processes) == (torch.device("cpu"), 1, 1)
    assert found.is_main and found.replicas == 1
    assert found.precision == "float32"
    assert machine(device=device, precision="bfloat16").precision == "bfloat16"
    assert machine("bfloat16", device=device).precision == "bfloat16"
    assert machine("bfloat16", device=device, precision="bfloat16").precision == "bfloat16"


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"device": "cuda"}, "device=cuda, but torch .* no such device"),
        ({"device": "mps"}, "device=mps, but torch .* no such device"),
        ({"precision": "float16"}, r"training\.precision=float16 needs a CUDA"),
        (
            {"dtype": "bfloat16", "precision": "float32"},
            r"precision=float32 does not fit model\.dtype=bfloat16",
        ),
    ],
)
def test_what_the_machine_lacks_is_an_error(settings: dict, message: str) -> None:
    with pytest.raises(UserError, match=message):
        machine(**settings)


@pytest.mark.parametrize(
    ("environment", "message"),
    [
        ({"ACCELERATE_USE_FSDP": "true"}, "set up for FSDP, .* does not take from there"),
        ({"ACCELERATE_DYNAMO_BACKEND": "INDUCTOR"}, "set up to compile by inductor"),
        (
            {"ACCELERATE_MIXED_PRECISION": "no", "MASTER_PORT": "29500"},
            "started one process only: several on CPUs need MPI",
        ),
    ],
)
def test_launchers_that_do_not_do_what_was_asked(
    environment: dict[str, str], message: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name, value in environment.items():
        monkeypatch.setenv(name, value)
    with pytest.raises(UserError, match=message):
        machine()


def test_a_launcher_that_does_not_compile(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("ACCELERATE_DYNAMO_BACKEND", "NO")  # as accelerate launch has it
    assert machine().processes == 1


@pytest.mark.parametrize("native", [True, False])
def test_on_cuda(native: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    supported = {False: native, True: True}  # every device can emulate bfloat16
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 1)
    monkeypatch.setattr(
        torch.cuda, "is_bf16_supported", lambda including_emulation: supported[including_emulation]
    )
    found = machine()
    assert (found.device, found.devices, found.replicas) == (torch.device("cuda:0"), 1, 1)
    assert found.precision == ("bfloat16" if native else "float32")
    assert machine(precision="bfloat16").precision == "bfloat16"
    assert machine(precision="float16").precision == "float16"
    on_cpu = machine(device="cpu")
    assert (on_cpu.device.type, on_cpu.precision) == ("cpu", "float32")


def test_one_process_on_several_devices_computes_in_float32(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 2)
    monkeypatch.setattr(torch.cuda, "is_bf16_supported", lambda including_emulation: True)
    found = machine()
    assert (found.devices, found.replicas, found.precision) == (2, 2, "float32")
    refuse_mixed_on_several(found)
    with pytest.raises(UserError, match="on several devices, not in bfloat16, and 2 are visible"):
        refuse_mixed_on_several(machine(precision="bfloat16"))


def test_device_names(monkeypatch: pytest.MonkeyPatch) -> None:
    def name(*device: str | int) -> str:
        return Machine(torch.device(*device), 1, 1, True, "float32").device_name

    monkeypatch.setattr(torch, "get_num_threads", lambda: 8)
    monkeypatch.setattr(torch.cuda, "get_device_name", lambda device: "A Large GPU")
    assert name("cpu") == "CPU, 8 threads"
    assert name("mps") == "Apple GPU (mps)"
    assert name("cuda", 1) == "A Large GPU (cuda:1)"


@pytest.mark.parametrize("precision", ["float32", "bfloat16"])
def test_autocast(precision: str) -> None:
    with Machine(torch.device("cpu"), 1, 1, True, precision).autocast():
        product = torch.ones(2, 2) @ torch.ones(2, 2)
    assert product.dtype == getattr(torch, precision)


@pytest.mark.parametrize("used", [False, True])
def test_memory_is_freed_of_a_device_that_was_used(
    used: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A run on the CPU of a machine with CUDA must not touch it: torch has no allocator there."""
    called: list[str] = []
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "is_initialized", lambda: used)
    for name in ("synchronize", "reset_peak_memory_stats", "empty_cache"):
        monkeypatch.setattr(torch.cuda, name, lambda name=name: called.append(name))
    free_memory()
    own = ["synchronize", "reset_peak_memory_stats"] if used else []
    assert [name for name in called if name != "empty_cache"] == own
