"""Figures of `modeling.evaluate`: truth by construction, and the same twice."""

import math
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from typer.testing import CliRunner

from modeling.data.corpus import ShardCorpus
from modeling.data.view import ViewConfig
from modeling.evaluate.__main__ import app
from modeling.evaluate.dit_loss import binned_losses
from modeling.evaluate.fidelity import flicker, measure, psnr_db, ssim
from modeling.evaluate.report import EvaluationConfig, Report
from modeling.evaluate.run import evaluate
from modeling.evaluate.samples import SampleChoice
from modeling.evaluate.subject import DitSubject, load_subject
from modeling.train.parts import to_video
from tests.modeling.data.shards import key_of, write_shards
from tests.modeling.train import runs

CPU = torch.device("cpu")
FEW = EvaluationConfig(num_per_bucket=2, num_bins=4)


@pytest.fixture(scope="module")
def manifest(tmp_path_factory: pytest.TempPathFactory) -> str:
    return write_shards(tmp_path_factory.mktemp("shards"), {"f001_32x32": 2, "f005_32x32": 3})


def trained(kind: dict[str, Any], manifest: str, out: Path) -> Path:
    """A run of two steps; its folder. config.json lies in it, as the command line leaves it."""
    trainer = runs.make_trainer(runs.config_of(kind, manifest, steps=2), out)
    trainer.run()
    return out


