import json
from pathlib import Path
from typing import Literal

import av
import numpy as np
import pytest
import torch
from pydantic import ValidationError
from safetensors.torch import load_file, save_file
from typer.testing import CliRunner

from modeling.dit import DiTConfig, VideoDiT
from modeling.final_folder import FinalConfig, read_final, read_vae, write_final
from modeling.fingerprint import model_fingerprint
from modeling.flow_matching import integrate, sampling_sigmas
from modeling.interop import to_diffusers
from modeling.sample import app, parse_size
from modeling.sampler import Sampler, SampleRequest
from modeling.text_encoder import TextEncoder, TextEncoderConfig
from modeling.vae import VAE_CONFIGS, CausalVAE

_TEXT = TextEncoderConfig(states="byte", pooled="byte", max_tokens=64)


def _dit_config(*, guidance_embeds: bool) -> DiTConfig:
    return DiTConfig(
        in_channels=4,
        out_channels=4,
        num_attention_heads=2,
        attention_head_dim=16,
        rope_axes_dim=(4, 6, 6),
        num_layers=1,
        num_single_layers=1,
        guidance_embeds=guidance_embeds,
        text_embed_dim=32,
        pooled_projection_dim=32,
    )


def _randomized(network: torch.nn.Module) -> None:
    generator = torch.Generator().manual_seed(0)
    with torch.no_grad():
        for parameter in network.parameters():
            parameter.copy_(torch.randn(parameter.shape, generator=generator) * 0.1)


def _write_checkpoint(folder: Path, *, guidance_embeds: bool = False) -> Path:
    vae = CausalVAE(VAE_CONFIGS["tiny"])
    model = VideoDiT(_dit_config(guidance_embeds=guidance_embeds))
    _randomized(vae)
    _randomized(model)
    to_diffusers(vae, folder / "vae")
    config = FinalConfig(
        model=model.config,
        vae_folder=folder / "vae",
        vae_fingerprint=model_fingerprint(vae),
        text_encoder=_TEXT,
        text_encoder_fingerprint=TextEncoder(_TEXT).fingerprint,
    )
    write_final(folder / "final", config, model)
    return folder / "final"


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return _write_checkpoint(tmp_path_factory.mktemp("run"))


_SMALL = SampleRequest(prompt="a dog", height=32, width=48, num_frames=5, num_steps=3)


def _run(checkpoint: Path, out: Path, *extra: str) -> tuple[int, str]:
    arguments = ["--checkpoint", str(checkpoint), "--prompt", "a dog", "--out", str(out)]
    sizes = [] if "--size" in extra else ["--size", "32x48"]
    result = CliRunner().invoke(app, [*arguments, *sizes, "--steps", "2", *extra])
    return result.exit_code, result.output


def test_the_command_writes_a_video_of_the_asked_size(checkpoint: Path, tmp_path: Path) -> None:
    out = tmp_path / "x.mp4"
    code, output = _run(checkpoint, out, "--frames", "9", "--fps", "12")
    assert code == 0, output
    with av.open(str(out)) as container:
        frames = [frame.to_ndarray(format="rgb24") for frame in container.decode(video=0)]
        assert container.streams.video[0].average_rate == 12
    assert len(frames) == 9
    assert frames[0].shape == (32, 48, 3)


def test_the_command_writes_an_image_and_the_same_seed_gives_the_same_bytes(
    checkpoint: Path, tmp_path: Path
) -> None:
    files = [tmp_path / f"{name}.png" for name in "abc"]
    for file, seed in zip(files, ("4", "4", "5"), strict=True):
        code, output = _run(checkpoint, file, "--seed", seed)
        assert code == 0, output
    assert files[0].read_bytes() == files[1].read_bytes() != files[2].read_bytes()


def test_the_same_seed_gives_the_same_video_bytes(checkpoint: Path, tmp_path: Path) -> None:
    files = [tmp_path / f"{name}.mp4" for name in "ab"]
    for file in files:
        assert _run(checkpoint, file, "--frames", "5")[0] == 0
    assert files[0].read_bytes() == files[1].read_bytes()


