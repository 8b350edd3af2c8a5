"""Is an answer a caption of the clip that was asked about? The same for every backend."""

from pipeline.caption.answer import AnswerDefect, Words, read_answer
from pipeline.caption.config import VlmConfig
from pipeline.caption.defects import check_words


def judge(text: str, config: VlmConfig, tag: str, *, was_cut: bool) -> Words:
    """The words of an answer that can be used. Raises AnswerDefect with the reason."""
    if was_cut:
        raise AnswerDefect("caption_truncated", f"the answer breaks off: ...{text[-40:]!r}")
    if not text.strip():
        raise AnswerDefect("caption_empty", "the answer is empty")
    words = read_answer(text, config, tag)
    check_words(words, config)
    return words


def try_temperature(config: VlmConfig, attempt: int) -> float:
    """A second try with the first one's temperature near 0 would say the same again."""
    sampling = config.sampling
    return (
        sampling.temperature
        if attempt == 0
        else max(sampling.temperature, sampling.retry_temperature)
    )