@pytest.fixture(scope="module")
def dit_run(manifest: str, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return trained(runs.DIT, manifest, tmp_path_factory.mktemp("dit"))


@pytest.fixture(scope="module")
def vae_run(manifest: str, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return trained(runs.VAE, manifest, tmp_path_factory.mktemp("vae"))


class Oracle(nn.Module):
    """Knows the data, so it knows the velocity: x = (1 - s) data + s noise."""

    def __init__(self, config: object, data: Tensor, error: float) -> None:
        super().__init__()
        self.config, self.data, self.error = config, data, error
        self.weight = nn.Parameter(torch.zeros(1))
        self.sigmas: list[float] = []

    def forward(self, x: Tensor, sigma_B: Tensor, *conditions: object) -> Tensor:
        self.sigmas.append(float(sigma_B))
        return (x - self.data) / sigma_B.view(-1, 1, 1, 1, 1) + self.error


def test_the_loss_is_the_error_of_the_velocity_in_every_bin(dit_run: Path, manifest: str) -> None:
    subject = load_subject(dit_run / "final", CPU)
    assert isinstance(subject, DitSubject)
    corpus = ShardCorpus.open([manifest])
    choice = SampleChoice(corpus, ViewConfig(), num_per_bucket=1, seed=0, vae=None)
    bucket = choice.buckets[0]
    [sample] = choice.samples(bucket)
    with torch.no_grad():
        latent = subject.vae.encode(to_video(sample.tensors["pixels"], CPU)).mean
    data = latent * subject.vae.config.scaling_factor
    config = subject.networks["raw"].config
    oracles = {"right": Oracle(config, data, 0.0), "off": Oracle(config, data, 0.5)}
    made: Any = oracles
    known = DitSubject(made, subject.vae, subject.text_encoder, {}, 0)
    found = binned_losses(known, [sample], bucket, num_bins=4, seed=0, dtype=torch.float32)
    assert found["right"].loss_by_bin == pytest.approx([0.0] * 4, abs=1e-5)
    assert found["off"].loss_by_bin == pytest.approx([0.25] * 4, abs=1e-4)
    assert [math.floor(sigma * 4) for sigma in oracles["right"].sigmas] == [0, 1, 2, 3]
    assert oracles["right"].sigmas == oracles["off"].sigmas


def test_a_shift_of_levels_and_a_flicker_are_measured_as_such() -> None:
    video_CTHW = torch.randint(20, 200, (3, 4, 16, 16)).float()
    shifted = video_CTHW + 10
    assert psnr_db(video_CTHW, shifted) == pytest.approx(20 * math.log10(255 / 10))
    assert flicker(video_CTHW, shifted) == 0
    assert ssim(video_CTHW, video_CTHW) == pytest.approx(1)
    flickering = video_CTHW + torch.tensor([0.0, 6, 0, 6]).view(1, 4, 1, 1)
    assert flicker(video_CTHW, flickering) == pytest.approx(6)


def test_a_perfect_autoencoder_has_no_error() -> None:
    videos = [torch.rand(1, 3, 5, 16, 16) * 2 - 1, torch.rand(1, 3, 1, 16, 16) * 2 - 1]
    found = measure(lambda video: video, videos)
    assert (found.num_clips, found.psnr_db, found.flicker) == (2, 100, 0)


@pytest.mark.parametrize("run", ["dit_run", "vae_run"])
def test_a_checkpoint_and_the_final_folder_of_its_step_are_the_same(
    run: str, manifest: str, tmp_path: Path, request: pytest.FixtureRequest
) -> None:
    folder: Path = request.getfixturevalue(run)
    [checkpoint] = (folder / "checkpoints").glob("step-*")
    found = [
        evaluate(place, [manifest], tmp_path / place.name, FEW, device=CPU)
        for place in (folder / "final", checkpoint)
    ]
    assert found[0] == found[1]
    assert set(found[0].losses or found[0].fidelity) == {"raw", "ema"}
    assert found[0].step == 2
    if run == "vae_run":  # the last stage sees five frames; images stay apart
        assert set(found[0].fidelity["raw"]) == {"f001_32x32", "f005_32x32"}


def test_the_same_input_gives_the_same_bytes(vae_run: Path, manifest: str, tmp_path: Path) -> None:
    for name in ("a", "b"):
        evaluate(vae_run / "final", [manifest], tmp_path / name, FEW, device=CPU)
    files = sorted(path.relative_to(tmp_path / "a") for path in (tmp_path / "a").rglob("*.*"))
    assert Path("report.md") in files
    assert Path("reconstructions/f005_32x32/ema.mp4") in files
    for file in files:
        assert (tmp_path / "a" / file).read_bytes() == (tmp_path / "b" / file).read_bytes()


def test_a_sample_that_does_not_decode_is_said_and_replaced(vae_run: Path, tmp_path: Path) -> None:
    manifest = write_shards(tmp_path / "s", {"f005_32x32": 4}, bad=frozenset({1}))
    report = evaluate(
        vae_run / "final",
        [manifest],
        tmp_path / "out",
        FEW.model_copy(update={"num_per_bucket": 4}),
        device=CPU,
    )
    assert list(report.unreadable) == [key_of(1)]
    assert report.fidelity["raw"]["f005_32x32"].num_clips == 3


def test_the_command_writes_clips_and_refuses_in_one_line(
    dit_run: Path, vae_run: Path, manifest: str, tmp_path: Path
) -> None:
    def said(checkpoint: Path, *more: str) -> tuple[int, str]:
        out = ["--out", str(tmp_path / "out"), "--samples", "1", "--bins", "2"]
        line = ["--checkpoint", str(checkpoint), "--shards", manifest, *out, *more]
        result = CliRunner().invoke(app, line)
        return result.exit_code, result.output

    more = ["--prompt", "a boat", "--size", "32x32", "--frames", "5", "--steps", "2"]
    code, text = said(dit_run / "final", *more)
    assert code == 0, text
    report = Report.model_validate_json((tmp_path / "out" / "report.json").read_text())
    assert "samples/ema-grid.png" in report.files
    assert all((tmp_path / "out" / name).is_file() for name in report.files)
    for checkpoint, arguments, problem in (
        (tmp_path / "none", [], "there is no config.json"),
        (dit_run, [], "is of no final folder"),
        (vae_run / "final", more, "a VAE is sent no prompts"),
        (dit_run / "final", ["--max-frames", "4"], "4n+1"),
        (dit_run / "final", ["--vae", str(vae_run / "final" / "diffusers")], "fingerprint"),
    ):
        code, text = said(checkpoint, *arguments)
        assert code == 1, text
        assert problem in text
        assert text.startswith("error: ")
        assert len(text.strip().splitlines()) == 1
