"""The tensors of a run by name, for checkpoints: networks, their averages, their optimizers.

An optimizer's state goes by the parameter's name, not its number, and is made anew from the names
in the checkpoint, so nothing depends on how an optimizer would begin.
"""

from collections.abc import Mapping, Sequence

import torch
from torch import Tensor, nn
from torch.optim import Optimizer

Networks = Mapping[str, nn.Module]


def network_tensors(networks: Networks) -> dict[str, Tensor]:
    return {
        f"{name}/{key}": tensor
        for name, network in networks.items()
        for key, tensor in network.state_dict().items()
    }


def optimizer_tensors(networks: Networks, optimizers: Sequence[Optimizer]) -> dict[str, Tensor]:
    """`optimizer/NETWORK/PARAMETER/exp_avg` and so on, of parameters that were ever updated."""
    names = _parameter_names(networks)
    return {
        f"optimizer/{names[id(parameter)]}/{key}": value
        for optimizer in optimizers
        for parameter, state in optimizer.state.items()
        for key, value in state.items()
    }


def allocate_optimizers(
    networks: Networks, optimizers: Sequence[Optimizer], names: Mapping[str, tuple[int, ...]]
) -> dict[str, Tensor]:
    """Put zeros where a checkpoint has optimizer state, none elsewhere; returns them by name."""
    parameters = {
        name: parameter
        for prefix, network in networks.items()
        for name, parameter in (
            (f"{prefix}/{key}", each) for key, each in network.named_parameters()
        )
    }
    owners = {
        id(parameter): optimizer
        for optimizer in optimizers
        for group in optimizer.param_groups
        for parameter in group["params"]
    }
    for optimizer in optimizers:
        optimizer.state.clear()
    tensors: dict[str, Tensor] = {}
    for full_name, shape in names.items():
        if not full_name.startswith("optimizer/"):
            continue
        name, _, key = full_name.removeprefix("optimizer/").rpartition("/")
        parameter = parameters.get(name)
        if parameter is None or id(parameter) not in owners:
            continue  # reported as a difference by whoever loads
        is_number = shape == () and parameter.shape != ()
        value = (
            # Where fused optimizers look for it.
            torch.zeros((), dtype=torch.float32, device=parameter.device)
            if is_number or key == "step"
            else torch.zeros_like(parameter.detach())
        )
        owners[id(parameter)].state[parameter][key] = value
        tensors[full_name] = value
    return tensors


def _parameter_names(networks: Networks) -> dict[int, str]:
    return {
        id(parameter): f"{prefix}/{name}"
        for prefix, network in networks.items()
        for name, parameter in network.named_parameters()
    }