def test_the_latent_is_the_integral_of_the_models_velocity(checkpoint: Path) -> None:
    sampler = Sampler.load(checkpoint)
    request = _SMALL.model_copy(update={"cfg_scale": 1.0})
    noise = torch.randn((1, 4, 2, 4, 6), generator=torch.Generator().manual_seed(0))
    text = sampler.text_encoder(["a dog"])
    expected = integrate(
        lambda x, sigma: sampler.dit(
            x, torch.tensor([sigma]), text.states_BLD, text.lengths_B, text.pooled_BD
        ),
        noise,
        sampling_sigmas(3),
    )
    scale = VAE_CONFIGS["tiny"].scaling_factor
    torch.testing.assert_close(sampler.latent(request), expected / scale)


def test_guidance_of_scale_zero_is_the_negative_prompt_alone(checkpoint: Path) -> None:
    sampler = Sampler.load(checkpoint)
    changes = {"cfg_scale": 0.0, "negative_prompt": "a cat"}
    unguided = sampler.latent(_SMALL.model_copy(update=changes))
    other = SampleRequest.model_validate(
        _SMALL.model_dump() | {"prompt": "a cat", "cfg_scale": 1.0}
    )
    torch.testing.assert_close(unguided, sampler.latent(other), atol=1e-5, rtol=1e-4)


def test_guidance_defaults_follow_the_kind_of_model(checkpoint: Path, tmp_path: Path) -> None:
    assert Sampler.load(checkpoint).cfg_scale(_SMALL) == 6
    distilled = Sampler.load(_write_checkpoint(tmp_path, guidance_embeds=True))
    assert distilled.cfg_scale(_SMALL) == 1
    low, high = (
        distilled.latent(_SMALL.model_copy(update={"guidance": scale})) for scale in (1.0, 6.0)
    )
    assert not torch.allclose(low, high)


def test_large_samples_are_decoded_in_tiles_and_the_setting_is_put_back(checkpoint: Path) -> None:
    sampler = Sampler.load(checkpoint)
    latent = torch.randn(1, 4, 6, 6, 36, generator=torch.Generator().manual_seed(0))
    pieces = list(sampler.frames(latent))
    assert len(pieces) > 1
    assert torch.cat(pieces).shape == (21, 48, 288, 3)
    assert sampler.vae.tiling is None


def test_averaged_weights_are_preferred(tmp_path: Path, checkpoint: Path) -> None:
    config, model = read_final(checkpoint)
    averaged = VideoDiT(model.config)
    _randomized(averaged)
    with torch.no_grad():
        averaged.final_layer.linear.bias.fill_(3)
    write_final(tmp_path, config, model, averaged)
    _, read = read_final(tmp_path)
    assert model_fingerprint(read) == model_fingerprint(averaged) != model_fingerprint(model)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"height": 40}, "multiples of 16, got 40x48"),
        ({"num_frames": 6}, r"4n \+ 1, got 6"),
        ({"prompt": " "}, "prompt is empty"),
        ({"num_steps": 0}, "greater than 0"),
    ],
)
def test_impossible_requests_are_refused(changes: dict[str, object], message: str) -> None:
    with pytest.raises(ValidationError, match=message):
        SampleRequest.model_validate(_SMALL.model_dump() | changes)


@pytest.mark.parametrize(
    ("name", "extra", "message"),
    [
        ("x.mp4", ("--size", "40x48"), "multiples of 16, got 40x48"),
        ("x.mp4", ("--size", "big"), "HEIGHTxWIDTH"),
        ("x.mp4", ("--frames", "8"), "4n + 1, got 8"),
        ("x.png", ("--frames", "5"), "one frame, got --frames 5"),
        ("x.gif", (), "must end in .mp4 or .png"),
    ],
)
def test_the_command_says_in_one_line_what_is_wrong(
    checkpoint: Path, tmp_path: Path, name: str, extra: tuple[str, ...], message: str
) -> None:
    code, output = _run(checkpoint, tmp_path / name, *extra)
    assert code == 2
    assert output.startswith("error: ")
    assert message in output
    assert output.count("\n") == 1
    assert not (tmp_path / name).exists()


