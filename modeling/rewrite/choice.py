"""Which writer a command line names: an endpoint, or a model in this process."""

from pathlib import Path
from typing import Self

from pydantic import model_validator

from modeling.rewrite.answer import Mode
from modeling.rewrite.language_model import PACKAGED as PACKAGED
from modeling.rewrite.language_model import Dtype
from modeling.rewrite.prompt import Wording
from modeling.rewrite.rewriter import RewriteConfig, Rewriter, Writer
from schemas.base import StrictModel


class WriterChoice(StrictModel):
    """An endpoint if one is named, else the local model."""

    model: str = PACKAGED
    adapter: Path | None = None
    endpoint: str | None = None
    endpoint_model: str | None = None
    key_variable: str = "OPENAI_API_KEY"
    wording: Wording | None = None  # None: what the model was trained with
    is_constrained: bool = True
    device: str | None = None
    dtype: Dtype = "float32"

    @classmethod
    def of(
        cls, model: str, *, adapter: Path | None, endpoint: str | None, device: str | None
    ) -> Self:
        """`model` names the local model, or the one at the endpoint if there is an endpoint."""
        if endpoint is None:
            return cls(model=model, adapter=adapter, device=device)
        return cls(endpoint=endpoint, endpoint_model=model, adapter=adapter)

    @model_validator(mode="after")
    def _one_of_two(self) -> Self:
        if (self.endpoint is None) != (self.endpoint_model is None):
            raise ValueError("an endpoint and its model's name go together")
        if self.endpoint is not None and self.adapter is not None:
            raise ValueError("an adapter is for a local model; an endpoint serves its own")
        return self


def make_writer(choice: WriterChoice) -> Writer:
    """Raises RewriteError where the model cannot be loaded."""
    if choice.endpoint is not None and choice.endpoint_model is not None:
        from modeling.rewrite.endpoint_writer import EndpointConfig, EndpointWriter

        return EndpointWriter(
            EndpointConfig(
                url=choice.endpoint,
                model=choice.endpoint_model,
                key_variable=choice.key_variable,
            )
        )
    from modeling.rewrite.language_model import load_language_model
    from modeling.rewrite.local_writer import LocalWriter

    language = load_language_model(
        choice.model, adapter=choice.adapter, device=pick_device(choice.device), dtype=choice.dtype
    )
    return LocalWriter(language, wording=choice.wording, constrained=choice.is_constrained)


def rewritten(prompt: str, choice: WriterChoice, *, mode: Mode) -> str:
    """The text to sample with instead of a prompt. Raises RewriteError."""
    config = RewriteConfig(mode=mode)
    config.checked(prompt)  # before a model is loaded
    return Rewriter(make_writer(choice), config).rewrite([prompt])[0].text


def pick_device(wanted: str | None) -> str:
    """The wanted one, else a GPU where there is one."""
    if wanted is not None:
        return wanted
    import torch

    return "cuda" if torch.cuda.is_available() else "cpu"
