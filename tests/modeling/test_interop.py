import json
import pickle
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file
from torch import Tensor, nn

from modeling.dit import VideoDiT
from modeling.fingerprint import model_fingerprint
from modeling.interop import from_diffusers, from_original, to_diffusers, to_original
from modeling.interop_keys import dit_tensor_maps
from modeling.vae import CausalVAE
from tests.modeling.random_networks import (
    TINY_DIT,
    TINY_VAE,
    diffusers_dit,
    diffusers_vae,
    draw,
    randomize,
)

PER_FRAME = TINY_VAE.model_copy(update={"per_frame_norm": True})


def networks() -> list[CausalVAE | VideoDiT]:
    return [randomize(VideoDiT(TINY_DIT)), randomize(CausalVAE(TINY_VAE))]


def assert_equal(found: nn.Module, expected: nn.Module) -> None:
    values = found.state_dict()
    assert values.keys() == expected.state_dict().keys()
    for name, value in expected.state_dict().items():
        assert values[name].dtype == value.dtype, name
        assert torch.equal(values[name], value), name


@pytest.mark.parametrize("model", networks(), ids=["dit", "vae"])
@pytest.mark.parametrize("max_shard_bytes", [10**9, 100_000])
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_both_layouts_come_back_without_a_difference(
    model: CausalVAE | VideoDiT, max_shard_bytes: int, dtype: torch.dtype, tmp_path: Path
) -> None:
    model = model.to(dtype)
    to_diffusers(model, tmp_path / "d", max_shard_bytes=max_shard_bytes)
    found = from_diffusers(tmp_path / "d")
    assert found.config == model.config
    assert_equal(found, model)
    file = tmp_path / "o" / "model.safetensors"
    to_original(model, file, max_shard_bytes=max_shard_bytes)
    assert_equal(from_original(file, model.config), model)
    num_files = len(list(tmp_path.glob("*/*.safetensors")))
    assert num_files == 2 if max_shard_bytes == 10**9 else num_files > 6
    model.to(torch.float32)


@pytest.mark.parametrize("max_shard_bytes", [10**9, 100_000])
def test_diffusers_loads_what_we_write(max_shard_bytes: int, tmp_path: Path) -> None:
    vae, dit = randomize(CausalVAE(TINY_VAE)), randomize(VideoDiT(TINY_DIT))
    to_diffusers(vae, tmp_path / "vae", max_shard_bytes=max_shard_bytes)
    to_diffusers(dit, tmp_path / "dit", max_shard_bytes=max_shard_bytes)
    loaded_vae = type(diffusers_vae(TINY_VAE)).from_pretrained(tmp_path / "vae")
    values = loaded_vae.state_dict()
    assert all(torch.equal(values[name], value) for name, value in vae.state_dict().items())
    values = type(diffusers_dit(TINY_DIT)).from_pretrained(tmp_path / "dit").state_dict()
    state = dit.state_dict()
    for each in dit_tensor_maps(TINY_DIT):
        cut = torch.cat([state[each.original][start:end] for start, end in each.rows])
        assert torch.equal(values.pop(each.name), cut), each.name
    assert values == {}


@pytest.mark.parametrize("max_shard_size", ["1GB", "100KB"])
def test_we_load_what_diffusers_writes(max_shard_size: str, tmp_path: Path) -> None:
    for theirs in (diffusers_vae(TINY_VAE), diffusers_dit(TINY_DIT)):
        folder = tmp_path / type(theirs).__name__
        randomize(theirs).save_pretrained(folder, max_shard_size=max_shard_size)
        model = from_diffusers(folder)
        assert isinstance(model, CausalVAE | VideoDiT)
        to_diffusers(model, tmp_path / "again", max_shard_bytes=10**9)
        again = load_file(tmp_path / "again" / "diffusion_pytorch_model.safetensors")
        expected = theirs.state_dict()
        assert again.keys() == expected.keys()
        assert all(torch.equal(again[name], value) for name, value in expected.items())


def test_every_original_row_is_used_once() -> None:
    shapes = {name: tensor.shape for name, tensor in VideoDiT(TINY_DIT).state_dict().items()}
    rows: dict[str, list[int]] = {name: [] for name in shapes}
    for each in dit_tensor_maps(TINY_DIT):
        for start, end in each.rows:
            rows[each.original] += range(start, end)
    assert all(sorted(rows[name]) == list(range(shape[0])) for name, shape in shapes.items())


