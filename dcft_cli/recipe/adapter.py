"""The adapter section of recipes: the method, and the settings of each."""

from typing import Annotated, Any, Literal, Self

from pydantic import Field, SerializerFunctionWrapHandler, model_serializer, model_validator

from dcft_cli.recipe.methods import METHODS, MethodName
from dcft_cli.recipe.section import DType, Fraction, Section

_NotNegative = Annotated[float, Field(ge=0)]
# An adapter file by itself must not ask for all of a machine's memory. No encoder is wider.
_Width = Annotated[int, Field(ge=1, le=2**13)]


class AdapterSection(Section):
    """The adapter: DCFT (arXiv 2503.01419, section 3), or another method to compare it with."""

    method: MethodName = "dcft"
    """Fine-tuning method; docs/methods.md describes them, and the settings of each."""
    kernel_size: int = Field(default=8, ge=1)
    """d, size of the deconvolution kernel. Adapters are smallest at d = 8 to 13: smaller kernels
    need larger A and B, larger ones have d^2 values themselves."""
    stride: int | None = Field(default=None, ge=1)
    """Step of the transposed convolution, 1 to `kernel_size`. Unset: `kernel_size`."""
    rank: _Width = 1
    """DCFT: k, rank of the subspace matrix B A. Others: r, the rank of the update, by default 8
    (LoRA and its kin), 1 (lokr), 32 (psoft) or 256 (vera)."""
    scale: float = Field(default=4.0, gt=0)
    """Constant factor of dW: alpha / r. 4 for dcft and lokr, 2 for LoRA and its kin, 1 for nola."""
    targets: list[str] = Field(default=["Q", "K", "V", "O", "FFN"], min_length=1)
    """Roles (Q, K, V, O, FFN_IN, FFN_OUT, FFN, CROSS) or patterns of layer names."""
    init: Literal["gradient", "zero", "normal"] = "gradient"
    """gradient: A and B from the first gradient of the frozen weights, C = 0, so dW = 0. zero:
    random orthonormal A and B, C = 0. normal: A, B, C from N(0, 0.02^2), as the paper."""
    orthogonality: float = Field(default=0.0, ge=0)
    """Weight of the orthogonality term in the loss (the reference's gamma); adalora: 0.1."""
    orthogonality_form: Literal["mean_norm", "squared"] = "mean_norm"
    """mean_norm: mean of ||Gram - I|| over all A and B. squared: Eq. 4, summed."""
    dropout: Fraction = 0.0
    """LoRA and its kin: dropout of the layer's input on the way to the update."""
    bottleneck: _Width = 16
    """Size of the bottlenecks; houlsby: 8, pfeiffer: 16."""
    initial_rank: _Width | None = None
    """adalora: rank at the start, which `rank` is the average of at the end. Unset: 1.5 times
    `rank`, and at least 1 more."""
    pruning_start: float = Field(default=0.1, ge=0)
    """adalora: when pruning starts; below 1 a share of all steps, else a step."""
    pruning_end: float = Field(default=0.7, ge=0)
    """adalora: when the ranks are final; below 1 a share of all steps, else a step."""
    pruning_interval: int = Field(default=1, ge=1)
    """adalora: steps from one pruning to the next."""
    gate_penalty: float = Field(default=0.1, ge=0)
    """sora: weight of the mean absolute gate in the loss (lambda)."""
    gate_threshold: _NotNegative | Annotated[list[_NotNegative], Field(min_length=1)] = 3e-4
    """sora: by how much each step shrinks the gates (xi). A list: one after another, each for an
    equal share of the steps."""
    bases: int = Field(default=1024, ge=1, le=2**16)
    """nola: number of random matrices that A, and B, is a combination of (k)."""
    factor: int = Field(default=8, ge=2)
    """lokr: size of the smaller Kronecker factor."""
    file_dtype: DType = "float32"
    """Type of the values in adapter.safetensors; checkpoints are float32."""

    @model_validator(mode="before")
    @classmethod
    def _own_settings(cls, values: Any) -> Any:
        """Refuse another method's settings, and fill in the method's own defaults."""
        if not isinstance(values, dict):
            return values
        method = METHODS.get(str(values.get("method", "dcft")))
        if method is None:
            return values
        if others := values.keys() & cls.model_fields.keys() - method.keys:
            name, own = values.get("method", "dcft"), sorted(method.keys - {"method"})
            raise ValueError(
                f"{name} has no setting {', '.join(sorted(others))}; it has {', '.join(own)}"
            )
        return {**method.defaults, **values}

    @model_validator(mode="after")
    def _stride_within_kernel(self) -> Self:
        if self.stride is not None and self.stride > self.kernel_size:
            raise ValueError(
                f"`stride: {self.stride}` is larger than `kernel_size: {self.kernel_size}`; "
                "entries between the windows would never be trained"
            )
        return self

    @model_validator(mode="after")
    def _ranks_shrink(self) -> Self:
        if self.method != "adalora":
            return self
        if self.initial_rank is not None and self.initial_rank <= self.rank:
            raise ValueError(
                f"`initial_rank: {self.initial_rank}` is not above `rank: {self.rank}`; "
                "there would be nothing to prune"
            )
        start, end = self.pruning_start, self.pruning_end
        if (start < 1) == (end < 1) and start >= end:
            raise ValueError(f"`pruning_end: {end}` is not after `pruning_start: {start}`")
        return self

    @model_serializer(mode="wrap")
    def _without_others(self, write: SerializerFunctionWrapHandler) -> dict[str, Any]:
        own = METHODS[self.method].keys
        return {key: value for key, value in write(self).items() if key in own}

    def own_settings(self) -> dict[str, Any]:
        """Return the settings of the method that are set, as JSON can hold them."""
        return self.model_dump(mode="json", exclude={"method"}, exclude_none=True)
