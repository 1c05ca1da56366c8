"""Sizes of an adapter's factors: plain numbers, no tensors."""


def subspace_size(size: int, kernel_size: int, stride: int) -> int:
    """Return how many kernel windows cover `size` features: p for the input, q for the output.

    Eq. 9 solved for its input, rounded up: where the stride does not divide, the last window
    overhangs and is cropped. Eq. 10 (size / kernel_size) is the divisible case at equal stride.
    """
    return 1 if size <= kernel_size else -(-(size - kernel_size) // stride) + 1
