"""Everything that a training run can be told. Defaults stand here and in no other place.

A key that would have no effect is refused, not ignored: a run does what its file says.
"""

from pathlib import Path
from typing import Annotated, Literal, Self

from pydantic import Field, model_validator

from modeling.caption_text import CaptionTextConfig
from modeling.data.batch_size import PlanConfig
from modeling.data.loader import DataLoaderConfig
from modeling.data.view import ViewConfig
from modeling.discriminator import DiscriminatorConfig
from modeling.dit_config import DIT_CONFIGS, DiTConfig
from modeling.flow_matching import FlowConfig
from modeling.model_family import MODEL_FAMILY
from modeling.perceptual import PerceptualConfig
from modeling.text_config import TextEncoderConfig
from modeling.train.lora_config import LoraTraining
from modeling.train.optim_config import OptimConfig
from modeling.train.parallel_config import ParallelConfig
from modeling.vae_config import VAE_CONFIGS, VAEConfig
from modeling.vae_loss import VaeLossConfig
from modeling.vae_tiling import TilingConfig
from schemas.base import StrictModel

Kind = Literal["dit", "vae"]
Count = Annotated[int, Field(ge=0)]
Positive = Annotated[int, Field(gt=0)]
Share = Annotated[float, Field(ge=0, le=1)]


class DataConfig(StrictModel):
    """Which samples, in which order and form. `weights` has one number per manifest.

    `tag_weights` multiplies the weight of a sample by the number of each provenance tag that it
    carries, and leaves samples without any of them out; "*" is a tag of all samples. The json of
    every sample is opened once for that.
    """

    shards: tuple[str, ...] = ()
    weights: tuple[Annotated[float, Field(gt=0)], ...] | None = None
    tag_weights: dict[str, Annotated[float, Field(gt=0)]] | None = None
    verify: Literal["index", "full"] = "index"
    plan: PlanConfig = PlanConfig(global_batch=8)
    view: ViewConfig = ViewConfig()
    loader: DataLoaderConfig = DataLoaderConfig()
    caption: CaptionTextConfig = CaptionTextConfig()


class DistillConfig(StrictModel):
    """Guidance distillation: the student learns, in one pass, what the teacher says in two.

    arXiv:2412.03603, section 5.2: same structure plus an embedding of the guidance scale, which is
    drawn uniformly from the range. `teacher` is a final folder.
    """

    teacher: Path
    min_guidance: Annotated[float, Field(gt=0)] = 1.0
    max_guidance: Annotated[float, Field(gt=0)] = 8.0

    @model_validator(mode="after")
    def _rises(self) -> Self:
        if self.min_guidance > self.max_guidance:
            raise ValueError(
                f"min_guidance {self.min_guidance} is above max_guidance {self.max_guidance}"
            )
        return self


class DitTraining(StrictModel):
    """The diffusion transformer.

    `size` names an entry of DIT_CONFIGS or MODEL_FAMILY; `network` replaces it by a whole config.
    Channels and text widths always follow from the VAE and the text encoder. `vae` is a folder,
    "shipped", or "untrained": random weights, good for nothing but a trial of the machinery.
    "auto" takes the shipped VAE if there is one, else the untrained one.
    """

    size: str = "tiny"
    network: DiTConfig | None = None
    vae: str = "auto"
    sample_posterior: bool = True  # a fresh draw of the latent at every step, not its mean
    text_encoder: TextEncoderConfig = TextEncoderConfig()
    flow: FlowConfig = FlowConfig(stratified=True)
    distill: DistillConfig | None = None

    @model_validator(mode="after")
    def _size_is_known(self) -> Self:
        known = {**DIT_CONFIGS, **MODEL_FAMILY}
        if self.size not in known:
            raise ValueError(f"size must be one of {', '.join(known)}, got {self.size!r}")
        if self.network is not None and "size" in self.model_fields_set:
            raise ValueError(f"network is given, so size = {self.size!r} has no effect")
        return self

    @property
    def network_config(self) -> DiTConfig:
        """Before channels and widths are fitted to the VAE and the text encoder."""
        config = self.network or {**DIT_CONFIGS, **MODEL_FAMILY}[self.size]
        if self.distill is None:
            return config
        return config.model_copy(update={"guidance_embeds": True})