def test_saving_again_in_another_number_of_shards_leaves_one_truth(tmp_path: Path) -> None:
    first, second = randomize(CausalVAE(TINY_VAE), 1), randomize(CausalVAE(TINY_VAE), 2)
    to_diffusers(first, tmp_path, max_shard_bytes=100_000)
    to_diffusers(second, tmp_path)
    assert_equal(from_diffusers(tmp_path), second)
    to_diffusers(first, tmp_path, max_shard_bytes=100_000)
    assert_equal(from_diffusers(tmp_path), first)


def test_a_vae_with_a_norm_that_diffusers_lacks_stays_with_us(tmp_path: Path) -> None:
    vae = randomize(CausalVAE(PER_FRAME))
    to_diffusers(vae, tmp_path)
    found = from_diffusers(tmp_path)
    assert found.config == PER_FRAME
    assert_equal(found, vae)
    diffusers_class = type(diffusers_vae(TINY_VAE))
    with pytest.raises(OSError, match="diffusion_pytorch_model"):
        diffusers_class.from_pretrained(tmp_path)


def test_the_type_can_be_chosen_while_loading(tmp_path: Path) -> None:
    dit = randomize(VideoDiT(TINY_DIT))
    to_diffusers(dit, tmp_path)
    found = from_diffusers(tmp_path, dtype=torch.bfloat16)
    assert_equal(found, dit.bfloat16())


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda t: t.pop("time_in.mlp.0.bias"), r"1 missing: time_in.mlp.0.bias \(32,\)"),
        (lambda t: t.update(extra=torch.zeros(2)), r"1 unexpected: extra \(2,\)"),
        (
            lambda t: t.update({"time_in.mlp.0.bias": torch.zeros(31)}),
            r"1 misshapen: time_in.mlp.0.bias \(31,\) instead of \(32,\)",
        ),
    ],
)
@pytest.mark.parametrize("suffix", [".safetensors", ".pt"])
def test_tensors_that_do_not_fit_are_named(
    change: Callable[[dict[str, Tensor]], Any], message: str, suffix: str, tmp_path: Path
) -> None:
    tensors = dict(VideoDiT(TINY_DIT).state_dict())
    change(tensors)
    file = tmp_path / f"model{suffix}"
    if suffix == ".pt":
        torch.save({"module": tensors}, file)
    else:
        save_file(tensors, file)
    with pytest.raises(ValueError, match=message):
        from_original(file, TINY_DIT)


def test_missing_and_misshapen_tensors_of_a_folder_are_named_together(tmp_path: Path) -> None:
    to_diffusers(VideoDiT(TINY_DIT), tmp_path)
    file = tmp_path / "diffusion_pytorch_model.safetensors"
    tensors = load_file(file)
    del tensors["single_transformer_blocks.0.attn.to_q.weight"]
    tensors["proj_out.bias"] = torch.zeros(3)
    save_file(tensors, file)
    with pytest.raises(ValueError, match=r"1 missing: single_.*to_q.*1 misshapen: proj_out.bias"):
        from_diffusers(tmp_path)


@pytest.mark.parametrize("container", ["module", "ema", "state_dict", None])
def test_released_pickles_of_tensors_are_read(container: str | None, tmp_path: Path) -> None:
    vae = randomize(CausalVAE(TINY_VAE))
    tensors = {f"vae.{name}": value for name, value in vae.state_dict().items()}
    torch.save(tensors if container is None else {container: tensors}, tmp_path / "vae.pt")
    assert_equal(from_original(tmp_path / "vae.pt", TINY_VAE), vae)


class Malicious:
    def __reduce__(self) -> Any:
        return (Path.touch, (Path("ran"),))


