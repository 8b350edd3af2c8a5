"""What identifies a network: its config and every value of its weights."""

import hashlib

import torch

from modeling.dit import VideoDiT
from modeling.vae import CausalVAE
from schemas.base import canonical_json


def model_fingerprint(model: CausalVAE | VideoDiT) -> str:
    """16 hex digits; latents of one VAE must not be decoded or trained on with another.

    Values count, not how they are stored: the same values in fp32 and bf16 give the same digits.
    """
    digest = hashlib.sha256(canonical_json(model.config).encode())
    for name, tensor in sorted(model.state_dict().items()):
        digest.update(f"{name} {tuple(tensor.shape)}".encode())
        values = tensor.detach().to(device="cpu", dtype=torch.float32).contiguous()
        digest.update(values.numpy().data)
    return digest.hexdigest()[:16]
