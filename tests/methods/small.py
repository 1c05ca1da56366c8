"""Every method with a size for tiny models."""

SMALL = {
    "dcft": "{kernel_size: 4}",
    "nola": "{method: nola, rank: 2, bases: 4}",
    "psoft": "{method: psoft, rank: 3}",
    "vera": "{method: vera, rank: 4}",
    "lokr": "{method: lokr, factor: 4}",
    "sora": "{method: sora, rank: 3, gate_threshold: 0.05}",
    "adalora": "{method: adalora, rank: 1, initial_rank: 2}",
}


def small(method: str) -> str:
    """Return the adapter section of a recipe for a tiny model."""
    return SMALL.get(method, f"{{method: {method}}}")
