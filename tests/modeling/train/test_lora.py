"""Adapters learn, their base does not; their folder is peft's, and says whose it is."""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.utils.flop_counter import FlopCounterMode

from modeling.adapter import apply_adapter
from modeling.dit import VideoDiT
from modeling.dit_config import DIT_CONFIGS
from modeling.dit_cost import num_parameters
from modeling.evaluate.errors import EvaluationError
from modeling.evaluate.subject import load_subject
from modeling.final_folder import read_final
from modeling.fingerprint import model_fingerprint
from modeling.sampler import Sampler, SampleRequest
from modeling.train import cost
from modeling.train.dit_task import DitTask
from modeling.train.errors import CheckpointError, ConfigError
from modeling.train.export import read_weights
from modeling.train.lora import LoraDit
from modeling.train.lora_config import LoraTraining, num_lora_parameters
from modeling.train.stream import BatchStream, open_corpus
from modeling.train.trainer import Trainer
from schemas.tier import Bucket
from tests.modeling.train.runs import (
    DIT,
    checkpoint_bits,
    config_of,
    make_trainer,
    metrics,
)

_LORA = {"rank": 2, "alpha": 4, "dropout": 0.25}


@pytest.fixture(scope="module")
def base(manifest: str, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run of one step, from weights as far from a fresh network's as training brings them."""
    out: Path = tmp_path_factory.mktemp("base")
    trainer = make_trainer(config_of(DIT, manifest, steps=1, ema=None), out)
    generator = torch.Generator().manual_seed(0)
    for parameter in trainer.task.networks["model"].parameters():
        parameter.data.add_(torch.randn(parameter.shape, generator=generator), alpha=0.1)
    trainer.run()
    return out


def _trainer(base: Path, manifest: str, out: Path, **over: Any) -> Trainer:
    file, weights = read_weights(base)
    config = config_of(DIT, manifest, **{"lora": _LORA, **over})
    return make_trainer(config, out, init=weights, init_file=file)


@pytest.fixture(scope="module")
def adapted(base: Path, manifest: str, tmp_path_factory: pytest.TempPathFactory) -> Path:
    out: Path = tmp_path_factory.mktemp("adapted")
    _trainer(base, manifest, out, steps=4).run()
    return out


def _inputs(network: VideoDiT) -> tuple[Tensor, ...]:
    generator = torch.Generator().manual_seed(0)
    config = network.config

    def draw(*shape: int) -> Tensor:
        return torch.randn(shape, generator=generator)

    return (
        draw(2, config.in_channels, 2, 8, 8),
        torch.tensor([0.3, 0.8]),
        draw(2, 5, config.text_embed_dim),
        torch.tensor([5, 3]),
        draw(2, config.pooled_projection_dim),
    )


@torch.no_grad()
def _output(network: nn.Module, inputs: tuple[Tensor, ...]) -> Tensor:
    found: Tensor = network.eval()(*inputs)
    return found


def _task(trainer: Trainer) -> DitTask:
    assert isinstance(trainer.task, DitTask)
    return trainer.task


def _values(network: nn.Module) -> Mapping[str, Tensor]:
    return {name: tensor.clone() for name, tensor in network.state_dict().items()}


def test_a_step_changes_adapters_alone(base: Path, manifest: str, tmp_path: Path) -> None:
    trainer = _trainer(base, manifest, tmp_path, steps=2)
    model = _task(trainer).model
    before = _values(model)
    inputs = _inputs(model)
    assert torch.equal(_output(model, inputs), _output(read_final(base / "final")[1], inputs))
    model.train()
    trainer.run()
    after = _values(model)
    changed = {name for name in before if not torch.equal(before[name], after[name])}
    assert changed == {name for name in before if ".lora_" in name}
    layers = {name.rsplit(".lora_", 1)[0] for name in changed}
    assert len(layers) == len(LoraTraining().targets)  # one block of each kind
    names = {name.split("/", 1)[0] for name in trainer.tensors()}
    assert names == {"model", "ema", "optimizer"}
    assert all(".lora_" in name for name in trainer.tensors())


def test_adapters_learn(base: Path, manifest: str, tmp_path: Path) -> None:
    fixed = {"sample_posterior": False}
    trainer = _trainer(base, manifest, tmp_path, steps=24, dit=fixed)
    trainer.run()
    losses = [row["loss"] for row in metrics(tmp_path)]
    assert sum(losses[-6:]) < 0.9 * sum(losses[:6])


def test_merged_weights_do_what_base_and_adapters_do(adapted: Path, base: Path) -> None:
    from peft import PeftModel

    _, merged = read_final(adapted / "final")
    _, plain = read_final(base / "final")
    inputs = _inputs(merged)
    wanted = _output(merged, inputs)
    before = _output(plain, inputs)
    assert (wanted - before).abs().max() > 1e-2
    with_adapters = PeftModel.from_pretrained(plain, str(adapted / "final" / "adapter"))
    torch.testing.assert_close(_output(with_adapters, inputs), wanted, atol=1e-5, rtol=0)
    _, applied = read_final(base / "final")
    apply_adapter(applied, adapted / "final" / "adapter")
    torch.testing.assert_close(_output(applied, inputs), wanted, atol=1e-5, rtol=0)
    assert applied.state_dict().keys() == merged.state_dict().keys()


def test_a_folder_is_the_same_each_time_it_is_written(
    adapted: Path, base: Path, manifest: str
) -> None:
    folder = adapted / "final" / "adapter"
    before = {path.name: path.read_bytes() for path in folder.iterdir()}
    assert before.keys() == {"adapter_config.json", "adapter_model.safetensors", "base.json"}
    _trainer(base, manifest, adapted, steps=4).run()
    assert {path.name: path.read_bytes() for path in folder.iterdir()} == before


def test_stopped_and_resumed_is_undisturbed_bitwise(
    base: Path, manifest: str, adapted: Path, tmp_path: Path
) -> None:
    _trainer(base, manifest, tmp_path, steps=4, checkpoint={"every": 2}).run()
    again = tmp_path / "again"
    again.mkdir()
    # As a kill after step 2 leaves it.
    (again / "checkpoints").mkdir()
    (tmp_path / "checkpoints" / "step-00000002").rename(again / "checkpoints/step-00000002")
    resumed = _trainer(base, manifest, again, steps=4)
    assert resumed.step == 2
    resumed.run()
    assert checkpoint_bits(again, 4) == checkpoint_bits(adapted, 4)


def _first_gradients(trainer: Trainer) -> Tensor:
    batches = BatchStream(open_corpus(trainer.config.data), trainer.config).batches(0)
    parts = trainer._parts(next(batches))
    batches.close()
    for part in parts:
        trainer.task.gradients(part, step=0, last=part is parts[-1])
    parameters = dict(trainer.task.networks["model"].named_parameters())
    found = [p.grad for name, p in parameters.items() if ".lora_B." in name and p.grad is not None]
    assert len(found) == len(parameters) / 2
    return torch.cat([gradient.flatten() for gradient in found])


def test_dropout_follows_the_sample_not_the_part_it_comes_in(
    base: Path, manifest: str, tmp_path: Path
) -> None:
    in_parts = {"micro_batch": 1, "activation_checkpointing": "full"}
    whole, parts = (
        _first_gradients(_trainer(base, manifest, tmp_path / name, compute=compute))
        for name, compute in (("whole", {}), ("parts", in_parts))
    )
    torch.testing.assert_close(parts, whole, rtol=1e-3, atol=1e-4 * float(whole.abs().max()))
    plain = _first_gradients(
        _trainer(base, manifest, tmp_path / "plain", lora={**_LORA, "dropout": 0.0})
    )
    assert (plain - whole).norm() > 0.1 * whole.norm()


def test_without_a_base_or_with_another_there_is_one_line(
    base: Path, manifest: str, adapted: Path, tmp_path: Path
) -> None:
    config = config_of(DIT, manifest, lora=_LORA)
    with pytest.raises(ConfigError, match="lora adapts a trained network: give --init-from"):
        make_trainer(config, tmp_path)
    with pytest.raises(
        CheckpointError,
        match=r"lora_base_fingerprint = '\w+' \(.*model\.safetensors\), this run has '\w+' \(.*ema",
    ) as caught:
        _trainer(adapted, manifest, adapted, steps=5)
    assert "\n" not in str(caught.value)
    moved = tmp_path / "moved.safetensors"
    moved.symlink_to(base / "final" / "model.safetensors")
    assert _trainer(moved, manifest, adapted, steps=4).step == 4


def test_an_adapter_samples_over_its_base(base: Path, adapted: Path) -> None:
    request = SampleRequest(prompt="a", height=32, width=32, num_frames=5, num_steps=2)
    merged = Sampler.load(adapted / "final").latent(request)
    over = Sampler.load(base / "final", lora=adapted / "final" / "adapter").latent(request)
    torch.testing.assert_close(over, merged, atol=1e-4, rtol=0)
    rounded = Sampler.load(base / "final", lora=adapted / "final" / "adapter", dtype=torch.bfloat16)
    assert {p.dtype for p in rounded.dit.parameters()} == {torch.bfloat16}


@pytest.mark.parametrize(
    ("damage", "said"),
    [
        ("none", "was trained on the network"),
        ("no card", None),
        ("rank", r"lora_A\.weight is \(2, 16\) there, \(3, 16\) in this network"),
        ("layer", "lora_A.weight is missing there"),
        ("kind", "type LOHA, not LoRA"),
        ("nothing", "does not fit: Target modules"),
        ("no config", "is no adapter: it has no adapter_config.json"),
    ],
)
def test_an_adapter_that_does_not_fit_is_refused_in_one_line(
    damage: str, said: str | None, adapted: Path, tmp_path: Path
) -> None:
    for path in (adapted / "final" / "adapter").iterdir():
        (tmp_path / path.name).write_bytes(path.read_bytes())
    if damage != "none":
        (tmp_path / "base.json").unlink()
    config_file = tmp_path / "adapter_config.json"
    content = json.loads(config_file.read_text())
    if damage == "rank":
        content["r"] = 3
    elif damage == "layer":
        content["target_modules"] += ["modulation.linear"]
    elif damage == "kind":
        content = {"peft_type": "LOHA", "target_modules": ["linear1"]}
    elif damage == "nothing":
        content["target_modules"] = ["q_proj"]
    config_file.write_text(json.dumps(content))
    if damage == "no config":
        config_file.unlink()
    _, network = read_final(adapted / "final")
    if said is None:
        apply_adapter(network, tmp_path)
        return
    with pytest.raises((ValueError, FileNotFoundError), match=said) as caught:
        apply_adapter(network, tmp_path)
    assert "\n" not in str(caught.value)


def test_a_checkpoint_of_adapters_is_not_evaluated_as_a_network(adapted: Path) -> None:
    with pytest.raises(EvaluationError, match="adapters of a LoRA run alone: give the run's final"):
        load_subject(adapted / "checkpoints" / "step-00000004", torch.device("cpu"))


def test_costs_are_those_of_the_network() -> None:
    config = DIT_CONFIGS["tiny"].model_copy(update={"num_layers": 3, "num_single_layers": 6})
    lora = LoraTraining(rank=2, targets=(*LoraTraining().targets, "img_mod.linear"))
    network = VideoDiT(config)
    adapter = LoraDit(network, lora, base=None, seed=0).adapter
    trained = [p for p in network.parameters() if p.requires_grad]
    assert {id(p) for p in trained} == {id(p) for p in adapter.parameters()}
    assert num_lora_parameters(config, lora) == sum(p.numel() for p in trained)
    bucket, num_text = Bucket.from_name("f005_128x128"), 64
    x = torch.randn(1, config.in_channels, 2, 16, 16)
    with (
        torch.nn.attention.sdpa_kernel(torch.nn.attention.SDPBackend.MATH),
        FlopCounterMode(display=False) as counter,
    ):
        out = network.train()(
            x,
            torch.tensor([0.5]),
            torch.randn(1, num_text, config.text_embed_dim),
            torch.tensor([num_text]),
            torch.randn(1, config.pooled_projection_dim),
            torch.tensor([6.0]) if config.guidance_embeds else None,
        )
        out.sum().backward()
    counted = counter.get_total_flops()
    # What lies before the first adapter takes no gradient; the formula does not know it.
    assert counted < cost.dit_step_flops(config, bucket, num_text, lora) < 1.1 * counted
    memory = [
        cost.dit_memory(
            config,
            num_parameters(config),
            num_tokens=0,
            checkpointing="off",
            value_bytes=4,
            has_ema=True,
            lora=each,
        ).weights
        for each in (None, lora)
    ]
    assert memory[1] == 4 * num_parameters(config) + 20 * num_lora_parameters(config, lora)
    assert memory[0] == 20 * num_parameters(config)


def test_the_base_is_known_by_its_weights(adapted: Path, base: Path) -> None:
    card = json.loads((adapted / "final" / "adapter" / "base.json").read_text())
    assert card["base_fingerprint"] == model_fingerprint(read_final(base / "final")[1])
    assert card["step"] == 4
