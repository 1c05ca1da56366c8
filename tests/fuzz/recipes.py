"""Mutated recipes."""

import json
from pathlib import Path
from random import Random

from dcft_cli.recipe import load_recipe
from dcft_cli.recipe.shipped import packaged_folder
from tests.fuzz.mutations import mutate_bytes, mutate_value

_NAMES = ("rte", "mnli", "multi_label", "squad_v2", "paper/table1/roberta-large/cola")
_TOKENS = (
    *("[", "]", "{", "}", ":", "-", "&a", "*a", "!!python/object:os.system", "? ", "|", ">", "%"),
    *("\t", "---", "...", "'", '"', "#", "null", "1e999", "0x1F", "\x1b[31m", "\u2028", "<<: "),
)
_RECIPE = {
    "model": {"name": "x"},
    "task": {"type": "classification", "labels": ["a", "b"]},
    "data": {"train": "a.jsonl", "validation": {"a": "b"}, "text": "t", "label": "l"},
    "adapter": {"targets": ["Q"], "kernel_size": 2},
    "training": {"epochs": 1},
    "sweep": {"grid": {"adapter.rank": [1, 2]}},
}


def seeds(folder: Path) -> list[bytes]:
    """Return recipes that come with dcft."""
    return [(packaged_folder() / f"{name}.yaml").read_bytes() for name in _NAMES]


def mutate(seed: bytes, random: Random) -> bytes:
    """Damage bytes, lines, tokens or values."""
    kind = random.randrange(4)
    if kind == 0:
        return mutate_bytes(seed, random)
    lines = seed.decode().splitlines()
    at = random.randrange(len(lines))
    if kind == 1:
        other = random.randrange(len(lines))
        lines[at], lines[other] = lines[other], " " * random.randrange(5) + lines[at]
    elif kind == 2:
        line, column = lines[at], random.randint(0, len(lines[at]))
        token = random.choice(_TOKENS) * random.choice((1, 1, 2, 100, 20_000))
        lines[at] = line[:column] + token + line[column:]
    else:
        recipe = json.loads(json.dumps(_RECIPE))
        for _ in range(random.choice((1, 2, 3))):
            recipe = mutate_value(recipe, random) or _RECIPE
        return json.dumps(recipe, ensure_ascii=random.random() < 0.5).encode(errors="replace")
    return "\n".join(lines).encode()


def check(data: bytes, path: Path) -> bool:
    """Read a recipe.

    Raises:
        DCFTError: it is refused.
    """
    path = path.with_suffix(".yaml")
    path.write_bytes(data)
    load_recipe(str(path))
    return True
