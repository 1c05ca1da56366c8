"""From the name in a recipe to the method."""

from importlib import import_module

from dcft_cli.methods.method import Method
from dcft_cli.recipe import AdapterSection

# Imported when it is needed: PEFT takes seconds.
_CLASSES = {
    "dcft": "dcft:DCFT",
    "full": "selective:Full",
    "head": "selective:Head",
    "bitfit": "selective:BitFit",
    "houlsby": "houlsby:Houlsby",
    "pfeiffer": "pfeiffer:Pfeiffer",
    "sora": "sora:SoRA",
    "nola": "nola:NOLA",
    "lora": "peft:LoRA",
    "lora_fa": "peft:LoRAFA",
    "adalora": "adalora:AdaLoRA",
    "dora": "peft:DoRA",
    "lokr": "peft:LoKr",
    "psoft": "peft:PSOFT",
    "vera": "peft:VeRA",
    "road": "peft:RoAd",
}


def build(settings: AdapterSection, *, seed: int, total_steps: int | None = None) -> Method:
    """Return the method that an adapter section names, not attached yet.

    Args:
        seed, total_steps: see `Method`.

    Raises:
        UserError: the library that it takes is not installed.
    """
    module, _, name = _CLASSES[settings.method].partition(":")
    cls = getattr(import_module(f"dcft_cli.methods.{module}"), name)
    method: Method = cls(settings, seed=seed, total_steps=total_steps)
    return method
