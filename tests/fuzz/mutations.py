"""Random damage to bytes, texts and JSON values. All choices come from a `random.Random`."""

from collections.abc import Callable
from copy import deepcopy
from random import Random
from typing import Any

ESCAPES = "\x1b]0;owned\x07\x1b[31m"
JUNK: tuple[Any, ...] = (
    None,
    True,
    -1,
    0,
    1,
    3,
    2**31,
    2**63,
    10**400,
    0.5,
    1e308,
    float("nan"),
    float("inf"),
    "",
    "x",
    "lora",
    "../../etc/passwd",
    ESCAPES,
    "\ud800",
    "[/bold]",
    "a" * 5000,
    [],
    {},
    [[]],
    {"a": 1},
    ["Q", 1],
)
_PIECES = (b"[", b"{", b'"', b"\x00", b"\xff", b"\n", b"\t", b": ", b"- ", b"&a", b"*a", b"!!x ")


def mutate_bytes(data: bytes, random: Random) -> bytes:
    """Flip, cut, repeat, insert or move bytes, once or a few times."""
    changed = bytearray(data)
    for _ in range(random.choice((1, 1, 2, 5))):
        random.choice(_BYTE_MUTATIONS)(changed, random)
    return bytes(changed)


def mutate_value(value: Any, random: Random) -> Any:
    """Return a copy of a JSON value in which one part is replaced, removed, added or moved."""
    root = [deepcopy(value)]
    places = _places(root)
    parent, key = places[random.randrange(len(places))]
    other = places[random.randrange(len(places))]
    match random.randrange(6):
        case 0:
            del parent[key]
        case 1:
            parent[key] = deepcopy(other[0][other[1]])
        case 2 if isinstance(parent, dict):
            parent[random.choice(("x", ESCAPES, "", "name"))] = parent.pop(key)
        case 3:
            for _ in range(random.choice((3, 50, 150))):
                parent[key] = [parent[key]]
        case 4 if isinstance(parent, list):
            parent.append(deepcopy(parent[key]))
        case _:
            parent[key] = random.choice(JUNK)
    return root[0] if root else None


def _places(value: Any) -> list[tuple[Any, Any]]:
    """Return every part of a JSON value as its parent and its key."""
    keys = list(value) if isinstance(value, dict) else range(len(value))
    found = []
    for key in keys:
        found.append((value, key))
        if isinstance(value[key], dict | list):
            found += _places(value[key])
    return found


def _flip(data: bytearray, random: Random) -> None:
    if data:
        data[random.randrange(len(data))] ^= 1 << random.randrange(8)


def _cut(data: bytearray, random: Random) -> None:
    start, end = sorted((random.randint(0, len(data)), random.randint(0, len(data))))
    del data[start : min(end, start + random.choice((1, 8, 1 << 30)))]


def _truncate(data: bytearray, random: Random) -> None:
    del data[random.randint(0, len(data)) :]


def _insert(data: bytearray, random: Random) -> None:
    at = random.randint(0, len(data))
    data[at:at] = random.choice(_PIECES) * random.choice((1, 1, 3, 200, 20_000))


def _overwrite(data: bytearray, random: Random) -> None:
    at = random.randint(0, len(data))
    piece = random.choice((b"\x00" * 8, b"\xff" * 8, b"\x80" * 4, b"NaN", b"-1", b"9" * 30))
    data[at : at + len(piece)] = piece


def _splice(data: bytearray, random: Random) -> None:
    start, at = random.randint(0, len(data)), random.randint(0, len(data))
    data[at:at] = data[start : start + random.choice((1, 10, 100, 1000))]


_BYTE_MUTATIONS: tuple[Callable[[bytearray, Random], None], ...] = (
    _flip,
    _flip,
    _cut,
    _truncate,
    _insert,
    _overwrite,
    _splice,
)
