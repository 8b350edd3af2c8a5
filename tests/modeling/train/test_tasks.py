"""What is trained is what the papers say, and it learns."""

from pathlib import Path

import pytest
import torch
from torch import Tensor

from modeling.data.draw import generator, normal_like
from modeling.dit import VideoDiT
from modeling.dit_config import DiTConfig
from modeling.dit_cost import num_parameters
from modeling.final_folder import read_final, read_vae
from modeling.flow_matching import interpolate, sample_sigma
from modeling.sampler import Sampler, SampleRequest
from modeling.scaling import LossCurve
from modeling.train import compute, cost
from modeling.train.config import EmaConfig, TrainConfig
from modeling.train.dit_task import DitTask
from modeling.train.ema import Ema
from modeling.train.errors import ConfigError
from modeling.train.export import read_weights
from modeling.train.state import allocate_optimizers
from modeling.train.stream import BatchStream, open_corpus, weigh_by_tags
from modeling.train.trainer import Trainer
from modeling.vae_config import VAE_CONFIGS
from tests.modeling.train.runs import DIT, VAE, config_of, make_trainer, metrics


def _gradients(trainer: Trainer, step: int = 0) -> dict[str, Tensor]:
    batches = BatchStream(open_corpus(trainer.config.data), trainer.config).batches(step)
    parts = trainer._parts(next(batches))
    batches.close()
    for part in parts:
        trainer.task.gradients(part, step=step, last=part is parts[-1])
    model = trainer.task.networks["model"]
    return {n: p.grad.clone() for n, p in model.named_parameters() if p.grad is not None}


def test_a_dit_learns_and_its_final_folder_samples(manifest: str, tmp_path: Path) -> None:
    config = config_of(DIT, manifest, steps=24, dit={"sample_posterior": False})
    make_trainer(config, tmp_path).run()
    losses = [row["loss"] for row in metrics(tmp_path)]
    assert sum(losses[-6:]) < 0.9 * sum(losses[:6])
    final, model = read_final(tmp_path / "final")
    assert (final.step, final.vae_origin) == (24, "untrained")
    sampler = Sampler.load(tmp_path / "final")
    latent = sampler.latent(
        SampleRequest(prompt="a", height=32, width=32, num_frames=5, num_steps=2)
    )
    assert latent.shape == (1, 4, 2, 4, 4)
    curve = LossCurve.read(tmp_path)
    assert curve.num_parameters == num_parameters(model.config)
    assert (curve.tokens[1:] > curve.tokens[:-1]).all()


def test_a_vae_learns_in_stages_and_its_final_folder_trains_a_dit(
    manifest: str, tmp_path: Path
) -> None:
    config = config_of(VAE, manifest, steps=16, optim={"learning_rate": 2e-2})
    make_trainer(config, tmp_path / "vae").run()
    rows = metrics(tmp_path / "vae")
    assert sum(row["l1"] for row in rows[-5:]) < 0.9 * sum(row["l1"] for row in rows[:5])
    assert [("discriminator" in row) for row in rows[:5]] == [False, False, False, True, True]
    assert rows[3]["adversarial"] == 0.0  # the discriminator learns alone for a step
    images = [row["bucket"].startswith("f001_") for row in rows]
    assert 1 <= sum(images) <= 8  # a fifth of the steps train on images
    place = str(tmp_path / "vae")
    vae = read_vae(tmp_path / "vae" / "final" / "diffusers")
    assert vae.config.scaling_factor != pytest.approx(0.476986)
    trainer = make_trainer(config_of(DIT, manifest, steps=1, dit={"vae": place}), tmp_path / "dit")
    trainer.run()
    assert read_final(tmp_path / "dit" / "final")[0].vae_origin == "given"


