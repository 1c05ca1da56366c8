"""The models and the ways of training them that the benchmarks compare."""

import argparse
import copy
from collections.abc import Callable, Collection, Iterable, Sequence
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from transformers import AutoModel, BertConfig, DebertaV2Config, PreTrainedConfig, RobertaConfig

from dcft_cli import DCFTConfig, inject, merged
from dcft_cli.acceleration import PIECES, Piece, enable
from dcft_cli.targets.resolve import find_targets

_DROPOUTS = ("hidden_dropout_prob", "attention_probs_dropout_prob")
MODELS: dict[str, Callable[[], PreTrainedConfig]] = {
    "minilm": lambda: BertConfig(
        hidden_size=384, num_hidden_layers=6, num_attention_heads=12, intermediate_size=1536
    ),
    "deberta-v3-base": lambda: DebertaV2Config(
        hidden_size=768, num_hidden_layers=12, num_attention_heads=12, intermediate_size=3072,
        vocab_size=128100, relative_attention=True, position_buckets=256,
        norm_rel_ebd="layer_norm", share_att_key=True, pos_att_type=["p2c", "c2p"],
        position_biased_input=False, type_vocab_size=0,
    ),
    "roberta-large": lambda: RobertaConfig(
        hidden_size=1024, num_hidden_layers=24, num_attention_heads=16, intermediate_size=4096,
        vocab_size=50265, max_position_embeddings=514,
    ),
}  # fmt: skip
TARGETS = ("Q", "K", "V", "O", "FFN")
FEW = ("Q", "V")  # what LoRA adapts by default


@dataclass(frozen=True)
class Variant:
    """A model ready for one way of training, and what of it is trained."""

    model: nn.Module
    trained: list[nn.Parameter]


