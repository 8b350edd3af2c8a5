"""Which captioner runs, what it is asked and what it may cost. Nothing here refuses a clip.

Settings are parted by what they change: `VlmConfig` and the model's name and revision change what
is written, so they are part of the fingerprint of the descriptions; where the model runs and how
fast (`EndpointConfig`, `TransformersConfig` but for their model) is not.
"""

from typing import Annotated, Any, Literal, Self

from pydantic import Field, model_validator

from schemas.base import StrictModel
from schemas.caption import ATMOSPHERES, SHOT_TYPES, STYLES
from schemas.scores import Share

CAPTION_VERSION = 2

Positive = Annotated[float, Field(gt=0)]
Count = Annotated[int, Field(ge=1)]
Word = Annotated[str, Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9 '-]{0,39}$")]


class TagConfig(StrictModel):
    """From a number to a word. Between the two ends of a pair nothing is said.

    First values by judgement: an ordinary scene should get no tag.
    """

    soft_below_lines: Annotated[float, Field(ge=0)] = 300.0  # clarity.effective_height
    sharp_above_lines: Annotated[float, Field(ge=0)] = 600.0
    dark_below_luma: Annotated[float, Field(ge=0, le=255)] = 50.0  # exposure.mean_luma
    bright_above_luma: Annotated[float, Field(ge=0, le=255)] = 180.0
    low_contrast_below_sd: Annotated[float, Field(ge=0)] = 25.0  # exposure.luma_sd
    muted_below_saturation: Share = 0.1  # exposure.saturation
    vivid_above_saturation: Share = 0.55
    slow_below_speed: Annotated[float, Field(ge=0)] = 2.0  # motion.speed, % of the diagonal / s
    fast_above_speed: Annotated[float, Field(ge=0)] = 40.0
    text_above_area: Share = 0.01  # crop.text_mean_area


class FrameBudget(StrictModel):
    """The pictures of one request. A clip longer than `window_s` is described in windows."""

    num_frames: Annotated[int, Field(ge=1, le=129)] = 8
    max_side: Annotated[int, Field(ge=28, le=4096)] = 448  # pixels; never enlarged
    window_s: Positive = 10.0
    jpeg_quality: Annotated[int, Field(ge=1, le=100)] = 90  # of what an endpoint is sent


class AnswerLimits(StrictModel):
    """Characters of the answer's free texts, and the words that the other fields choose from.

    The first words of `styles`, `shot_types` and `atmospheres` are the paper's (HunyuanVideo, arXiv
    2412.03603, section 3.2, which gives them as examples); the rest are ours.
    """

    short_chars: Annotated[int, Field(ge=20, le=2000)] = 200
    dense_chars: Annotated[int, Field(ge=60, le=4000)] = 1200
    background_chars: Annotated[int, Field(ge=20, le=2000)] = 300
    lighting_chars: Annotated[int, Field(ge=20, le=2000)] = 200
    min_chars: Annotated[int, Field(ge=1, le=20)] = 8
    styles: tuple[Word, ...] = STYLES
    shot_types: tuple[Word, ...] = SHOT_TYPES
    atmospheres: tuple[Word, ...] = ATMOSPHERES

    @model_validator(mode="after")
    def _every_field_has_a_word(self) -> Self:
        for name in ("styles", "shot_types", "atmospheres"):
            words = getattr(self, name)
            if not words or len(set(words)) != len(words):
                raise ValueError(f"{name} must name each word once and at least one, got {words}")
        return self


class SamplingConfig(StrictModel):
    """How the model chooses words. A second try changes the seed and the temperature."""

    temperature: Annotated[float, Field(ge=0, le=2)] = 0.2
    retry_temperature: Annotated[float, Field(gt=0, le=2)] = 0.7
    top_p: Annotated[float, Field(gt=0, le=1)] = 0.95
    seed: Annotated[int, Field(ge=0)] = 0
    max_tokens: Count | None = None  # None: as many as the longest allowed answer has characters
    num_tries: Annotated[int, Field(ge=1, le=10)] = 3  # answers per window; then a failed row


class VlmConfig(StrictModel):
    """What a model is asked. Each of these changes the words, so each makes new descriptions."""

    frames: FrameBudget = FrameBudget()
    answer: AnswerLimits = AnswerLimits()
    sampling: SamplingConfig = SamplingConfig()
    language: Literal["en", "zh", "any"] = "en"  # any: what is written is not checked for it
    instructions: Annotated[str, Field(min_length=20, max_length=20_000)] | None = None


class LaunchConfig(StrictModel):
    """A server of our own, beside the worker that asks it, on that worker's GPUs."""

    server: Literal["vllm", "transformers"]
    arguments: tuple[str, ...] = ()  # added to its command line
    num_gpus: Annotated[float, Field(ge=0)] = 1.0
    start_timeout_s: Positive = 280.0  # within engine.setup_timeout_s, which ends the actor


class EndpointConfig(StrictModel):
    """An OpenAI-compatible server. The key is read from the environment and nowhere else."""

    url: Annotated[str, Field(pattern=r"^https?://\S+$")] = "http://127.0.0.1:8000/v1"
    model: str | None = None
    revision: str = "unknown"  # what the server's operator says; a server does not tell
    key_variable: Annotated[str, Field(pattern=r"^[A-Za-z_][A-Za-z0-9_]*$")] = "OPENAI_API_KEY"
    media: Literal["images", "video"] = "images"
    constraint: Literal["json_schema", "plain_schema", "json_object", "prompt"] = "json_schema"
    may_degrade: bool = True  # a refused constraint gives way to the next one of that list
    concurrency: Annotated[int, Field(ge=1, le=1024)] = 16  # requests in flight, per worker
    num_workers: Count = 1
    timeout_s: Positive = 300.0  # one answer
    num_tries: Annotated[int, Field(ge=1, le=20)] = 5  # of one request, while the server lives
    backoff_s: Positive = 1.0  # doubled at each try, jittered
    max_backoff_s: Positive = 60.0
    give_up_after_s: Positive = 600.0  # of "come back later" for one request
    launch: LaunchConfig | None = None


class TransformersConfig(StrictModel):
    """An image-text-to-text model in the worker's process."""

    model: str | None = None  # a folder, or an id of the model hub
    revision: str = "main"
    device: Literal["auto", "cpu", "cuda"] = "auto"
    dtype: Literal["auto", "float32", "bfloat16", "float16"] = "auto"
    attention: Literal["sdpa", "eager", "flash_attention_2"] = "sdpa"
    batch_size: Annotated[int, Field(ge=1, le=1024)] = 8
    num_gpus: Annotated[float, Field(ge=0)] = 1.0
    memory_bytes: Annotated[int, Field(ge=0)] = 0  # of the worker, for the plan; 0: not planned


class PriceConfig(StrictModel):
    """For the cost line of the report. None: not known, nothing is said."""

    gpu_hour: Annotated[float, Field(ge=0)] | None = None
    million_prompt_tokens: Annotated[float, Field(ge=0)] | None = None
    million_answer_tokens: Annotated[float, Field(ge=0)] | None = None
    currency: str = "USD"


class CaptionConfig(StrictModel):
    """`measured` needs no model; the two others write the seven descriptions."""

    captioner: Literal["measured", "endpoint", "transformers"] = "measured"
    min_camera_confidence: Share = 0.6  # below it a caption says nothing about the camera
    tags: TagConfig = TagConfig()
    clips_per_part: Count = 256
    vlm: VlmConfig = VlmConfig()
    vlm_clips_per_part: Count = 32  # what a killed worker asks again, at most
    endpoint: EndpointConfig = EndpointConfig()
    transformers: TransformersConfig = TransformersConfig()
    price: PriceConfig = PriceConfig()

    @model_validator(mode="after")
    def _the_model_is_named(self) -> Self:
        if self.captioner != "measured" and not self._backend().model:
            raise ValueError(
                f"captioner {self.captioner!r} needs [caption.{self.captioner}] model = ..."
            )
        return self

    @property
    def model(self) -> str:
        """Model and revision of the captioner that looks; empty for `measured`."""
        if self.captioner == "measured":
            return ""
        return f"{self._backend().model}@{self._backend().revision}"

    @property
    def num_gpus(self) -> float:
        """What one worker of the captioner that looks holds."""
        if self.captioner == "transformers":
            return self.transformers.num_gpus if self.transformers.device != "cpu" else 0.0
        launch = self.endpoint.launch if self.captioner == "endpoint" else None
        return launch.num_gpus if launch is not None else 0.0

    def said_by_measurement(self) -> dict[str, Any]:
        """What changes camera and tags."""
        return self.model_dump(mode="json", include={"min_camera_confidence", "tags"})

    def said_by_model(self) -> dict[str, Any]:
        """What changes the seven descriptions, but for the prompt."""
        backend: dict[str, Any] = {"captioner": self.captioner, "model": self.model}
        if self.captioner == "endpoint":
            backend |= {
                "media": self.endpoint.media,
                "constraint": self.endpoint.constraint,
                "may_degrade": self.endpoint.may_degrade,
            }
        if self.captioner == "transformers":
            backend |= {
                "dtype": self.transformers.dtype,
                "attention": self.transformers.attention,
            }
        return backend | {"vlm": self.vlm.model_dump(mode="json")}

    def _backend(self) -> EndpointConfig | TransformersConfig:
        return self.endpoint if self.captioner == "endpoint" else self.transformers
