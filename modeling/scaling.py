"""Scaling law: which model size and how many tokens a compute budget is best spent on.

N_opt = a1 * C^b1 and D_opt = a2 * C^b2, with N parameters and D tokens in billions and C in
petaFLOPs. Method: Hoffmann et al., arXiv:2203.15556, approach 1, as HunyuanVideo uses it
(arXiv:2412.03603, section 4.4): loss against compute for every size, the lower envelope of all
curves, straight lines through its best (N, D) in logarithms.

`python -m modeling.scaling fit RUNS...` reads the runs' metrics.jsonl: one line per logged step
with step, loss, tokens, flops (both cumulative) and params.
"""

import itertools
import json
import math
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Annotated

import numpy as np
import typer
from numpy.typing import NDArray

FloatArray = NDArray[np.float64]

_PETA = 1e15
_BILLION = 1e9
_GRID_POINTS = 4000  # of log compute, on which the envelope is taken
_MIN_ROWS = 8
_WARM_UP_SHARE = 0.05  # of a run's compute: its first losses follow no power law
# Two-sided 95 % points of Student's t for 1 to 10 degrees of freedom.
_STUDENT_T = (12.706, 4.303, 3.182, 2.776, 2.571, 2.447, 2.365, 2.306, 2.262, 2.228)


@dataclass(frozen=True)
class PowerLaw:
    """value = coefficient * compute^exponent."""

    coefficient: float
    exponent: float

    def __call__(self, compute_pf: float) -> float:
        return float(self.coefficient * compute_pf**self.exponent)

    def compute_for(self, value: float) -> float:
        """The compute, in petaFLOPs, at which the law reaches a value."""
        return float((value / self.coefficient) ** (1 / self.exponent))


# The paper's own coefficients: text-to-image and text-to-video.
PAPER_IMAGE_PARAMETERS = PowerLaw(5.48e-4, 0.5634)
PAPER_IMAGE_TOKENS = PowerLaw(0.324, 0.4325)
PAPER_VIDEO_PARAMETERS = PowerLaw(0.0189, 0.3618)
PAPER_VIDEO_TOKENS = PowerLaw(0.0108, 0.6289)


@dataclass(frozen=True)
class LossCurve:
    """One run. `tokens` and `flops` are cumulative and rise."""

    num_parameters: float
    tokens: FloatArray
    flops: FloatArray
    loss: FloatArray

    @classmethod
    def read(cls, path: Path) -> "LossCurve":
        """Read a metrics.jsonl, or the one in a run's folder."""
        file = path / "metrics.jsonl" if path.is_dir() else path
        if not file.is_file():
            raise FileNotFoundError(f"no metrics at {file}")
        rows = [json.loads(line) for line in file.read_text().splitlines() if line.strip()]
        rows = [row for row in rows if math.isfinite(row["loss"]) and row["flops"] > 0]
        if len(rows) < _MIN_ROWS:
            raise ValueError(f"{file} has {len(rows)} usable lines, at least {_MIN_ROWS} needed")
        sizes = {row["params"] for row in rows}
        if len(sizes) != 1:
            raise ValueError(f"{file} mixes models of {sorted(sizes)} parameters")
        columns = {
            name: np.array([row[name] for row in rows], dtype=np.float64)
            for name in ("tokens", "flops", "loss")
        }
        return cls(float(sizes.pop()), **columns)


@dataclass(frozen=True)
class SmoothCurve:
    """loss = floor + scale * flops^-rate, fitted to one run and used inside its range only."""

    run: LossCurve
    floor: float
    scale: float
    rate: float

    def loss(self, flops: FloatArray) -> FloatArray:
        """NaN outside the run's own compute."""
        inside = (flops >= self.run.flops[0]) & (flops <= self.run.flops[-1])
        return np.where(inside, self.floor + self.scale * flops**-self.rate, np.nan)

    def tokens(self, flops: float) -> float:
        """Tokens that the run had seen at a compute."""
        logs = np.interp(np.log(flops), np.log(self.run.flops), np.log(self.run.tokens))
        return float(np.exp(logs))


