"""The weights of a model, each as a matrix (out, in) or as a stack of matrices."""

from collections.abc import Iterator
from dataclasses import dataclass

from torch import Tensor, nn

from dcft_cli.errors import ModelError


@dataclass(frozen=True, eq=False)
class Matrix:
    """A weight of a model as a matrix (out, in), however it is stored.

    Attributes:
        path: dotted name of the module that owns the weight.
        module, tensor: that module, and what it calls the weight.
        count: number of matrices in a stack of them (the experts of a layer); None: no stack.
        transposed: stored as (in, out).
        called: the module is a linear layer that the model calls, y = W x + bias. Any other
            weight is read by the code around it.
    """

    path: str
    module: nn.Module
    tensor: str
    out_features: int
    in_features: int
    count: int | None = None
    transposed: bool = False
    called: bool = False

    @property
    def parameter(self) -> Tensor:
        """Return the weight as it is stored, without any increment."""
        made = getattr(self.module, "parametrizations", {})
        if self.tensor in made:
            return made[self.tensor].original  # type: ignore[no-any-return]
        return getattr(self.module, self.tensor)  # type: ignore[no-any-return]

    @property
    def name(self) -> str:
        """Return the module's name, or the parameter's where the module has several weights."""
        return self.path if self.tensor == "weight" and self.path else self.parameter_name

    @property
    def parameter_name(self) -> str:
        """Return the full dotted name of the parameter."""
        return f"{self.path}.{self.tensor}".removeprefix(".")

    @property
    def is_quantized(self) -> bool:
        """Return whether the weight is packed (bitsandbytes, float8): nothing can be added."""
        return is_packed(self.parameter)

    @property
    def is_sharded(self) -> bool:
        """Return whether the weight is sharded (a DTensor): only a forward pass has all of it."""
        return hasattr(self.parameter, "device_mesh")

    def refuse_quantized(self) -> None:
        """Raise ModelError if nothing can be added to the weight."""
        if self.is_quantized:
            raise ModelError(
                f"The weight of {self.name} is quantized: nothing can be added to it.",
                "Load the base model in full precision, load the adapter, and merge that.",
            )

    def as_stored(self, matrix: Tensor) -> Tensor:
        """Reshape (..., out, in) to the shape that the weight is stored in."""
        return (matrix.mT if self.transposed else matrix).reshape(self.parameter.shape)

    def as_matrix(self, stored: Tensor) -> Tensor:
        """Reshape a tensor of the stored shape, or of a packed weight, to (..., out, in)."""
        if self.is_quantized:
            return stored
        stack = () if self.count is None else (self.count,)
        if self.transposed:
            return stored.reshape(*stack, self.in_features, self.out_features).mT
        return stored.reshape(*stack, self.out_features, self.in_features)


def is_packed(parameter: Tensor) -> bool:
    """Return whether a parameter holds fewer than 16 bits per number, with separate scales."""
    return not parameter.is_floating_point() or parameter.itemsize < 2


def find_matrices(model: nn.Module) -> list[Matrix]:
    """Return every weight that can take an increment, in the model's order.

    Parts that read no text (`input_modalities` of transformers' classes), such as an image tower,
    are left out of a model that does.
    """
    non_text = [f"{name}." for name, module in model.named_modules() if not _reads_text(module)]
    if not _reads_text(model):  # such as Perceiver, which reads anything
        non_text = []
    # torch's own layers read the weights of their children in a fast path of evaluation.
    read = {
        child
        for module in model.modules()
        if isinstance(module, nn.MultiheadAttention | nn.TransformerEncoderLayer)
        for child in module.children()
    }
    return [
        matrix
        for path, module in model.named_modules()
        if not f"{path}.".startswith(tuple(non_text))
        # The model itself has no parent in which another module could take its place.
        for matrix in _in_module(path, module, called=path != "" and module not in read)
    ]


def linear_matrix(layer: nn.Module) -> Matrix:
    """Return the weight of a single linear layer, outside any model."""
    (matrix,) = _in_module("", layer, called=True)
    return matrix


def _in_module(path: str, module: nn.Module, *, called: bool) -> Iterator[Matrix]:
    parameters = dict(module.named_parameters(recurse=False))
    if "weight" not in parameters and isinstance(module, nn.Linear):
        return  # computed from others: weight normalization, parametrizations
    if isinstance(module, nn.Linear):
        # A quantized weight is packed: only the layer knows its sizes.
        sizes = (module.out_features, module.in_features)
        yield Matrix(path, module, "weight", *sizes, called=called)
    elif _is_transposed_linear(module):
        into, out = parameters["weight"].shape
        yield Matrix(path, module, "weight", out, into, transposed=True, called=called)
    elif not isinstance(module, nn.Embedding):
        for tensor, parameter in parameters.items():
            if not tensor.endswith("bias") and (matrix := _read(path, module, tensor, parameter)):
                yield matrix


def _read(path: str, module: nn.Module, tensor: str, stored: nn.Parameter) -> Matrix | None:
    """Return a weight that does not belong to a linear layer, if it can take an increment."""
    if not stored.is_floating_point():
        return None
    if stored.dim() == 2:
        return Matrix(path, module, tensor, *stored.shape)
    if stored.dim() != 3:
        return None
    if "expert" in type(module).__name__.lower():
        count, out, into = stored.shape
        transposed = bool(getattr(module, "is_transposed", False))
        sizes = (into, out) if transposed else (out, into)
        return Matrix(path, module, tensor, *sizes, count=count, transposed=transposed)
    if isinstance(module, nn.Conv1d) and module.kernel_size != (1,):
        return None
    # A convolution over one token at a time is a linear layer (in groups: a block-diagonal one,
    # stored without its zeros); other weights of three sides are (features, heads, head size).
    return Matrix(path, module, tensor, stored.shape[0], stored.shape[1:].numel())


def _reads_text(module: nn.Module) -> bool:
    return "text" in getattr(module, "input_modalities", "text")


def _is_transposed_linear(module: nn.Module) -> bool:
    """Return whether it is transformers' Conv1D: a linear layer with its weight as (in, out)."""
    return type(module).__name__ == "Conv1D" and hasattr(module, "nf")
