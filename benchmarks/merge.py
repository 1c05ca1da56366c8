"""Time and memory of `dcft merge` against copying the base's checkpoint.

    python benchmarks/merge.py --gigabytes 4 --shard 1GB --dtype float32
    python benchmarks/merge.py --gigabytes 4 --shard 1GB --dtype bfloat16 --rounds 5

The base is a BERT of random weights, 2048 wide, with as many layers as the size takes. Copy, merge
and the imports alone run in turn, each in a fresh process, from files that are in the system's
cache. What is written is flushed to the disk (fsync of every file), and a second column includes
that time. Where a virtual machine returns freed memory to its host, fresh memory takes seconds per
gigabyte for a while; with `--rest 10` that holds for the copy too, which otherwise reuses the
memory that the merge before it has just freed.

Memory is the peak of the resident memory (on Linux only), and of the part of it that belongs to no
file: anonymous memory, which the system cannot take back. Python with torch and transformers needs
some before anything is loaded: see the row of the imports.
"""

import argparse
import json
import os
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from dataclasses import asdict, dataclass
from pathlib import Path

import torch
from torch import nn
from transformers import AutoModelForSequenceClassification, BertConfig

from dcft_cli import DCFTConfig, inject, save_adapter

WIDTH = 2048
SAMPLE = 0.01  # seconds between two readings of a process's memory
COPY = "import shutil, sys; shutil.copytree(sys.argv[1], sys.argv[2])"
# As in the command.
IMPORTS = """
import dcft_cli.cli
from dcft_cli.commands.imports import gc_paused
with gc_paused():
    import dcft_cli.merging.merge
"""


@dataclass(frozen=True)
class Sample:
    """One process: seconds without and with the flush, and its peak memory in bytes."""

    seconds: float
    flushed: float
    resident: int
    anonymous: int


def make_base(folder: Path, args: argparse.Namespace) -> None:
    dtype = getattr(torch, args.dtype)
    layer = 12 * WIDTH**2 * dtype.itemsize
    config = BertConfig(
        hidden_size=WIDTH,
        num_attention_heads=WIDTH // 64,
        intermediate_size=4 * WIDTH,
        num_hidden_layers=max(
            1, round((args.gigabytes * 1e9 - 30522 * WIDTH * dtype.itemsize) / layer)
        ),
    )
    torch.set_default_dtype(dtype)
    model = AutoModelForSequenceClassification.from_config(config, dtype=dtype)
    torch.set_default_dtype(torch.float32)
    model.bert.save_pretrained(folder / "base", max_shard_size=args.shard)
    write_tokenizer(folder / "base")
    del model
    model = AutoModelForSequenceClassification.from_pretrained(
        folder / "base", dtype=dtype, num_labels=3
    )
    model.classifier.float()
    inject(model, DCFTConfig(kernel_size=8), inputs={"input_ids": torch.tensor([[5, 6]])})
    for parameter in model.parameters():
        if parameter.requires_grad:
            nn.init.normal_(parameter, std=0.05)
    save_adapter(model, folder / "adapter.safetensors", base_name=str(folder / "base"))


def write_tokenizer(folder: Path) -> None:
    from tokenizers import Tokenizer
    from tokenizers.models import WordPiece
    from transformers import PreTrainedTokenizerFast

    words = {word: number for number, word in enumerate(["[PAD]", "[UNK]", "a", "b"])}
    PreTrainedTokenizerFast(
        tokenizer_object=Tokenizer(WordPiece(words, unk_token="[UNK]")),
        pad_token="[PAD]",
        unk_token="[UNK]",
    ).save_pretrained(folder)


def measure(command: list[str], written: Path | None) -> Sample:
    began = time.perf_counter()
    process = subprocess.Popen(command, stdout=subprocess.DEVNULL)
    anonymous = 0
    while True:
        pid, status, usage = os.wait4(process.pid, os.WNOHANG)
        if pid:
            break
        anonymous = max(anonymous, anonymous_memory(process.pid))
        time.sleep(SAMPLE)
    process.returncode = os.waitstatus_to_exitcode(status)
    seconds = time.perf_counter() - began
    if process.returncode:
        raise SystemExit(f"{' '.join(command)} failed")
    for file in written.iterdir() if written else ():
        with file.open("rb") as opened:
            os.fsync(opened.fileno())
    flushed = time.perf_counter() - began
    if written:
        shutil.rmtree(written)
    return Sample(seconds, flushed, usage.ru_maxrss * 1024, anonymous)