@pytest.mark.parametrize("save", [torch.save, lambda x, f: f.write_bytes(pickle.dumps(x))])
def test_pickles_that_would_run_code_are_refused(
    save: Callable[[Any, Path], Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    save({"module": Malicious()}, tmp_path / "model.pt")
    with pytest.raises(ValueError, match=r"model.pt (holds Python objects|is not a checkpoint)"):
        from_original(tmp_path / "model.pt", TINY_DIT)
    assert not (tmp_path / "ran").exists()


def test_files_that_are_no_checkpoints_are_refused(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError, match="no checkpoint at"):
        from_original(tmp_path / "model.safetensors", TINY_DIT)
    (tmp_path / "model.safetensors").write_bytes(b"junk and more junk")
    with pytest.raises(ValueError, match="is not a safetensors file"):
        from_original(tmp_path / "model.safetensors", TINY_DIT)
    (tmp_path / "model.onnx").write_bytes(b"")
    with pytest.raises(ValueError, match="weights-only pickle, got"):
        from_original(tmp_path / "model.onnx", TINY_DIT)
    with pytest.raises(ValueError, match=r"must end in \.safetensors"):
        to_original(VideoDiT(TINY_DIT), tmp_path / "model.pt")


@pytest.mark.parametrize(
    ("weight_map", "error", "message"),
    [
        ({"a": "../secret.safetensors"}, ValueError, "points outside its folder"),
        ({"a": "lost.safetensors"}, FileNotFoundError, "names lost.safetensors"),
        (None, ValueError, "is not an index of shards"),
    ],
)
def test_a_bad_index_is_refused(
    weight_map: Any, error: type[Exception], message: str, tmp_path: Path
) -> None:
    index = tmp_path / "model.safetensors.index.json"
    index.write_text(json.dumps({"weight_map": weight_map}))
    with pytest.raises(error, match=message):
        from_original(index, TINY_DIT)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"_class_name": "WanTransformer3DModel"}, "names the class 'WanTransformer3DModel'"),
        ({"image_condition_type": "token_replace"}, "image_condition_type"),
        ({"unheard_of": 1}, "unheard_of"),
    ],
)
def test_folders_of_other_networks_are_refused(
    changes: dict[str, Any], message: str, tmp_path: Path
) -> None:
    to_diffusers(VideoDiT(TINY_DIT), tmp_path)
    config = tmp_path / "config.json"
    config.write_text(json.dumps(json.loads(config.read_text()) | changes))
    with pytest.raises(ValueError, match=message):
        from_diffusers(tmp_path)


def anonymous_bytes() -> int:
    """Memory of this process that is not a mapping of a file."""
    lines = Path("/proc/self/status").read_text().splitlines()
    (line,) = (line for line in lines if line.startswith("RssAnon:"))
    return int(line.split()[1]) * 1024


def peak_growth(action: Callable[[], Any]) -> int:
    """Peak of the anonymous memory during the action, above the start, sampled each millisecond."""
    before = peak = anonymous_bytes()
    stop = threading.Event()

    def watch() -> None:
        nonlocal peak
        while not stop.is_set():
            peak = max(peak, anonymous_bytes())
            time.sleep(0.001)

    thread = threading.Thread(target=watch, daemon=True)
    thread.start()
    result = action()
    stop.set()
    thread.join()
    del result
    return peak - before


@pytest.mark.skipif(not Path("/proc/self/status").exists(), reason="reads /proc")
def test_memory_stays_near_one_copy_of_the_model(tmp_path: Path) -> None:
    """Largest tensor: 1/20 of the model. Twice its size would be 2.0."""
    config = TINY_DIT.model_copy(
        update={
            "num_attention_heads": 16,
            "attention_head_dim": 16,
            "num_layers": 12,
            "num_single_layers": 12,
        }
    )
    model = VideoDiT(config)
    size = sum(p.numel() * p.element_size() for p in model.parameters())
    assert size > 150e6
    assert peak_growth(lambda: to_diffusers(model, tmp_path)) < 0.2 * size
    assert peak_growth(lambda: to_original(model, tmp_path / "m.safetensors")) < 0.2 * size
    assert 0.7 * size < peak_growth(lambda: from_diffusers(tmp_path)) < 1.3 * size
    assert peak_growth(lambda: from_original(tmp_path / "m.safetensors", config)) < 1.3 * size


def test_fingerprints_tell_networks_apart() -> None:
    vae = randomize(CausalVAE(TINY_VAE))
    same = randomize(CausalVAE(TINY_VAE))
    assert model_fingerprint(vae) == model_fingerprint(same)
    assert model_fingerprint(randomize(CausalVAE(PER_FRAME))) != model_fingerprint(vae)
    with torch.no_grad():
        same.post_quant_conv.weight[0] += 1e-3
    assert model_fingerprint(same) != model_fingerprint(vae)
    latent = draw(1, 4, 1, 2, 2)
    assert not torch.equal(vae.decode(latent), same.decode(latent))
