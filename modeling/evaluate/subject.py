"""What is evaluated: the networks of a final folder, of a checkpoint, or of a VAE's folder."""

import copy
import json
import warnings
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

import torch
from torch import nn
from torch.distributed.checkpoint.state_dict_loader import load

from modeling.data.view import ViewConfig
from modeling.dit import VideoDiT
from modeling.evaluate.errors import EvaluationError
from modeling.final_folder import CONFIG_FILE, SHIPPED_VAE, FinalConfig, freeze, read_vae
from modeling.interop import from_original
from modeling.text_encoder import TextEncoder, check_fingerprint
from modeling.train.checkpoint import STATE_FILE, CheckpointState, read_state, tensor_shapes
from modeling.train.config import DitTraining
from modeling.train.dit_task import fitted_config
from modeling.train.encoders import find_vae, load_vae
from modeling.train.errors import TrainError
from modeling.train.vae_task import VaeFinalConfig
from modeling.vae import VAE_CONFIGS, CausalVAE, VAEConfig

Network = TypeVar("Network", bound=nn.Module)

RAW, AVERAGED = "raw", "ema"
_FILES = {RAW: "model.safetensors", AVERAGED: "ema.safetensors"}
_PREFIXES = {RAW: "model", AVERAGED: "ema"}


@dataclass(frozen=True)
class DitSubject:
    """One DiT with raw and averaged weights, behind the encoders that it was trained with."""

    networks: Mapping[str, VideoDiT]
    vae: CausalVAE
    text_encoder: TextEncoder
    fingerprints: Mapping[str, str]
    step: int


@dataclass(frozen=True)
class VaeSubject:
    """One VAE; `networks` has "raw" and "ema", or "weights" for a folder that is no run's."""

    networks: Mapping[str, CausalVAE]
    step: int | None


Subject = DitSubject | VaeSubject


def load_subject(place: Path, device: torch.device, *, vae_folder: Path | None = None) -> Subject:
    """Read a run's final/, a folder of its checkpoints/, or a VAE in diffusers' layout.

    Args:
        place: the folder.
        device: where the networks go.
        vae_folder: the VAE of a DiT, if it has moved.

    Raises:
        EvaluationError: no such folder, or parts that do not belong together.

    """
    try:
        if (place / STATE_FILE).is_file():
            return _of_checkpoint(place, device, vae_folder)
        raw = _json(place / CONFIG_FILE)
        if raw.get("kind") == "dit":
            return _of_final_dit(place, device, vae_folder)
        if raw.get("kind") == "vae":
            final = VaeFinalConfig.model_validate(raw)
            return VaeSubject(_of_files(place, final.model, device, CausalVAE), final.step)
        if "_class_name" in raw:
            return VaeSubject({"weights": read_vae(place, device=device)}, None)
    except (FileNotFoundError, ValueError, TrainError) as error:
        line = " ".join(str(error).split())
        raise EvaluationError(f"--checkpoint {place}: {line}") from error
    raise EvaluationError(
        f"--checkpoint {place}: its {CONFIG_FILE} is of no final folder and no VAE; give a run's "
        "final/, a folder of its checkpoints/, or a VAE's folder"
    )


def trained_view(place: Path) -> ViewConfig | None:
    """The view that the run looked through at its end; None where no run is around the folder."""
    run = _run_of(place) if (place / STATE_FILE).is_file() else place.parent
    try:
        raw = _json(run / CONFIG_FILE)
        view = raw["vae"]["stages"][-1]["view"] if raw["model"] == "vae" else raw["data"]["view"]
        fixed = {**view, "placement": "first", "max_frame_interval": 1}
        return ViewConfig.model_validate(fixed)
    except (FileNotFoundError, KeyError, ValueError):
        return None