class Materialized(nn.Module):
    """DCFT as its public implementation computes it: dW by a transposed convolution at each call,
    and a second product of full size."""

    def __init__(self, base: nn.Linear, kernel_size: int, stride: int) -> None:
        super().__init__()
        self.base, self.stride = base, stride
        p, q = (
            -(-(size - kernel_size) // stride) + 1 for size in (base.in_features, base.out_features)
        )
        shapes = ((1, p), (q, 1), (kernel_size, kernel_size))
        self.A, self.B, self.C = (nn.Parameter(torch.randn(*s) * 0.02) for s in shapes)

    def forward(self, x: Tensor) -> Tensor:
        subspace, kernel = (self.B @ self.A)[None, None], self.C[None, None]
        dW = F.conv_transpose2d(subspace, kernel, stride=self.stride)[0, 0]
        dW = dW[: self.base.out_features, : self.base.in_features].to(x.dtype)
        return self.base(x) + F.linear(x, dW)


def _frozen(base: nn.Module) -> nn.Module:
    """A copy that shares its weights with the base."""
    model = copy.deepcopy(base, {id(p): p for p in base.parameters()})
    return model.requires_grad_(False)


def _floor(base: nn.Module) -> Variant:
    return Variant(_frozen(base), [])


def _floor_accelerated(base: nn.Module) -> Variant:
    """The frozen model with the same products and attention as an accelerated DCFT."""
    model = _frozen(base)
    enable(model)
    return Variant(model, [])


def _floor_to_positions(base: nn.Module) -> Variant:
    """DeBERTa projects its relative positions by the same Q and K: what is adapted there sends a
    gradient through them, which a model frozen as a whole does not compute."""
    model = _frozen(base)
    norm = getattr(getattr(model, "encoder", None), "LayerNorm", None)
    if norm is not None:
        norm.register_forward_hook(lambda module, inputs, output: output.requires_grad_(True))
    return Variant(model, [])


def _full(base: nn.Module) -> Variant:
    model = copy.deepcopy(base, {id(p): nn.Parameter(p.detach()) for p in base.parameters()})
    return Variant(model, list(model.parameters()))


def _dcft(
    kernel_size: int,
    stride: int | None = None,
    targets: Sequence[str] = TARGETS,
    pieces: Collection[Piece] = PIECES,
) -> Callable[[nn.Module], Variant]:
    def make(base: nn.Module) -> Variant:
        config = DCFTConfig(kernel_size=kernel_size, stride=stride, targets=targets)
        model = inject(_frozen(base), config, head=())
        enable(model, pieces)
        return Variant(model, [p for p in model.parameters() if p.requires_grad])

    return make


def _without(piece: Piece) -> Callable[[nn.Module], Variant]:
    return _dcft(8, pieces=[other for other in PIECES if other != piece])


def _materialized(kernel_size: int, stride: int) -> Callable[[nn.Module], Variant]:
    def make(base: nn.Module) -> Variant:
        model = _frozen(base)
        for target in find_targets(model, TARGETS):
            parent, _, name = target.name.rpartition(".")
            layer = Materialized(target.matrix.module, kernel_size, stride)
            setattr(model.get_submodule(parent), name, layer)
        return Variant(model, [p for p in model.parameters() if p.requires_grad])

    return make


def _peft(
    kind: str, targets: Sequence[str] = TARGETS, **settings: object
) -> Callable[[nn.Module], Variant]:
    def make(base: nn.Module) -> Variant:
        import peft

        model = _frozen(base)
        names = [target.name for target in find_targets(model, targets)]
        config = getattr(peft, kind)(target_modules=names, **settings)
        adapted = peft.get_peft_model(model, config)
        return Variant(adapted, [p for p in adapted.parameters() if p.requires_grad])

    return make


FLOOR = "frozen"
VARIANTS: dict[str, Callable[[nn.Module], Variant]] = {
    FLOOR: _floor,
    "frozen, accelerated": _floor_accelerated,
    "frozen, gradient to positions": _floor_to_positions,
    "full": _full,
    "dcft d8": _dcft(8),
    "dcft d8, plain": _dcft(8, pieces=()),
    "dcft d8 without layers": _without("layers"),
    "dcft d8 without factors": _without("factors"),
    "dcft d8 without products": _without("products"),
    "dcft d8 without attention": _without("attention"),
    "dcft d2": _dcft(2),
    "dcft d8 s4": _dcft(8, 4),
    "dcft d8 s1": _dcft(8, 1),
    "dcft d8 on Q, V": _dcft(8, targets=FEW),
    "dcft d8 materialized": _materialized(8, 8),
    "dcft d8 s1 materialized": _materialized(8, 1),
    "peft lora r1": _peft("LoraConfig", r=1),
    "peft lora r1 on Q, V": _peft("LoraConfig", FEW, r=1),
    "peft lora r8": _peft("LoraConfig", r=8),
    "peft lokr r8": _peft("LoKrConfig", r=8),
}


class Step:
    """One training step of a variant: forward, backward, AdamW.

    A frozen model is taken back to its inputs, the embeddings' output. What is trained goes back as
    far as there is something to train, as in training.

    Args:
        name: of the variant.
        base: the model that all variants share.
        batch: token ids (rows, length).
        precision: type of the computation, under autocast if it is not float32.
        to_inputs: what is trained goes back to the inputs, too.
        scoring: a forward pass without gradients instead, with merged weights.
    """

    def __init__(
        self,
        name: str,
        base: nn.Module,
        batch: Tensor,
        precision: torch.dtype,
        *,
        to_inputs: bool = False,
        scoring: bool = False,
    ) -> None:
        self.variant = VARIANTS[name](base)
        model = self.variant.model.to(batch.device).train()
        if to_inputs or not self.variant.trained:
            model.get_input_embeddings().register_forward_hook(
                lambda module, inputs, output: output.requires_grad_(True)
            )
        self.model, self.batch, self.precision = model, batch, precision
        self.scoring = scoring
        if scoring:
            self.merging = merged(model.eval())
            self.merging.__enter__()  # for as long as the step is kept
        self.optimizer = (
            torch.optim.AdamW(self.variant.trained, lr=1e-4, fused=True)
            if self.variant.trained
            else None
        )

    def __call__(self) -> None:
        half = self.precision != torch.float32
        autocast = torch.autocast(self.batch.device.type, self.precision, enabled=half)
        if self.scoring:
            with torch.no_grad(), autocast:
                self.model(input_ids=self.batch)
            return
        with autocast:
            outputs = self.model(input_ids=self.batch)
        outputs.last_hidden_state.float().square().mean().backward()
        if self.optimizer is not None:
            self.optimizer.step()
            self.optimizer.zero_grad()


def base_model(name: str, dropout: float = 0.0) -> nn.Module:
    torch.manual_seed(0)
    config = MODELS[name]()
    for key in _DROPOUTS:
        setattr(config, key, dropout)
    return AutoModel.from_config(config)


def trained_parameters(parameters: Iterable[nn.Parameter]) -> int:
    return sum(parameter.numel() for parameter in parameters)


def arguments(description: str) -> argparse.ArgumentParser:
    """What every benchmark of the variants can be told."""
    parser = argparse.ArgumentParser(description=description)
    parser.add_argument("model", choices=MODELS)
    parser.add_argument("--batch", type=int, default=32)
    parser.add_argument("--length", type=int, default=64)
    parser.add_argument("--variants", nargs="*", default=list(VARIANTS), help="names to compare")
    parser.add_argument("--threads", type=int, default=torch.get_num_threads())
    parser.add_argument("--device", default="cuda" if torch.cuda.is_available() else "cpu")
    parser.add_argument("--to-inputs", action="store_true", help="gradients of the inputs for all")
    parser.add_argument("--dropout", type=float, default=0.0, help="of every kind; else none")
    parser.add_argument("--precision", default="float32", choices=["float32", "bfloat16"])
    return parser
