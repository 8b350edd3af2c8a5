"""Knobs of the corpus step: near-duplicates, concepts, balance."""

from typing import Annotated, Literal

from pydantic import Field

from schemas.base import StrictModel


class DuplicateConfig(StrictModel):
    """A clip goes when its cosine similarity to a better, kept clip reaches `min_similarity`.

    Copies come from other sources. Two clips of one source are other moments of it, so they must
    reach `min_similarity_same_source`, too: what repeats goes, what resembles stays. Both
    thresholds belong to the default embedding's `copy` vector: choose them anew for another model.

    Above `max_exact_clips` the search looks only into the `num_probes` nearest partitions of each
    clip: a small, measured share of pairs is then missed.
    """

    enabled: bool = True
    min_similarity: Annotated[float, Field(gt=0, le=1)] = 0.62
    min_similarity_same_source: Annotated[float, Field(gt=0, le=1)] = 0.8
    # Flatter pictures (black, white, one colour) look alike to any network: never compared.
    min_luma_sd: Annotated[float, Field(ge=0)] = 6.0  # 8-bit levels, the clip's most textured frame
    max_exact_clips: Annotated[int, Field(ge=0)] = 2_000_000
    clips_per_partition: Annotated[int, Field(ge=1)] = 2000
    num_probes: Annotated[int, Field(ge=1, le=1024)] = 8
    block_size: Annotated[int, Field(ge=1)] = 2048  # clips compared at once; memory, not results


class ClusterConfig(StrictModel):
    """Spherical k-means over the kept clips; the paper's recipe uses about 10,000 concepts."""

    num_clusters: Annotated[int, Field(ge=1)] = 10_000
    min_clips_per_cluster: Annotated[int, Field(ge=1)] = 20  # fewer: centroids follow single clips
    max_train_clips_per_cluster: Annotated[int, Field(ge=1)] = 256
    num_iterations: Annotated[int, Field(ge=1)] = 25
    seed: Annotated[int, Field(ge=0)] = 1234


class BalanceConfig(StrictModel):
    """How often a clip of a cluster of n is drawn, relative to the mean clip.

    `cap`: proportional to min(1, t / n), t being the `cap_quantile` of the cluster sizes.
    `temperature`: proportional to n^(alpha - 1), within [min_weight, max_weight].
    """

    method: Literal["cap", "temperature", "none"] = "cap"
    cap_quantile: Annotated[float, Field(gt=0, le=1)] = 0.9
    alpha: Annotated[float, Field(ge=0, le=1)] = 0.5
    min_weight: Annotated[float, Field(gt=0, le=1)] = 0.2
    max_weight: Annotated[float, Field(ge=1)] = 4.0


class CorpusConfig(StrictModel):
    """`device` and `num_threads` change the speed, never the result."""

    duplicates: DuplicateConfig = DuplicateConfig()
    clusters: ClusterConfig = ClusterConfig()
    balance: BalanceConfig = BalanceConfig()
    device: Literal["cpu", "cuda"] = "cpu"  # cuda needs a FAISS built for it
    num_threads: Annotated[int, Field(ge=0)] = 0  # 0: all cores

    def result_fields(self) -> dict[str, object]:
        """What a result depends on: everything but the device and the threads."""
        return self.model_dump(mode="json", exclude={"device", "num_threads"})
