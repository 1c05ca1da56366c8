"""The models and the ways of training them that the benchmarks compare."""

import argparse
import copy
from collections.abc import Callable, Iterable, Sequence
from contextlib import nullcontext
from dataclasses import dataclass, replace

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from transformers import AutoModel, BertConfig, DebertaV2Config, PreTrainedConfig, RobertaConfig

from dcft_cli import DCFTConfig, adapter_layers, folded, inject, orthogonality
from dcft_cli.attention import set_attention
from dcft_cli.targets.resolve import find_targets
from dcft_cli.training.on_cpu import faster_on_cpu

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
    """A model made ready for one way of training, and what of it is trained.

    Attributes:
        term: added to the loss.
        by_dcft: on a CPU, the rest of the model is computed as `dcft train` has it, too.
    """

    model: nn.Module
    trained: list[nn.Parameter]
    term: Callable[[], Tensor] | None = None
    by_dcft: bool = False


class Materialised(nn.Module):
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


def _floor_with_attention(base: nn.Module) -> Variant:
    model = _frozen(base)
    set_attention(model, "auto")
    return Variant(model, [])


def _floor_with_products(base: nn.Module) -> Variant:
    return replace(_floor_with_attention(base), by_dcft=True)


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
    attention: str = "auto",
    targets: Sequence[str] = TARGETS,
) -> Callable[[nn.Module], Variant]:
    """As `dcft train` has it, with its own attention for DeBERTa."""

    def make(base: nn.Module) -> Variant:
        config = DCFTConfig(kernel_size=kernel_size, stride=stride, targets=targets)
        model = _frozen(base)
        set_attention(model, attention)
        inject(model, config, head=())
        layers = list(adapter_layers(model).values())
        trained = [p for p in model.parameters() if p.requires_grad]
        return Variant(model, trained, lambda: 0.1 * orthogonality(layers), by_dcft=True)

    return make


def _materialised(kernel_size: int, stride: int) -> Callable[[nn.Module], Variant]:
    def make(base: nn.Module) -> Variant:
        model = _frozen(base)
        for target in find_targets(model, TARGETS):
            parent, _, name = target.name.rpartition(".")
            layer = Materialised(target.matrix.module, kernel_size, stride)
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
    "frozen, gradient to positions": _floor_to_positions,
    "frozen, attention of dcft": _floor_with_attention,
    "frozen, attention and products of dcft": _floor_with_products,
    "full": _full,
    "dcft d8": _dcft(8),
    "dcft d8, transformers' attention": _dcft(8, attention="eager"),
    "dcft d2": _dcft(2),
    "dcft d8 s4": _dcft(8, 4),
    "dcft d8 s1": _dcft(8, 1),
    "dcft d8 on Q, V": _dcft(8, targets=FEW),
    "dcft d8 materialised": _materialised(8, 8),
    "dcft d8 s1 materialised": _materialised(8, 1),
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
        scoring: a forward pass without gradients instead, DCFT folded.
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
        ours = self.variant.by_dcft and batch.device.type == "cpu"
        self.within = faster_on_cpu if ours else nullcontext
        if scoring:
            self.folding = merged(model.eval())
            self.folding.__enter__()  # for as long as the step is kept
        self.optimizer = (
            torch.optim.AdamW(self.variant.trained, lr=1e-4, fused=True)
            if self.variant.trained
            else None
        )

    def __call__(self) -> None:
        half = self.precision != torch.float32
        if self.scoring:
            with (
                torch.no_grad(),
                self.within(),
                torch.autocast(self.batch.device.type, self.precision, enabled=half),
            ):
                self.model(input_ids=self.batch)
            return
        with self.within():
            with torch.autocast(self.batch.device.type, self.precision, enabled=half):
                outputs = self.model(input_ids=self.batch)
            loss = outputs.last_hidden_state.float().square().mean()
            if self.variant.term is not None:
                loss = loss + self.variant.term()
            loss.backward()
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
