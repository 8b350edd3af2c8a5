"""Which samples an evaluation looks at, read one at a time.

Shape suffixes: B batch, C channels, T frames, H height, W width.
"""

from collections import defaultdict
from collections.abc import Iterator, Mapping
from dataclasses import dataclass

from torch import Tensor

from modeling.data.corpus import ShardCorpus
from modeling.data.draw import seed_of
from modeling.data.errors import SampleError
from modeling.data.latent_format import is_latent
from modeling.data.latent_reader import LatentReader
from modeling.data.pixel_reader import PixelReader
from modeling.data.samples import SampleReader, SampleRequest
from modeling.data.view import ViewConfig
from modeling.evaluate.errors import EvaluationError
from modeling.train.stream import latent_shape
from modeling.vae import VAEConfig
from schemas.tier import Bucket


@dataclass(frozen=True)
class Sample:
    """One sample with a batch axis: `pixels` uint8 (1, 3, T, H, W), or `mean` of a latent."""

    key: str
    tensors: Mapping[str, Tensor]
    text: str  # the canonical caption, which sampling uses


class SampleChoice:
    """The same samples for every checkpoint: those of each bucket whose keys hash lowest.

    A sample that does not decode is left out, with its reason in `unreadable`, and the next in
    order takes its place.
    """

    def __init__(
        self,
        corpus: ShardCorpus,
        view: ViewConfig,
        *,
        num_per_bucket: int,
        seed: int,
        vae: VAEConfig | None,
    ) -> None:
        self.unreadable: dict[str, str] = {}
        self._num, self._seed = num_per_bucket, seed
        self._corpus = corpus
        self._reader: SampleReader
        if is_latent(corpus):
            if vae is None:
                raise EvaluationError("these shards hold latents: a VAE is measured on pixels")
            self._reader = LatentReader(corpus, latent_shape(vae), seed=seed)
            view = ViewConfig()
        else:
            self._reader = PixelReader(corpus, view, seed=seed)
        self._rows: dict[Bucket, list[int]] = defaultdict(list)
        for row, number in enumerate(corpus.bucket_N):
            self._rows[view.bucket(corpus.buckets[number])].append(row)

    @property
    def buckets(self) -> list[Bucket]:
        """As the view makes them, by name."""
        return sorted(self._rows, key=lambda bucket: bucket.name)

    def samples(self, bucket: Bucket) -> Iterator[Sample]:
        """At most `num_per_bucket`. Raises EvaluationError if the bucket has none that decodes."""
        num = 0
        for row in sorted(self._rows[bucket], key=self._rank):
            if num == self._num:
                break
            key = self._corpus.key(row)
            tensors = self._reader.empty(bucket, 1)
            request = SampleRequest(row, key, 0, bucket)
            try:
                read = self._reader.read(
                    request, {name: tensor[0] for name, tensor in tensors.items()}
                )
            except SampleError as error:
                self.unreadable[key] = str(error)
                continue
            num += 1
            yield Sample(key, tensors, read.caption.to_prompt())
        if num == 0:
            raise EvaluationError(f"no sample of bucket {bucket.name} can be read")

    def _rank(self, row: int) -> int:
        return seed_of(self._seed, key=self._corpus.key(row), step=0, stream="evaluation")