def smooth(run: LossCurve) -> SmoothCurve:
    """Least squares in log-spaced bins; the floor by search, the rest is then a line."""
    kept = run.flops > run.flops[-1] * _WARM_UP_SHARE
    flops, loss = run.flops[kept], run.loss[kept]
    edges = np.geomspace(flops[0], flops[-1] * (1 + 1e-9), min(33, len(flops) // 2 + 1))
    which = np.digitize(flops, edges)
    bins = [which == number for number in np.unique(which)]
    binned_flops = np.array([np.exp(np.log(flops[b]).mean()) for b in bins])
    binned_loss = np.array([loss[b].mean() for b in bins])
    best: tuple[float, SmoothCurve] | None = None
    for share in np.concatenate([[0.0], 1 - np.geomspace(1e-3, 1, 60)]):
        floor = share * binned_loss.min()
        slope, offset = np.polyfit(np.log(binned_flops), np.log(binned_loss - floor), 1)
        curve = SmoothCurve(run, float(floor), float(np.exp(offset)), float(-slope))
        fitted = floor + np.exp(offset) * binned_flops**slope
        error = float(np.square(fitted - binned_loss).mean())
        if best is None or error < best[0]:
            best = (error, curve)
    assert best is not None
    return best[1]


@dataclass(frozen=True)
class EnvelopePoint:
    """Where one size hands the lead to the next: both serve this compute equally well."""

    compute_pf: float
    parameters_b: float
    tokens_b: float
    loss: float


def envelope(curves: Sequence[SmoothCurve]) -> list[EnvelopePoint]:
    """The change-over points of the lower envelope, by rising compute.

    Between two sizes the best one is known only at the point where they change places. There N
    and D are the geometric means of both: for curves of one family and evenly spaced sizes this
    has the exponents of the continuous optimum exactly.
    """
    curves = sorted(curves, key=lambda curve: curve.run.num_parameters)
    first = min(curve.run.flops[0] for curve in curves)
    last = max(curve.run.flops[-1] for curve in curves)
    grid = np.geomspace(first, last, _GRID_POINTS)
    losses = np.stack([curve.loss(grid) for curve in curves])
    known = ~np.isnan(losses).all(axis=0)
    grid, losses = grid[known], losses[:, known]
    winners = np.nanargmin(losses, axis=0)
    points: list[EnvelopePoint] = []
    leader = int(winners[0])
    for index in np.flatnonzero(np.diff(winners)):
        challenger = int(winners[index + 1])
        both_measured = not np.isnan(losses[[leader, challenger], index]).any()
        if challenger <= leader or not both_measured:
            continue  # noise, or a curve that merely begins or ends here
        flops = float(np.sqrt(grid[index] * grid[index + 1]))
        pair = (curves[leader], curves[challenger])
        points.append(
            EnvelopePoint(
                compute_pf=flops / _PETA,
                parameters_b=_geometric_mean([c.run.num_parameters for c in pair]) / _BILLION,
                tokens_b=_geometric_mean([c.tokens(flops) for c in pair]) / _BILLION,
                loss=float(losses[challenger, index]),
            )
        )
        leader = challenger
    return points


def _geometric_mean(values: Sequence[float]) -> float:
    return float(np.exp(np.mean(np.log(values))))


@dataclass(frozen=True)
class Interval:
    """An estimate with its 95 % interval; the bounds are NaN where too few sizes are left."""

    value: float
    low: float
    high: float


@dataclass(frozen=True)
class ScalingFit:
    """Both laws. Intervals: jackknife over the model sizes (leave one size out, Student's t)."""

    num_sizes: int
    points: list[EnvelopePoint]
    parameter_coefficient: Interval
    parameter_exponent: Interval
    token_coefficient: Interval
    token_exponent: Interval

    @property
    def parameters(self) -> PowerLaw:
        """Billions of parameters for petaFLOPs."""
        return PowerLaw(self.parameter_coefficient.value, self.parameter_exponent.value)

    @property
    def tokens(self) -> PowerLaw:
        """Billions of tokens for petaFLOPs."""
        return PowerLaw(self.token_coefficient.value, self.token_exponent.value)


def fit(runs: Sequence[LossCurve]) -> ScalingFit:
    """Fit both laws to runs of at least three sizes.

    Raises:
        ValueError: fewer than three sizes, or curves that change places fewer than two times.

    """
    sizes = {run.num_parameters for run in runs}
    if len(sizes) < 3:
        raise ValueError(f"at least 3 model sizes are needed, got {len(sizes)}")
    curves = [smooth(run) for run in runs]
    points = envelope(curves)
    if len(points) < 2:
        raise ValueError(
            f"the best size changes {len(points)} times, at least 2 are needed: "
            "train small sizes shorter or large ones longer"
        )
    left_out = []
    for size in sorted(sizes):
        remaining = envelope([c for c in curves if c.run.num_parameters != size])
        if len(remaining) >= 2:
            left_out.append(_laws(remaining))
    estimate = _laws(points)
    samples = np.array(left_out).reshape(-1, 4)
    log_a1, b1, log_a2, b2 = (
        _jackknife(estimate[column], samples[:, column]) for column in range(4)
    )
    return ScalingFit(len(sizes), points, _exponential(log_a1), b1, _exponential(log_a2), b2)


def _laws(points: Sequence[EnvelopePoint]) -> tuple[float, float, float, float]:
    log_compute = np.log([p.compute_pf for p in points])
    b1, log_a1 = np.polyfit(log_compute, np.log([p.parameters_b for p in points]), 1)
    b2, log_a2 = np.polyfit(log_compute, np.log([p.tokens_b for p in points]), 1)
    return float(log_a1), float(b1), float(log_a2), float(b2)


def _jackknife(estimate: float, left_out: FloatArray) -> Interval:
    count = len(left_out)
    if count < 3:
        return Interval(estimate, math.nan, math.nan)
    error = math.sqrt((count - 1) / count * float(np.square(left_out - left_out.mean()).sum()))
    reach = error * (_STUDENT_T[count - 2] if count - 2 < len(_STUDENT_T) else 1.96)
    return Interval(estimate, estimate - reach, estimate + reach)


def _exponential(interval: Interval) -> Interval:
    return Interval(*(math.exp(v) for v in (interval.value, interval.low, interval.high)))


def plot(runs: Sequence[LossCurve], result: ScalingFit, path: Path) -> None:
    """Loss against compute with the envelope, and both laws."""
    import matplotlib as mpl

    mpl.use("Agg")
    from matplotlib import pyplot as plt

    figure, axes = plt.subplots(1, 3, figsize=(14, 4))
    for run in sorted(runs, key=lambda run: run.num_parameters):
        curve = smooth(run)
        label = f"{run.num_parameters / 1e6:.3g} M"
        (line,) = axes[0].plot(run.flops / _PETA, run.loss, alpha=0.25, linewidth=0.7)
        axes[0].plot(run.flops / _PETA, curve.loss(run.flops), color=line.get_color(), label=label)
    compute = [point.compute_pf for point in result.points]
    axes[0].plot(compute, [point.loss for point in result.points], "k.", markersize=9)
    axes[0].set(xscale="log", yscale="log", xlabel="compute (PFLOP)", ylabel="loss")
    axes[0].legend(fontsize=8)
    wide = np.geomspace(min(compute) / 3, max(compute) * 3, 50)
    for axis, law, name, values in (
        (axes[1], result.parameters, "parameters", [p.parameters_b for p in result.points]),
        (axes[2], result.tokens, "tokens", [p.tokens_b for p in result.points]),
    ):
        axis.plot(compute, values, "k.", markersize=9)
        axis.plot(wide, [law(c) for c in wide], label=f"C^{law.exponent:.3f}")
        axis.set(xscale="log", yscale="log", xlabel="compute (PFLOP)", ylabel=f"{name} (billions)")
        axis.legend()
    figure.tight_layout()
    figure.savefig(path, dpi=110)
    plt.close(figure)


def all_runs(paths: Sequence[Path]) -> list[LossCurve]:
    """Read runs; every path is a run's folder or a metrics file."""
    return list(itertools.chain.from_iterable([LossCurve.read(path)] for path in paths))


app = typer.Typer(no_args_is_help=True, pretty_exceptions_enable=False)


@app.callback()
def _main() -> None:
    """Scaling laws from training runs."""


@app.command("fit")
def _fit_command(
    runs: Annotated[list[Path], typer.Argument(help="run folders or metrics.jsonl files")],
    out: Annotated[Path | None, typer.Option(help="write the fit as JSON")] = None,
    plot_to: Annotated[Path | None, typer.Option("--plot", help="write a PNG")] = None,
) -> None:
    """Fit N_opt and D_opt to the loss curves of several model sizes."""
    try:
        curves = all_runs(runs)
        result = fit(curves)
    except (FileNotFoundError, ValueError) as error:
        typer.echo(f"error: {error}", err=True)
        raise typer.Exit(2) from error
    for name, coefficient, exponent in (
        ("N_opt (billions)", result.parameter_coefficient, result.parameter_exponent),
        ("D_opt (billions)", result.token_coefficient, result.token_exponent),
    ):
        typer.echo(
            f"{name} = {coefficient.value:.4g} [{coefficient.low:.3g}, {coefficient.high:.3g}]"
            f" * C^{exponent.value:.4f} [{exponent.low:.3f}, {exponent.high:.3f}]"
        )
    if out is not None:
        out.write_text(json.dumps(asdict(result), indent=2) + "\n")
    if plot_to is not None:
        plot(curves, result, plot_to)


if __name__ == "__main__":
    app()
