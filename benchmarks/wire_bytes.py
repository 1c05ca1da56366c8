"""Bytes of gradients that each process sends at a step: arithmetic, and counted in a run on gloo.

    python benchmarks/wire_bytes.py
    python benchmarks/wire_bytes.py --processes 3

Two processes train MiniLM's architecture with random weights, as `dcft train --devices 2` does.
A communication hook of DDP counts the bytes that are handed to all-reduce. A ring all-reduce of
n bytes among N processes sends 2 (N - 1) / N n from each of them (Patarasuk and Yuan 2009).
"""

import argparse
import json
import socket
from collections.abc import Iterator

import torch
import torch.distributed as dist
import torch.multiprocessing as mp
from torch import nn
from torch.distributed.algorithms.ddp_comm_hooks.default_hooks import allreduce_hook
from torch.nn.parallel import DistributedDataParallel
from transformers import AutoModelForSequenceClassification, BertConfig

from dcft_cli.methods.build import build
from dcft_cli.recipe import AdapterSection
from dcft_cli.recipe.methods import with_method_defaults
from dcft_cli.runs.adapter_plan import targets_of
from dcft_cli.targets.head import find_parts, outside_encoder
from dcft_cli.training.distributed import exchange_trained_only

METHODS = {"dcft": {}, "lora": {"rank": 8}, "full": {}}
FLOAT32 = 4
ROWS, TOKENS = 2, 16


def section(method: str) -> AdapterSection:
    filled = with_method_defaults({"adapter": {"method": method, **METHODS[method]}})
    return AdapterSection(**filled["adapter"])


def trained_model(method: str) -> nn.Module:
    """Return MiniLM's architecture with a method in it; queries, keys, values, O and FFN."""
    torch.manual_seed(0)
    config = BertConfig(
        hidden_size=384,
        num_hidden_layers=6,
        num_attention_heads=12,
        intermediate_size=1536,
        max_position_embeddings=512,
    )
    model = AutoModelForSequenceClassification.from_config(config)
    settings = section(method)
    parts = find_parts(model, targets_of(settings), head=outside_encoder(model), dense="full")
    build(settings, seed=0).attach(model, parts)
    return model


def counted(method: str) -> dict[str, int]:
    """Take two steps, and count the bytes of the second: DDP forms its buckets anew after one."""
    model = trained_model(method)
    exchange_trained_only(model)
    parallel = DistributedDataParallel(model)
    sent: list[int] = []

    def hook(
        group: dist.ProcessGroup | None, bucket: dist.GradBucket
    ) -> torch.futures.Future[torch.Tensor]:
        sent.append(bucket.buffer().nbytes)
        return allreduce_hook(group, bucket)

    parallel.register_comm_hook(None, hook)
    ids = torch.randint(1000, 2000, (ROWS, TOKENS))
    for _ in range(2):
        sent.clear()
        parallel(input_ids=ids, labels=torch.zeros(ROWS, dtype=torch.long)).loss.backward()
    trained = sum(p.numel() for p in model.parameters() if p.requires_grad)
    return {"trained": trained, "counted": sum(sent), "buckets": len(sent)}


def work(rank: int, processes: int, port: int) -> None:
    address = f"tcp://127.0.0.1:{port}"
    dist.init_process_group("gloo", init_method=address, rank=rank, world_size=processes)
    for row in map(json.dumps, rows(processes)):
        if rank == 0:
            print(row, flush=True)
    dist.destroy_process_group()


def rows(processes: int) -> Iterator[dict[str, object]]:
    for method in METHODS:
        found = counted(method)
        gradients = FLOAT32 * found["trained"]
        yield {
            "method": method,
            **found,
            "gradients": gradients,
            "sent_by_each": round(2 * (processes - 1) / processes * gradients),
        }


def free_port() -> int:
    with socket.socket() as found:
        found.bind(("127.0.0.1", 0))
        port: int = found.getsockname()[1]
        return port


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--processes", type=int, default=2)
    count = parser.parse_args().processes
    mp.spawn(work, (count, free_port()), nprocs=count)