class VaeStage(StrictModel):
    """One part of the curriculum. `steps` None: until the run ends (the last stage only).

    `discriminator_alone`: steps at the start of an adversarial stage in which the discriminator
    learns and its verdict does not count yet.
    """

    name: str
    steps: Positive | None = None
    view: ViewConfig
    global_batch: Positive | None = None  # None: as data.plan says
    perceptual: bool = False
    adversarial: bool = False
    discriminator_alone: Count = 0
    tiling_probability: Share = 0.0

    @model_validator(mode="after")
    def _no_idle_key(self) -> Self:
        if self.discriminator_alone and not self.adversarial:
            raise ValueError(
                f"stage {self.name!r}: discriminator_alone = {self.discriminator_alone} has no "
                "effect without adversarial"
            )
        return self


class VaeTraining(StrictModel):
    """The causal VAE, in stages: reconstruction, then perceptual, then adversarial.

    `image_share` of the steps train on images: shards of images, or with `images_from` "frames"
    the first frame of each clip. Starts of the loss's terms follow from the stages.
    """

    size: str = "tiny"
    network: VAEConfig | None = None
    image_share: Share = 0.2  # image : video = 1 : 4, the paper's ratio
    images_from: Literal["frames", "shards"] = "frames"
    loss: VaeLossConfig = VaeLossConfig()
    perceptual: PerceptualConfig = PerceptualConfig()
    discriminator: DiscriminatorConfig = DiscriminatorConfig()
    discriminator_learning_rate: Annotated[float, Field(gt=0)] = 1e-4
    tiling: TilingConfig = TilingConfig()
    stages: Annotated[tuple[VaeStage, ...], Field(min_length=1)] = (
        VaeStage(name="reconstruction", view=ViewConfig()),
    )

    @model_validator(mode="after")
    def _check(self) -> Self:
        if self.size not in VAE_CONFIGS:
            raise ValueError(f"size must be one of {', '.join(VAE_CONFIGS)}, got {self.size!r}")
        if self.network is not None and "size" in self.model_fields_set:
            raise ValueError(f"network is given, so size = {self.size!r} has no effect")
        for stage in self.stages[:-1]:
            if stage.steps is None:
                raise ValueError(f"only the last stage may lack steps, {stage.name!r} does")
        idle = {"adversarial_start", "discriminator_start", "max_frame_interval"}
        if found := sorted(idle & self.loss.model_fields_set):
            raise ValueError(f"vae.loss.{found[0]} has no effect here: the stages say it")
        return self

    @property
    def network_config(self) -> VAEConfig:
        return self.network or VAE_CONFIGS[self.size]


class EmaConfig(StrictModel):
    """Averaged weights. The decay rises with the steps: min(decay, (1 + step) / (10 + step))."""

    decay: Annotated[float, Field(ge=0, lt=1)] = 0.999
    every: Positive = 1


class ComputeConfig(StrictModel):
    """Where and how. `micro_batch` (or `micro_tokens`, DiT tokens) bounds what is computed at once.

    A step's share of the rank is cut into so many parts as that needs; gradients add up over them.
    "auto" of `activation_checkpointing` takes the fastest that the memory estimate allows.
    `kernels`: what a DiT's blocks do between products, or a VAE around its convolutions, as plain
    PyTorch or as Triton kernels ("auto": kernels, on a GPU where they prove right). `attention`:
    a DiT's backend ("auto": on a GPU the first of a fixed order that proves right).
    """

    device: Literal["auto", "cpu", "cuda"] = "auto"
    precision: Literal["auto", "fp32", "bf16"] = "auto"  # of the products; weights are fp32
    activation_checkpointing: Literal["auto", "off", "selective", "full"] = "auto"
    compile: bool = False
    kernels: Literal["auto", "fused", "plain"] = "auto"
    attention: Literal["auto", "cudnn", "flash", "efficient", "math"] = "auto"
    deterministic: bool = False  # bitwise the same on a GPU; slower. A CPU always is.
    num_threads: Positive | None = None  # of a CPU; part of what bitwise resume needs
    micro_batch: Positive | None = None
    micro_tokens: Positive | None = None

    @model_validator(mode="after")
    def _one_bound(self) -> Self:
        if self.micro_batch is not None and self.micro_tokens is not None:
            raise ValueError(
                f"micro_batch {self.micro_batch} and micro_tokens {self.micro_tokens}: set one"
            )
        return self


