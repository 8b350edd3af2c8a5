"""Every knob of a run, in one typed tree. Each default stands in its own class and nowhere else."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Annotated, Any, Self

from pydantic import Field, model_validator

from pipeline.caption.config import CaptionConfig
from pipeline.config_file import apply_overrides, read_toml, validate
from pipeline.corpus.config import CorpusConfig
from pipeline.embed.config import EmbedConfig
from pipeline.engine.config import EngineConfig
from pipeline.ingest.config import IngestConfig
from pipeline.media.config import MediaLimits
from pipeline.pack.config import PackConfig
from pipeline.review.config import ReviewConfig
from pipeline.score.config import ScoreConfig
from pipeline.split.config import SplitConfig
from pipeline.tier.config import DEFAULT_TIERS_FILE, TiersConfig, override_tiers
from schemas.base import StrictModel, fingerprint


class PassConfig(StrictModel):
    """How work is cut. Sizes of parts and limits of time change no result."""

    sources_per_part: Annotated[int, Field(ge=1)] = 8
    source_bytes_per_part: Annotated[int, Field(ge=1)] = 64 << 20  # a film is a part of its own
    clips_per_part: Annotated[int, Field(ge=1)] = 32  # at most; fewer in a small pool
    clips_per_packer: Annotated[int, Field(ge=1)] = 2  # of one shard, encoded at once
    item_timeout_s: Annotated[float, Field(gt=0)] = 900.0  # one clip or image
    source_timeout_s: Annotated[float, Field(gt=0)] = 7200.0  # one whole source, or one shard


class PipelineConfig(StrictModel):
    """One run. Sections are the steps of the walk."""

    media: MediaLimits = MediaLimits()
    ingest: IngestConfig = IngestConfig()
    split: SplitConfig = SplitConfig()
    embed: EmbedConfig = EmbedConfig()
    corpus: CorpusConfig = CorpusConfig()
    score: ScoreConfig = ScoreConfig()
    tiers: TiersConfig
    caption: CaptionConfig = CaptionConfig()
    pack: PackConfig = PackConfig()
    review: ReviewConfig = ReviewConfig()
    engine: EngineConfig = EngineConfig()
    passes: PassConfig = PassConfig()

    @model_validator(mode="before")
    @classmethod
    def _limits_have_one_home(cls, tree: Any) -> Any:
        """`[media]` holds for every step that opens media."""
        if not isinstance(tree, Mapping) or "media" not in tree:
            return tree
        steps = {name: dict(tree.get(name, {})) for name in ("ingest", "split")}
        for name, step in steps.items():
            if "limits" in step:
                raise ValueError(f"limits of media are set in [media], not in [{name}]")
            step["limits"] = tree["media"]
        return {**tree, **steps}

    @model_validator(mode="after")
    def _thresholds_belong_to_a_model(self) -> Self:
        """The defaults would throw away most of a pool seen by another network."""
        duplicates = self.corpus.duplicates
        is_default = self.embed.model == EmbedConfig().model
        chosen = {"min_similarity", "min_similarity_same_source"} <= duplicates.model_fields_set
        if duplicates.enabled and not is_default and not chosen:
            raise ValueError(
                f"embed.model is {self.embed.model!r}: set corpus.duplicates.min_similarity and "
                "min_similarity_same_source for it; their defaults belong to the default model"
            )
        return self

    @property
    def result_fingerprint(self) -> str:
        """Changes with every setting that can change a result."""
        return fingerprint(self.model_dump(mode="json", exclude={"engine", "passes"}))


def load_config(path: Path | None, overrides: Sequence[str]) -> PipelineConfig:
    """The shipped tiers, then the file, then each `--set a.b=c`. Raises ConfigError.

    A tier that the file writes down replaces the shipped one whole; `--set` changes one limit.
    """
    tree: dict[str, Any] = {} if path is None else read_toml(path)
    tree["tiers"] = {**read_toml(DEFAULT_TIERS_FILE), **tree.get("tiers", {})}
    of_tiers = [override for override in overrides if override.startswith("tiers.")]
    others = [override for override in overrides if not override.startswith("tiers.")]
    tree = apply_overrides(tree, others)
    tree["tiers"] = override_tiers(tree["tiers"], of_tiers)
    return validate(PipelineConfig, tree, where=str(path) if path is not None else "config")