@pytest.mark.parametrize(("origin", "num_warnings"), [("untrained", 1), ("given", 0)])
def test_samples_behind_an_untrained_vae_come_with_one_line_of_warning(
    checkpoint: Path, tmp_path: Path, origin: Literal["untrained", "given"], num_warnings: int
) -> None:
    config, model = read_final(checkpoint)
    write_final(tmp_path, config.model_copy(update={"vae_origin": origin}), model)
    code, output = _run(tmp_path, tmp_path / "x.png")
    assert code == 0
    assert (tmp_path / "x.png").is_file()
    lines = [line for line in output.splitlines() if line.startswith("warning: ")]
    assert len(lines) == num_warnings
    assert all("untrained VAE" in line for line in lines)


def test_another_vae_than_that_of_the_latents_is_refused(checkpoint: Path, tmp_path: Path) -> None:
    to_diffusers(CausalVAE(VAE_CONFIGS["tiny"]), tmp_path / "other")
    code, output = _run(checkpoint, tmp_path / "x.png", "--vae", str(tmp_path / "other"))
    assert code == 2
    assert "the VAE in" in output
    assert "but the latents were made with" in output


def test_another_text_encoder_is_refused(checkpoint: Path, tmp_path: Path) -> None:
    config, model = read_final(checkpoint)
    changed = config.model_copy(update={"text_encoder_fingerprint": "0" * 16})
    write_final(tmp_path, changed, model)
    code, output = _run(tmp_path, tmp_path / "x.png")
    assert code == 2
    assert "0000000000000000" in output


def test_widths_that_differ_are_refused(checkpoint: Path) -> None:
    sampler = Sampler.load(checkpoint)
    vae = CausalVAE(VAE_CONFIGS["tiny"].model_copy(update={"latent_channels": 8}))
    with pytest.raises(ValueError, match="latent channels of VAE and DiT differ: 8 and 4"):
        Sampler(sampler.dit, vae, sampler.text_encoder)


def test_a_folder_without_a_checkpoint_is_refused(tmp_path: Path) -> None:
    code, output = _run(tmp_path, tmp_path / "x.png")
    assert code == 2
    assert "is no checkpoint" in output


@pytest.mark.parametrize("damage", ["missing", "extra", "misshapen"])
def test_damaged_weights_are_named(checkpoint: Path, tmp_path: Path, damage: str) -> None:
    config, model = read_final(checkpoint)
    write_final(tmp_path, config, model)
    file = tmp_path / "model.safetensors"
    tensors = load_file(file)
    bias = tensors.pop("final_layer.linear.bias")
    if damage != "missing":
        name = "surplus" if damage == "extra" else "final_layer.linear.bias"
        tensors[name] = bias[:-1].clone()
        if damage == "extra":
            tensors["final_layer.linear.bias"] = bias
    save_file(tensors, file)
    code, output = _run(tmp_path, tmp_path / "x.png")
    assert code == 2
    assert ("surplus" if damage == "extra" else "final_layer.linear.bias") in output


def test_the_diffusers_copy_of_a_checkpoint_can_be_sampled(
    checkpoint: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "transformer").symlink_to(checkpoint / "diffusers")
    (tmp_path / "vae").symlink_to(checkpoint.parent / "vae")
    byte_encoder = TextEncoder(_TEXT)
    monkeypatch.setattr("modeling.sampler.TextEncoder", lambda config, device: byte_encoder)
    ours, theirs = Sampler.load(checkpoint), Sampler.load(tmp_path)
    assert torch.equal(ours.latent(_SMALL), theirs.latent(_SMALL))


def test_config_names_model_vae_and_text_encoder(checkpoint: Path) -> None:
    content = json.loads((checkpoint / "config.json").read_text())
    assert content["model"]["num_attention_heads"] == 2
    assert content["vae_fingerprint"] == model_fingerprint(read_vae(checkpoint.parent / "vae"))
    assert content["text_encoder"]["states"] == "byte"


def test_sizes_are_height_times_width() -> None:
    assert parse_size("256x384") == (256, 384)


def test_frames_are_levels_of_the_decoded_video(checkpoint: Path) -> None:
    sampler = Sampler.load(checkpoint)
    latent = sampler.latent(_SMALL)
    frames_THWC = torch.cat(list(sampler.frames(latent))).numpy()
    video_CTHW = sampler.vae.decode(latent)[0].clamp(-1, 1).numpy()
    expected_THWC = np.round((video_CTHW.transpose(1, 2, 3, 0) + 1) * 127.5)
    np.testing.assert_array_equal(frames_THWC, expected_THWC.astype(np.uint8))
