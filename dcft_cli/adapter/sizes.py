"""Sizes and parameter counts of an adapter: plain numbers, no tensors."""


def subspace_size(size: int, kernel_size: int, stride: int) -> int:
    """Return how many kernel windows cover `size` features: p for the input, q for the output.

    Eq. 9 solved for its input, rounded up: where the stride does not divide, the last window
    overhangs and is cropped. Eq. 10 (size / kernel_size) is the divisible case at equal stride.
    """
    return 1 if size <= kernel_size else -(-(size - kernel_size) // stride) + 1


def adapter_parameters(
    out_features: int, in_features: int, *, kernel_size: int, stride: int, rank: int
) -> int:
    """Return the number of trained values of one adapted layer: A (k, p), B (q, k) and C (d, d)."""
    p = subspace_size(in_features, kernel_size, stride)
    q = subspace_size(out_features, kernel_size, stride)
    return rank * (p + q) + kernel_size**2


def lora_parameters(out_features: int, in_features: int) -> int:
    """Return the number of values that LoRA with r = 1 trains for the same layer."""
    return out_features + in_features