def anonymous_memory(pid: int) -> int:
    try:
        lines = Path(f"/proc/{pid}/status").read_text().splitlines()
    except OSError:  # the process has ended
        return 0
    return sum(int(line.split()[1]) * 1024 for line in lines if line.startswith("RssAnon"))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--gigabytes", type=float, default=4, help="size of the base")
    parser.add_argument("--shard", default="1GB", help="size of its largest file")
    parser.add_argument("--dtype", default="float32", choices=["float32", "bfloat16", "float16"])
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--rest", type=float, default=0, help="seconds to wait before each process")
    parser.add_argument("--folder", help="parent of the temporary folder")
    args = parser.parse_args()
    with tempfile.TemporaryDirectory(dir=args.folder) as name:
        folder = Path(name)
        subprocess.run([sys.executable, __file__, *sys.argv[1:], "--make", name], check=True)
        base, out = folder / "base", folder / "out"
        python = [sys.executable, "-c"]
        adapter = str(folder / "adapter.safetensors")
        merge = [sys.executable, "-m", "dcft_cli", "merge", str(base), adapter, str(out)]
        kinds = {
            "copy": ([*python, COPY, str(base), str(out)], out),
            "imports": ([*python, IMPORTS], None),
            "merge": (merge, out),
        }
        samples: dict[str, list[Sample]] = {kind: [] for kind in kinds}
        for _ in range(args.rounds):
            for kind, (command, written) in kinds.items():
                time.sleep(args.rest)
                samples[kind].append(measure(command, written))
        sizes = [file.stat().st_size for file in base.glob("*.safetensors")]
    report(args, samples, sizes)


def report(args: argparse.Namespace, samples: dict[str, list[Sample]], sizes: list[int]) -> None:
    found = {kind: [asdict(sample) for sample in taken] for kind, taken in samples.items()}
    print(json.dumps({**vars(args), "bytes": sum(sizes), "largest": max(sizes), "samples": found}))
    print(f"\n{sum(sizes) / 1e9:.2f} GB of {args.dtype} in {len(sizes)} files, the largest "
          f"{max(sizes) / 1e9:.2f} GB; median of {args.rounds} (minimum to maximum)\n")  # fmt: skip
    print("| | s | s, flushed | peak GB resident | peak GB anonymous |")
    print("|---|---:|---:|---:|---:|")
    for kind, taken in samples.items():
        seconds, flushed = ([getattr(s, key) for s in taken] for key in ("seconds", "flushed"))
        print(
            f"| {kind} | {spread(seconds)} | {spread(flushed)} "
            f"| {max(s.resident for s in taken) / 1e9:.2f} "
            f"| {max(s.anonymous for s in taken) / 1e9:.2f} |"
        )
    rounds = list(zip(*samples.values(), strict=True))
    for name in ("seconds", "flushed"):
        whole = [getattr(merge, name) / getattr(copy, name) for copy, _, merge in rounds]
        apart = [
            (getattr(merge, name) - imports.seconds) / getattr(copy, name)
            for copy, imports, merge in rounds
        ]
        print(f"\nmerge to copy, {name}: {spread(whole)}; without the imports {spread(apart)}")
    in_float32 = sum(sizes) * 4 / getattr(torch, args.dtype).itemsize
    most = max(sample.anonymous for sample in samples["merge"])
    print(f"\nanonymous: {most / 1e9:.2f} GB; the base in float32 has {in_float32 / 1e9:.2f} GB")


def spread(values: list[float]) -> str:
    return f"{statistics.median(values):.2f} ({min(values):.2f} to {max(values):.2f})"


if __name__ == "__main__":
    if "--make" in sys.argv:  # in a process of its own, which is not measured
        parser = argparse.ArgumentParser()
        for option in ("--shard", "--dtype", "--make"):
            parser.add_argument(option)
        parser.add_argument("--gigabytes", type=float, default=4)
        parser.set_defaults(shard="1GB", dtype="float32")
        known, _ = parser.parse_known_args()
        make_base(Path(known.make), known)
    else:
        main()
