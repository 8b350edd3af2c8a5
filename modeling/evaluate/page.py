"""The figures of a report as a page to read: Markdown, pictures linked."""

from pathlib import Path

from modeling.evaluate.report import Report


def write_page(path: Path, report: Report) -> None:
    """Tables of all weights and buckets."""
    at = "" if report.step is None else f" at step {report.step}"
    lines = [f"# {report.kind.upper()}{at}", ""]
    if report.losses:
        lines += _losses(report)
    if report.fidelity:
        lines += _fidelity(report)
    if report.unreadable:
        lines += ["## Samples left out", ""]
        lines += [f"- `{key}` {reason}" for key, reason in sorted(report.unreadable.items())]
        lines.append("")
    lines += [_link(name) for name in report.files]
    path.write_text("\n".join(lines).rstrip() + "\n")


def _losses(report: Report) -> list[str]:
    num = report.config.num_bins
    starts = [f"{k / num:.2f}-" for k in range(num)]
    lines = [
        "Mean squared error of the velocity by sigma (0 is data, 1 is noise); noise, sigmas and",
        "texts are the same for all rows.",
        "",
        f"| weights | bucket | samples | all | {' | '.join(starts)} |",
        "|---" * (4 + num) + "|",
    ]
    for weights, buckets in report.losses.items():
        for bucket, loss in buckets.items():
            cells = " | ".join(f"{value:.4f}" for value in loss.loss_by_bin)
            lines.append(
                f"| {weights} | {bucket} | {loss.num_samples} | {loss.loss:.4f} | {cells} |"
            )
    return [*lines, ""]


def _fidelity(report: Report) -> list[str]:
    lines = [
        "8-bit levels of reconstructions against the samples: PSNR (peak 255, mean and lowest of a",
        "clip), SSIM (Gaussian window, sigma 1.5), flicker (mean absolute error of the change from",
        "frame to frame; 0 for images).",
        "",
        "| weights | bucket | clips | PSNR dB | lowest | SSIM | flicker |",
        "|---|---|---|---|---|---|---|",
    ]
    for weights, buckets in report.fidelity.items():
        for bucket, one in buckets.items():
            lines.append(
                f"| {weights} | {bucket} | {one.num_clips} | {one.psnr_db:.2f} | "
                f"{one.psnr_db_min:.2f} | {one.ssim:.4f} | {one.flicker:.3f} |"
            )
    return [*lines, ""]


def _link(name: str) -> str:
    if name.endswith(".png"):
        return f"![{name}]({name})"
    return f"- [{name}]({name})"
