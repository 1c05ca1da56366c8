"""The task head of a transformers model: what lies outside its pretrained encoder."""

from torch import nn


def outside_encoder(model: nn.Module) -> set[str]:
    """Return the names of the parameters outside the pretrained encoder of a transformers model.

    The encoder is `model.<base_model_prefix>`. In a model without such a part these are the
    parameters of its direct linear layers; a bare encoder has none.
    """
    prefix = getattr(model, "base_model_prefix", "")
    if prefix and isinstance(getattr(model, prefix, None), nn.Module):
        return {n for n, _ in model.named_parameters() if not n.startswith(f"{prefix}.")}
    if prefix and "For" in type(model).__name__:  # T5ForQuestionAnswering has no such part
        linear = [name for name, part in model.named_children() if isinstance(part, nn.Linear)]
        return {
            f"{name}.{n}" for name in linear for n, _ in getattr(model, name).named_parameters()
        }
    return set()
