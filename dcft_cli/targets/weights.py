"""The weights of a model, each seen as a matrix (out, in) or as a stack of matrices."""

from collections.abc import Iterator
from dataclasses import dataclass

from torch import Tensor, nn


@dataclass(frozen=True, eq=False)
class Matrix:
    """A weight of a model as a matrix (out, in), however it is stored.

    Attributes:
        path: dotted name of the module that owns the weight.
        module, tensor: that module, and what it calls the weight.
        count: number of matrices in a stack of them (the experts of a layer); None: no stack.
        transposed: stored as (in, out).
        called: the module is a linear layer, y = W x + bias when it is called. Any other weight
            is read by the code around it.
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
        """The weight as it is stored, without any increment."""
        made = getattr(self.module, "parametrizations", {})
        if self.tensor in made:
            return made[self.tensor].original  # type: ignore[no-any-return]
        return getattr(self.module, self.tensor)  # type: ignore[no-any-return]

    @property
    def name(self) -> str:
        """What a pattern matches: the module's name, or its parameter's where it has several."""
        return self.path if self.tensor == "weight" and self.path else self.parameter_name

    @property
    def parameter_name(self) -> str:
        """Dotted name of the weight itself."""
        return f"{self.path}.{self.tensor}".removeprefix(".")

    @property
    def is_quantized(self) -> bool:
        """Whether the weight is packed (bitsandbytes, float8), so that nothing can be added."""
        return is_packed(self.parameter)

    def as_stored(self, matrix: Tensor) -> Tensor:
        """(..., out, in) in the shape that the weight is stored in."""
        return (matrix.mT if self.transposed else matrix).reshape(self.parameter.shape)

    def as_matrix(self, stored: Tensor) -> Tensor:
        """The other way: a tensor of the stored weight's shape, or of a packed one's (out, in)."""
        if self.is_quantized:
            return stored
        stack = () if self.count is None else (self.count,)
        if self.transposed:
            return stored.reshape(*stack, self.in_features, self.out_features).mT
        return stored.reshape(*stack, self.out_features, self.in_features)


def is_packed(parameter: Tensor) -> bool:
    """Whether numbers are kept in fewer than 16 bits, with scales beside them."""
    return not parameter.is_floating_point() or parameter.itemsize < 2


def find_matrices(model: nn.Module) -> list[Matrix]:
    """Every weight that can take an increment, in the model's order.

    Parts that read no text (`input_modalities` of transformers' classes) are left out of a model
    that does: its image tower.
    """
    blind = [f"{name}." for name, module in model.named_modules() if not _reads_text(module)]
    if not _reads_text(model):  # such as Perceiver, which reads anything
        blind = []
    return [
        matrix
        for path, module in model.named_modules()
        if not f"{path}.".startswith(tuple(blind))
        for matrix in _in_module(path, module)
    ]


def _in_module(path: str, module: nn.Module) -> Iterator[Matrix]:
    parameters = dict(module.named_parameters(recurse=False))
    called = bool(path)  # the model itself has no parent in which another could stand for it
    if "weight" not in parameters and isinstance(module, nn.Linear):
        return  # computed from others: weight normalisation, parametrizations
    if isinstance(module, nn.Linear):
        # A quantised weight is packed: the layer itself knows its sizes.
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
    """A weight that is no linear layer's."""
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
    """Whether it is transformers' Conv1D: a linear layer that stores its weight (in, out)."""
    return type(module).__name__ == "Conv1D" and hasattr(module, "nf")
