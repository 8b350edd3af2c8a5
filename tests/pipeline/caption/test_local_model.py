"""A real processor and a tiny Qwen2.5-VL with random weights, held to the schema by a grammar."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from pipeline.caption import local_model
from pipeline.caption.answer import Words, read_answer
from pipeline.caption.backend import CaptionerError, Described, WindowRequest, window_request
from pipeline.caption.config import (
    AnswerLimits,
    FrameBudget,
    SamplingConfig,
    TransformersConfig,
    VlmConfig,
)
from pipeline.caption.judge import judge
from pipeline.caption.local_model import TransformersBackend
from tests.pipeline.caption.tiny_vlm import write_tiny_vlm

CONFIG = VlmConfig(
    frames=FrameBudget(num_frames=2),
    answer=AnswerLimits(short_chars=40, dense_chars=60, background_chars=20, lighting_chars=20),
    sampling=SamplingConfig(temperature=1.0, num_tries=2),
    language="any",
)


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_tiny_vlm(tmp_path_factory.mktemp("vlm"))


@pytest.fixture(scope="module")
def loaded(folder: Path) -> TransformersBackend:
    return load(folder)


def load(model: Path | str, config: VlmConfig = CONFIG, **options: Any) -> TransformersBackend:
    settings = {"model": str(model), "device": "cpu", "batch_size": 3, **options}
    backend = TransformersBackend(config, TransformersConfig.model_validate(settings))
    backend.setup()
    return backend


def requests(count: int) -> list[WindowRequest]:
    dice = np.random.default_rng(3)
    return [
        window_request(
            f"{number:032x}", 0, (0.1, 0.5), dice.integers(0, 255, (2, 40, 56, 3), dtype=np.uint8)
        )
        for number in range(count)
    ]


def outcome(described: Described) -> tuple[str, str]:
    return described.request.tag, str(described.result)


def test_random_weights_write_valid_json_every_time(
    loaded: TransformersBackend, monkeypatch: pytest.MonkeyPatch
) -> None:
    answers = []

    def record(text: str, config: VlmConfig, tag: str, *, was_cut: bool) -> Words:
        assert not was_cut
        answers.append(read_answer(text, config, tag))  # raises unless every rule of it holds
        return judge(text, config, tag, was_cut=was_cut)

    monkeypatch.setattr(local_model, "judge", record)
    described = list(loaded.describe(requests(7)))
    assert sorted(d.request.tag for d in described) == sorted(r.tag for r in requests(7))
    assert len(answers) == sum(d.usage.num_answers for d in described) >= 7
    assert len({answer.model_dump_json() for answer in answers}) == len(answers)
    assert all(d.constraint == "grammar" and d.usage.prompt_tokens for d in described)
    assert all(d.usage.answer_tokens and d.usage.answer_tokens > 20 for d in described)


def test_the_neighbours_in_a_batch_do_not_change_a_caption(folder: Path) -> None:
    one = VlmConfig.model_validate(
        CONFIG.model_dump() | {"sampling": SamplingConfig(temperature=1.0, num_tries=1)}
    )
    alone = [outcome(d) for d in load(folder, one, batch_size=1).describe(requests(3))]
    together = [outcome(d) for d in load(folder, one, batch_size=3).describe(requests(3))]
    assert sorted(alone) == sorted(together)


def test_english_by_grammar_is_ascii(folder: Path) -> None:
    english = CONFIG.model_copy(
        update={"language": "en", "sampling": SamplingConfig(temperature=1.5, num_tries=1)}
    )
    backend = load(folder, english)
    (described,) = backend.describe(requests(1))
    assert str(described.result).isascii()
    assert backend._config.language == "en"


def test_a_model_that_cannot_be_used_is_one_line(folder: Path, tmp_path: Path) -> None:
    with pytest.raises(CaptionerError, match="no image-text-to-text model"):
        load(tmp_path / "nothing")
    blind = tmp_path / "blind"
    blind.mkdir()
    (blind / "config.json").write_text('{"model_type": "llama"}')
    with pytest.raises(CaptionerError, match="no image-text-to-text model") as error:
        load(blind)
    assert "\n" not in str(error.value)


def test_a_processor_without_eyes_or_template_is_refused(loaded: TransformersBackend) -> None:
    class Processor:
        tokenizer = loaded._processor.tokenizer
        image_processor: object | None = None
        chat_template = "x"

    backend = TransformersBackend(CONFIG, TransformersConfig(model="m"))
    with pytest.raises(CaptionerError, match="sees no pictures"):
        backend.use(loaded._model, Processor())
    Processor.image_processor, Processor.chat_template = object(), None  # type: ignore[assignment]
    with pytest.raises(CaptionerError, match="no chat template"):
        backend.use(loaded._model, Processor())