def test_gradients_are_those_of_flow_matching_written_out(manifest: str, tmp_path: Path) -> None:
    config = config_of(DIT, manifest, data={"caption": {"drop_text": 0.0}})
    trainer = make_trainer(config, tmp_path)
    task = trainer.task
    assert isinstance(task, DitTask)
    found = _gradients(trainer)
    batches = BatchStream(open_corpus(config.data), config).batches(0)
    batch = next(batches)
    batches.close()
    keys = batch.draw_keys
    video = batch.pixels_BCTHW.contiguous().float() / 127.5 - 1
    with torch.no_grad():
        posterior = task.vae.encode(video)

    def drawn(stream: str) -> Tensor:
        shape = tuple(posterior.mean.shape[1:])
        return normal_like(shape, seed=0, keys=keys, step=0, stream=stream)

    std = torch.exp(0.5 * posterior.logvar)
    latent = (posterior.mean + std * drawn("posterior")) * task.vae.config.scaling_factor
    sigma = sample_sigma(
        2, config=config.dit.flow, generator=generator(0, key="", step=0, stream="sigma")
    )
    noise = drawn("noise")
    text = task.text_encoder(batch.captions, cut_long=True)
    model = task.model
    model.zero_grad()
    predicted = model(
        interpolate(latent, noise, sigma),
        sigma,
        text.states_BLD,
        text.lengths_B,
        text.pooled_BD,
    )
    torch.autograd.backward((predicted - (noise - latent)).square().mean())
    for name, parameter in model.named_parameters():
        if parameter.grad is not None:
            torch.testing.assert_close(found[name], parameter.grad, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("mode", ["selective", "full"])
def test_recomputation_changes_no_gradient(mode: str, manifest: str, tmp_path: Path) -> None:
    kept, again = (
        _gradients(make_trainer(_recomputing(manifest, each), tmp_path / each))
        for each in ("off", mode)
    )
    assert again.keys() == kept.keys()
    for name, gradient in kept.items():
        torch.testing.assert_close(again[name], gradient, msg=name)


def _recomputing(manifest: str, mode: str) -> TrainConfig:
    return config_of(DIT, manifest, compute={"activation_checkpointing": mode})


def test_the_student_begins_as_the_teacher_and_learns_its_guidance(
    manifest: str, tmp_path: Path
) -> None:
    make_trainer(config_of(DIT, manifest, steps=6), tmp_path / "teacher").run()
    distill = {"teacher": str(tmp_path / "teacher" / "final"), "max_guidance": 3.0}
    config = config_of(DIT, manifest, steps=2, dit={"distill": distill})
    trainer = make_trainer(config, tmp_path / "student")
    task = trainer.task
    assert isinstance(task, DitTask)
    _, weights = read_weights(tmp_path / "teacher")
    own = task.model.state_dict()
    assert all(torch.equal(own[name], weights[name]) for name in weights)
    assert all(name.startswith("guidance_in.") for name in own.keys() - weights.keys())
    trainer.run()
    final, model = read_final(tmp_path / "student" / "final")
    assert final.model.guidance_embeds
    assert model.guidance_in is not None
    student_again = {"teacher": str(tmp_path / "student" / "final")}
    again = config_of(DIT, manifest, dit={"distill": student_again})
    with pytest.raises(ConfigError, match="is distilled already"):
        make_trainer(again, tmp_path / "again")


def test_muon_trains_the_blocks_and_resumes(manifest: str, tmp_path: Path) -> None:
    muon = {"optimizer": "muon"}
    make_trainer(config_of(DIT, manifest, steps=2, optim=muon), tmp_path).run()
    trainer = make_trainer(config_of(DIT, manifest, steps=3, optim=muon), tmp_path)
    blocks, rest = trainer.task.optimizers
    assert isinstance(blocks, torch.optim.Muon)
    counts = [sum(p.numel() for g in o.param_groups for p in g["params"]) for o in (blocks, rest)]
    assert sum(counts) == trainer.task.num_parameters
    assert counts[0] > counts[1] / 2
    trainer.run()


def test_the_state_of_an_optimizer_is_read_to_where_its_parameter_lies() -> None:
    network = torch.nn.Linear(2, 3, device="meta")  # stands for any device but the CPU
    optimizer = torch.optim.AdamW(network.parameters())
    shapes: dict[str, tuple[int, ...]] = {
        "optimizer/model/weight/step": (),
        "optimizer/model/weight/exp_avg": (3, 2),
    }
    found = allocate_optimizers({"model": network}, [optimizer], shapes)
    assert {name: (tuple(each.shape), each.device.type) for name, each in found.items()} == {
        name: (shape, "meta") for name, shape in shapes.items()
    }


def test_only_samples_with_a_tag_are_drawn(manifest: str) -> None:
    corpus = open_corpus(config_of(DIT, manifest).data)
    before = corpus.manifest_hash
    weigh_by_tags(corpus, {"even": 3.0})
    assert corpus.weight_N.tolist() == [3.0, 0.0, 3.0, 0.0, 3.0, 0.0, 3.0]
    assert corpus.manifest_hash != before
    every = open_corpus(config_of(DIT, manifest).data)
    weigh_by_tags(every, {"even": 3.0, "*": 2.0})
    assert every.weight_N.tolist() == [6.0, 2.0, 6.0, 2.0, 6.0, 2.0, 6.0]


def test_the_average_follows_with_its_decay() -> None:
    network = torch.nn.Linear(1, 1, bias=False)
    with torch.no_grad():
        network.weight.fill_(1.0)
    ema = Ema(network, EmaConfig(decay=0.9))
    with torch.no_grad():
        network.weight.fill_(2.0)
    ema.follow(network, step=10_000)
    assert float(ema.network.weight) == pytest.approx(1.1)
    ema.follow(network, step=0)  # early: a tenth of the weight is the average's own
    assert float(ema.network.weight) == pytest.approx(0.1 * 1.1 + 0.9 * 2.0)


def test_vae_flops_grow_with_the_clip_and_count_both_halves() -> None:
    config = VAE_CONFIGS["tiny"].model_dump_json()
    small = cost.vae_step_flops(config, "f005_16x16")
    assert cost.vae_step_flops(config, "f005_32x32") == pytest.approx(4 * small, rel=0.05)
    assert small > 3 * 2 * cost.vae_encode_flops(config, "f005_16x16")


def test_the_memory_estimate_is_near_what_autograd_keeps() -> None:
    config = DiTConfig(
        in_channels=4,
        out_channels=4,
        num_attention_heads=4,
        attention_head_dim=32,
        rope_axes_dim=(8, 12, 12),
        num_layers=2,
        num_single_layers=4,
        guidance_embeds=False,
        text_embed_dim=32,
        pooled_projection_dim=32,
    )
    model = VideoDiT(config).train()
    weights = {p.untyped_storage().data_ptr() for p in model.parameters()}
    kept: dict[int, tuple[int, Tensor]] = {}

    def keep(tensor: Tensor) -> Tensor:
        storage = tensor.untyped_storage()
        if storage.data_ptr() not in weights:
            kept[storage.data_ptr()] = (storage.nbytes(), tensor)
        return tensor

    latent, text = torch.randn(1, 4, 2, 32, 32), torch.randn(1, 16, 32)
    with torch.autograd.graph.saved_tensors_hooks(keep, lambda tensor: tensor):
        model(latent, torch.rand(1), text, torch.tensor([16]), torch.randn(1, 32))
    num_tokens = 2 * 16 * 16 + 16
    estimate = cost.dit_memory(
        config, 0, num_tokens=num_tokens, checkpointing="off", value_bytes=4, has_ema=False
    )
    measured = sum(num_bytes for num_bytes, _ in kept.values())
    assert measured < estimate.total < 1.6 * measured
    full = cost.dit_memory(
        config, 0, num_tokens=num_tokens, checkpointing="full", value_bytes=4, has_ema=False
    )
    assert full.total < estimate.total / 3


def test_the_fastest_recomputation_that_fits_is_taken() -> None:
    sizes = {"off": 90.0, "selective": 60.0, "full": 20.0}

    def estimate(mode: compute.Checkpointing) -> cost.Memory:
        return cost.Memory(sizes[mode], 0.0)

    def chosen(available: float | None) -> str:
        return compute.choose_checkpointing("auto", estimate, available)

    assert [chosen(n) for n in (200.0, 80.0, 40.0, 10.0, None)] == [
        "off",
        "selective",
        "full",
        "full",
        "off",
    ]
