"""Low-rank adapters of a frozen DiT: put in by peft, trained, averaged and saved on their own.

What the rest of the trainer sees as the trained network is `LoraDit.adapter`, a module that holds
the adapters' weights and nothing else. So optimizer, average and checkpoint have no base in them.
"""

from collections.abc import Mapping
from pathlib import Path
from typing import cast

import torch
from torch import Tensor, nn

from modeling.adapter import MISSING_PEFT, AdapterCard, write_adapter
from modeling.data.draw import generator, seed_of
from modeling.dit import VideoDiT
from modeling.fingerprint import model_fingerprint
from modeling.train.errors import ConfigError
from modeling.train.lora_config import LoraTraining


class AdapterWeights(nn.Module):
    """Parameters under the dotted names that they have in an adapter's file."""

    def __init__(self, parameters: Mapping[str, nn.Parameter]) -> None:
        super().__init__()
        for name, parameter in parameters.items():
            *path, last = name.split(".")
            place: nn.Module = self
            for step in path:
                if step not in place._modules:
                    place.add_module(step, nn.Module())
                place = place.get_submodule(step)
            place.register_parameter(last, parameter)


class LoraDit:
    """Puts adapters into a network, in place, and freezes the rest of it.

    Raises:
        ConfigError: peft is missing.

    """

    def __init__(
        self, network: VideoDiT, config: LoraTraining, *, base: Path | None, seed: int
    ) -> None:
        try:
            from peft import LoraConfig, inject_adapter_in_model
            from peft.tuners.lora import Linear
        except ModuleNotFoundError as error:
            raise ConfigError(MISSING_PEFT) from error
        self.base_fingerprint = model_fingerprint(network)
        self._config, self._base, self._network = config, base, network
        self._draws = _Draws()
        peft_config = LoraConfig(
            r=config.rank, lora_alpha=config.alpha, target_modules=list(config.targets)
        )
        network.requires_grad_(requires_grad=False)
        torch.manual_seed(seed_of(seed, key="", step=0, stream="lora start"))
        inject_adapter_in_model(peft_config, network)
        parameters: dict[str, nn.Parameter] = {}
        for name, layer in network.named_modules():
            if not isinstance(layer, Linear):
                continue
            layer.cast_input_dtype_enabled = False  # autocast does, and in the precision wanted
            if config.dropout:
                dropout = _Dropout(config.dropout, name, self._draws)
                layer.lora_dropout["default"] = dropout
            for factor in ("lora_A", "lora_B"):
                linear = cast(nn.Linear, getattr(layer, factor)["default"])
                parameters[f"{name}.{factor}.weight"] = cast(nn.Parameter, linear.weight)
        self.adapter = AdapterWeights(parameters)

    def draw_for(self, *, seed: int, keys: tuple[str, ...], step: int) -> None:
        """Name the draws of dropout until the next call: one per sample of what comes in."""
        self._draws.seed, self._draws.keys, self._draws.step = seed, keys, step

    @torch.no_grad()
    def merged(self, adapter: nn.Module) -> VideoDiT:
        """A plain network: the base with these adapters added. It shares what is not adapted."""
        weights = {
            name.replace(".base_layer.", "."): tensor
            for name, tensor in self._network.state_dict().items()
            if ".lora_" not in name
        }
        scale = self._config.alpha / self._config.rank
        factors = adapter.state_dict()
        for name, a in factors.items():
            layer, is_a, _ = name.partition(".lora_A.")
            if is_a:
                b = factors[f"{layer}.lora_B.weight"]
                weights[f"{layer}.weight"] = weights[f"{layer}.weight"] + scale * (b @ a)
        with torch.device("meta"):
            plain = VideoDiT(self._network.config)
        plain.load_state_dict(weights, assign=True)
        return plain.eval()

    def write(self, folder: Path, adapter: nn.Module, *, step: int) -> None:
        config = self._config
        write_adapter(
            folder,
            AdapterCard(base=self.base_place, base_fingerprint=self.base_fingerprint, step=step),
            adapter.state_dict(),
            rank=config.rank,
            alpha=config.alpha,
            dropout=config.dropout,
            targets=config.targets,
        )

    @property
    def base_place(self) -> str:
        return "" if self._base is None else str(self._base.resolve())


class _Draws:
    """What dropout is drawn for now."""

    seed: int = 0
    keys: tuple[str, ...] = ()
    step: int = 0


class _Dropout(nn.Module):
    """Dropout by name, as all that is drawn here: a resumed run drops what it would have dropped.

    peft's own takes its numbers in turn.
    """

    def __init__(self, probability: float, name: str, draws: _Draws) -> None:
        super().__init__()
        self._probability, self._name, self._draws = probability, name, draws

    def forward(self, x: Tensor) -> Tensor:
        if not self.training:
            return x
        draws = self._draws
        kept = torch.stack(
            [
                torch.rand(
                    x.shape[1:],
                    generator=generator(
                        draws.seed,
                        key=key,
                        step=draws.step,
                        stream=f"dropout {self._name}",
                        device=x.device,
                    ),
                    device=x.device,
                )
                >= self._probability
                for key in draws.keys
            ]
        )
        return x * kept / (1 - self._probability)