class CheckpointConfig(StrictModel):
    """`keep` newest checkpoints stay; `keep_every` keeps those of its multiples for good."""

    every: Positive = 500
    keep: Positive = 3
    keep_every: Positive | None = None
    asynchronous: bool = True


class LogConfig(StrictModel):
    every: Positive = 10
    tensorboard: bool = True  # where the package is installed
    wandb_project: str | None = None


class PreviewConfig(StrictModel):
    """Samples of the averaged weights during the run; the last step always makes them.

    A VAE shows clips beside their reconstruction instead, and needs no prompts.
    """

    every: Positive | None = None
    prompts: tuple[str, ...] = ("a slow pan over a landscape",)
    num_frames: Positive = 17
    height: Positive = 256
    width: Positive = 256
    num_steps: Positive = 30


class TrainConfig(StrictModel):
    """One run. `steps` only says where to stop: the schedule's length is `optim.schedule_steps`."""

    model: Kind = "dit"
    steps: Positive = 1000
    seed: int = 0
    max_bad_steps: Positive = 5  # losses in a row that are not finite before the run gives up
    data: DataConfig = DataConfig()
    dit: DitTraining = DitTraining()
    vae: VaeTraining = VaeTraining()
    lora: LoraTraining | None = None
    optim: OptimConfig = OptimConfig()
    ema: EmaConfig | None = EmaConfig()
    compute: ComputeConfig = ComputeConfig()
    parallel: ParallelConfig = ParallelConfig()
    checkpoint: CheckpointConfig = CheckpointConfig()
    log: LogConfig = LogConfig()
    preview: PreviewConfig | None = PreviewConfig()

    @model_validator(mode="after")
    def _no_idle_key(self) -> Self:
        other: Kind = "vae" if self.model == "dit" else "dit"
        if other in self.model_fields_set:
            raise ValueError(f"the section {other} has no effect on a run of model = {self.model}")
        if "seed" in self.data.plan.model_fields_set:
            raise ValueError("data.plan.seed has no effect: set seed")
        if self.model == "vae":
            if "view" in self.data.model_fields_set:
                raise ValueError("data.view has no effect on a VAE: each stage has its view")
            if "attention" in self.compute.model_fields_set:
                raise ValueError("compute.attention has no effect on a VAE")
            if self.optim.optimizer == "muon":
                raise ValueError("optim.optimizer = 'muon' is for a DiT: a VAE's weights are 5-D")
        if self.lora is not None:
            self._check_lora(self.lora)
        return self

    def _check_lora(self, lora: LoraTraining) -> None:
        if self.model == "vae":
            raise ValueError("the section lora is for a DiT, not for a VAE")
        if self.dit.distill is not None:
            raise ValueError("dit.distill trains a whole network, lora additions to one: set one")
        if self.optim.optimizer == "muon":
            raise ValueError("optim.optimizer = 'muon' is for whole matrices: lora takes 'adamw'")
        if self.parallel.data != "ddp":
            raise ValueError(
                f"parallel.data = {self.parallel.data!r} divides what is trained, and of lora that "
                "is little: take 'ddp'"
            )
        if lora.dropout and self.compute.compile:
            raise ValueError(f"lora.dropout = {lora.dropout} does not go with compute.compile")
        if lora.dropout and self.parallel.context_ranks > 1:
            raise ValueError(
                f"lora.dropout = {lora.dropout} does not go with parallel.context_ranks = "
                f"{self.parallel.context_ranks}"
            )