def _of_final_dit(place: Path, device: torch.device, vae_folder: Path | None) -> DitSubject:
    config = FinalConfig.model_validate(_json(place / CONFIG_FILE))
    vae = read_vae(
        vae_folder or config.find_vae_folder(),
        device=device,
        expected_fingerprint=config.vae_fingerprint,
    )
    text_encoder = TextEncoder(config.text_encoder, device)
    check_fingerprint(text_encoder.fingerprint, config.text_encoder_fingerprint, "the text encoder")
    fingerprints = {"vae": config.vae_fingerprint, "text_encoder": config.text_encoder_fingerprint}
    networks = _of_files(place, config.model, device, VideoDiT)
    return DitSubject(networks, vae, text_encoder, fingerprints, config.step)


def _of_checkpoint(place: Path, device: torch.device, vae_folder: Path | None) -> Subject:
    state = read_state(place)
    if state.identity["model"] == "vae":
        raw = state.identity["vae"]
        network = raw["network"]
        config = VAE_CONFIGS[raw["size"]] if network is None else VAEConfig.model_validate(network)
        return VaeSubject(_of_tensors(place, CausalVAE(config), device), state.step)
    return _dit_of_checkpoint(place, state, device, vae_folder)


def _dit_of_checkpoint(
    place: Path, state: CheckpointState, device: torch.device, vae_folder: Path | None
) -> DitSubject:
    if state.identity.get("lora") is not None:
        raise ValueError("it holds the adapters of a LoRA run alone: give the run's final/")
    raw: dict[str, Any] = dict(state.identity["dit"])
    if raw["network"] is not None:
        del raw["size"]  # it has no effect then, and is refused
    dit = DitTraining.model_validate(raw)
    # A checkpoint knows its VAE by fingerprint, the run around it where that lay.
    setting = str(vae_folder) if vae_folder else _json(_run_of(place) / CONFIG_FILE)["dit"]["vae"]
    source = find_vae(setting)
    vae, fingerprint = load_vae(source, device)
    text_encoder = TextEncoder(dit.text_encoder, device)
    fingerprints = {"vae": fingerprint, "text_encoder": text_encoder.fingerprint}
    for name, found in fingerprints.items():
        check_fingerprint(found, state.identity[f"{name}_fingerprint"], f"the {name}")
    network = VideoDiT(
        fitted_config(
            dit.network_config,
            source,
            text=text_encoder.states_width,
            pooled=text_encoder.pooled_width,
        )
    )
    networks = _of_tensors(place, network, device)
    return DitSubject(networks, vae, text_encoder, fingerprints, state.step)


def _of_files(
    place: Path, config: Any, device: torch.device, kind: type[Network]
) -> dict[str, Network]:
    found: dict[str, Network] = {}
    for name, file in _FILES.items():
        if (place / file).is_file():
            network = from_original(place / file, config, device=device)
            assert isinstance(network, kind)
            found[name] = freeze(network)
    if not found:
        raise FileNotFoundError(f"it holds no {_FILES[RAW]}")
    return found


def _of_tensors(place: Path, network: Network, device: torch.device) -> dict[str, Network]:
    """Networks of a checkpoint; optimizers are not read."""
    names = tensor_shapes(place)
    found: dict[str, Network] = {}
    for variant, prefix in _PREFIXES.items():
        if not any(name.startswith(f"{prefix}/") for name in names):
            continue
        own = copy.deepcopy(network)
        into = {f"{prefix}/{name}": tensor for name, tensor in own.state_dict().items()}
        for name, tensor in into.items():
            if names.get(name) != tuple(tensor.shape):
                wanted = tuple(tensor.shape)
                raise ValueError(f"{name} is {names.get(name, 'missing')}, expected {wanted}")
        with warnings.catch_warnings():
            warnings.filterwarnings("ignore", message="torch.distributed is disabled")
            load(into, checkpoint_id=place / "tensors", no_dist=True)
        found[variant] = freeze(own.to(device))
    return found


def _run_of(checkpoint: Path) -> Path:
    return checkpoint.parent.parent


def _json(file: Path) -> dict[str, Any]:
    if not file.is_file():
        hint = f" (the shipped VAE is {SHIPPED_VAE})" if not file.parent.exists() else ""
        raise FileNotFoundError(f"there is no {file.name} in it{hint}")
    raw = json.loads(file.read_text())
    if not isinstance(raw, dict):
        raise ValueError(f"{file.name} holds no table")
    return raw
