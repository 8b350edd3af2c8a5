import itertools
import json
from pathlib import Path

import numpy as np
import pytest
import torch
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.utils.flop_counter import FlopCounterMode
from typer.testing import CliRunner

from modeling.dit import VideoDiT
from modeling.dit_config import DIT_CONFIGS
from modeling.dit_cost import forward_flops, num_parameters
from modeling.model_family import MODEL_FAMILY
from modeling.scaling import (
    PAPER_IMAGE_PARAMETERS,
    PAPER_IMAGE_TOKENS,
    PAPER_VIDEO_PARAMETERS,
    PAPER_VIDEO_TOKENS,
    LossCurve,
    PowerLaw,
    app,
    fit,
)


@pytest.mark.parametrize(
    ("law", "compute_pf", "expected_b"),
    [
        (PAPER_IMAGE_PARAMETERS, 5.8e7, 13),
        (PAPER_IMAGE_TOKENS, 5.8e7, 740),
        (PAPER_VIDEO_PARAMETERS, 7.0e7, 13),
        (PAPER_VIDEO_TOKENS, 7.0e7, 928),
    ],
)
def test_the_papers_coefficients_give_the_papers_numbers(
    law: PowerLaw, compute_pf: float, expected_b: float
) -> None:
    assert law(compute_pf) == pytest.approx(expected_b, rel=0.01)


def test_the_laws_turn_round() -> None:
    assert PAPER_IMAGE_PARAMETERS.compute_for(13) == pytest.approx(5.8296e7, rel=1e-3)
    assert PAPER_VIDEO_PARAMETERS.compute_for(13) == pytest.approx(6.9611e7, rel=1e-3)


def _synthetic_runs(
    alpha: float, beta: float, *, noise: float = 0.0, num_sizes: int = 7
) -> list[LossCurve]:
    """Chinchilla-shaped losses E + A / N^alpha + B / D^beta, with C = 6 N D.

    The optimum is then N ~ C^(beta / (alpha + beta)) and D ~ C^(alpha / (alpha + beta)).
    """
    generator = np.random.default_rng(0)
    runs = []
    for size in np.geomspace(1e8, 6.4e9, num_sizes):
        best_tokens = (beta * 30 / (alpha * 20)) ** (1 / beta) * size ** (alpha / beta)
        tokens = np.geomspace(best_tokens / 30, best_tokens * 30, 400)
        loss = 0.08 + 20 / size**alpha + 30 / tokens**beta
        loss = loss * (1 + noise * generator.standard_normal(len(tokens)))
        runs.append(LossCurve(float(size), tokens, 6 * size * tokens, loss))
    return runs


@pytest.mark.parametrize(("alpha", "beta"), [(0.34, 0.28), (0.25, 0.25), (0.22, 0.36)])
def test_known_exponents_are_recovered(alpha: float, beta: float) -> None:
    result = fit(_synthetic_runs(alpha, beta))
    assert result.parameter_exponent.value == pytest.approx(beta / (alpha + beta), abs=0.02)
    assert result.token_exponent.value == pytest.approx(alpha / (alpha + beta), abs=0.02)


def test_noise_widens_the_interval_and_the_truth_stays_inside() -> None:
    clean = fit(_synthetic_runs(0.3, 0.3)).parameter_exponent
    noisy = fit(_synthetic_runs(0.3, 0.3, noise=0.01)).parameter_exponent
    assert noisy.high - noisy.low > clean.high - clean.low
    assert noisy.low < 0.5 < noisy.high


def test_compute_of_the_fit_is_six_times_parameters_times_tokens() -> None:
    result = fit(_synthetic_runs(0.3, 0.3))
    for point in result.points:
        flops = 6 * point.parameters_b * point.tokens_b * 1e18
        assert flops == pytest.approx(point.compute_pf * 1e15, rel=0.01)


def test_too_few_sizes_and_curves_that_never_meet_are_refused() -> None:
    with pytest.raises(ValueError, match="at least 3 model sizes are needed, got 2"):
        fit(_synthetic_runs(0.3, 0.3, num_sizes=2))
    apart = [
        LossCurve(run.num_parameters, run.tokens, run.flops * 1000**number, run.loss)
        for number, run in enumerate(_synthetic_runs(0.3, 0.3, num_sizes=3))
    ]
    with pytest.raises(ValueError, match="changes 0 times"):
        fit(apart)


def _write(run: LossCurve, folder: Path) -> Path:
    folder.mkdir()
    rows = zip(run.tokens, run.flops, run.loss, strict=True)
    lines = [
        json.dumps(
            {
                "step": step,
                "loss": loss,
                "tokens": tokens,
                "flops": flops,
                "params": run.num_parameters,
            }
        )
        for step, (tokens, flops, loss) in enumerate(rows)
    ]
    (folder / "metrics.jsonl").write_text("\n".join(lines) + "\n")
    return folder


def test_the_command_reads_runs_and_writes_fit_and_plot(tmp_path: Path) -> None:
    folders = [
        str(_write(run, tmp_path / f"run{number}"))
        for number, run in enumerate(_synthetic_runs(0.34, 0.28, num_sizes=5))
    ]
    out, plot = tmp_path / "fit.json", tmp_path / "fit.png"
    result = CliRunner().invoke(app, ["fit", *folders, "--out", str(out), "--plot", str(plot)])
    assert result.exit_code == 0, result.output
    assert "N_opt (billions)" in result.output
    exponent = json.loads(out.read_text())["parameter_exponent"]
    assert exponent["low"] < exponent["value"] < exponent["high"]
    assert plot.read_bytes().startswith(b"\x89PNG")


def test_the_command_names_what_is_wrong(tmp_path: Path) -> None:
    missing = CliRunner().invoke(app, ["fit", str(tmp_path / "nowhere")])
    assert missing.exit_code == 2
    assert "no metrics at" in missing.stderr
    run = _synthetic_runs(0.3, 0.3)[0]
    folder = _write(LossCurve(1.0, run.tokens[:3], run.flops[:3], run.loss[:3]), tmp_path / "short")
    with pytest.raises(ValueError, match="has 3 usable lines"):
        LossCurve.read(folder)


def test_the_family_runs_from_93_million_to_6_6_billion_and_counts_are_exact() -> None:
    counts = []
    for config in MODEL_FAMILY.values():
        with torch.device("meta"):
            model = VideoDiT(config)
        counts.append(sum(p.numel() for p in model.parameters()))
        assert counts[-1] == num_parameters(config)
    assert counts == sorted(counts)
    assert counts[0] == pytest.approx(92e6, rel=0.02)
    assert counts[-1] == pytest.approx(6.6e9, rel=0.01)
    assert all(1.7 < b / a < 2.5 for a, b in itertools.pairwise(counts))


def test_flops_are_those_that_torch_counts() -> None:
    config = DIT_CONFIGS["tiny"]
    model = VideoDiT(config).eval()
    # The counter knows the attention that is written as matrix products only.
    plain = sdpa_kernel(SDPBackend.MATH)
    with FlopCounterMode(display=False) as counter, torch.no_grad(), plain:
        model(
            torch.zeros(1, config.in_channels, 3, 8, 8),
            torch.ones(1),
            torch.zeros(1, 7, config.text_embed_dim),
            torch.tensor([7]),
            torch.zeros(1, config.pooled_projection_dim),
        )
    counted = counter.get_total_flops()
    expected = forward_flops(config, num_image_tokens=3 * 4 * 4, num_text_tokens=7)
    assert counted == pytest.approx(expected, rel=1e-3)
