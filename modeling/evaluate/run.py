"""One evaluation: networks, samples, figures, files."""

from dataclasses import asdict
from pathlib import Path

import torch

from modeling.data.corpus import ShardCorpus
from modeling.data.latent_format import check_encoders, is_latent
from modeling.data.view import ViewConfig
from modeling.evaluate.dit_loss import BinnedLoss, binned_losses
from modeling.evaluate.errors import EvaluationError
from modeling.evaluate.page import write_page
from modeling.evaluate.pictures import reconstructed_clips, sampled_clips
from modeling.evaluate.report import BucketFidelity, EvaluationConfig, Report
from modeling.evaluate.samples import SampleChoice
from modeling.evaluate.subject import DitSubject, VaeSubject, load_subject, trained_view
from modeling.evaluate.vae_fidelity import fidelities
from modeling.train import compute
from modeling.train.config import ComputeConfig

REPORT_FILE = "report.json"


def evaluate(
    checkpoint: Path,
    manifests: list[str],
    out: Path,
    config: EvaluationConfig,
    *,
    device: torch.device,
    vae_folder: Path | None = None,
) -> Report:
    """Measure, write `report.json`, `report.md` and the pictures into `out`.

    Raises:
        EvaluationError: no such checkpoint, nothing to measure.
        DataError: shards that do not hold, or latents of other encoders.

    """
    subject = load_subject(checkpoint, device, vae_folder=vae_folder)
    corpus = ShardCorpus.open(manifests, verify=config.verify)
    view = config.view or (None if is_latent(corpus) else trained_view(checkpoint)) or ViewConfig()
    choice = SampleChoice(
        corpus,
        view,
        num_per_bucket=config.num_per_bucket,
        seed=config.seed,
        vae=subject.vae.config if isinstance(subject, DitSubject) else None,
    )
    dtype = compute.precision(ComputeConfig(precision=config.precision), device)
    base = Report(
        kind="dit" if isinstance(subject, DitSubject) else "vae",
        step=subject.step,
        manifest_hash=corpus.manifest_hash,
        config=config,
        view=view,
    )
    if isinstance(subject, DitSubject):
        if is_latent(corpus):
            check_encoders(corpus, dict(subject.fingerprints))
        report = _of_dit(subject, choice, base, out, dtype)
    else:
        report = _of_vae(subject, choice, base, out, dtype)
    report = report.model_copy(update={"unreadable": dict(choice.unreadable)})
    out.mkdir(parents=True, exist_ok=True)
    (out / REPORT_FILE).write_text(report.model_dump_json(indent=2) + "\n")
    write_page(out / "report.md", report)
    return report


def _of_dit(
    subject: DitSubject, choice: SampleChoice, base: Report, out: Path, dtype: torch.dtype
) -> Report:
    losses: dict[str, dict[str, BinnedLoss]] = {name: {} for name in subject.networks}
    for bucket in choice.buckets:
        found = binned_losses(
            subject,
            choice.samples(bucket),
            bucket,
            num_bins=base.config.num_bins,
            seed=base.config.seed,
            dtype=dtype,
        )
        for name, loss in found.items():
            losses[name][bucket.name] = loss
    files: list[Path] = []
    if base.config.requests:
        files = sampled_clips(subject, base.config.requests, out / "samples")
    changes = {
        "losses": losses,
        "encoders": dict(subject.fingerprints),
        "files": _names(files, out),
    }
    return base.model_copy(update=changes)


def _of_vae(
    subject: VaeSubject, choice: SampleChoice, base: Report, out: Path, dtype: torch.dtype
) -> Report:
    if base.config.requests:
        raise EvaluationError("a VAE is sent no prompts: leave out --prompt")
    found: dict[str, dict[str, BucketFidelity]] = {name: {} for name in subject.networks}
    files: list[Path] = []
    limit = base.config.tile_above_pixels
    for bucket in choice.buckets:
        samples = list(choice.samples(bucket))
        measured = fidelities(subject, samples, dtype=dtype, tile_above_pixels=limit)
        for name, fidelity in measured.items():
            rounded = {key: round(value, 4) for key, value in asdict(fidelity).items()}
            found[name][bucket.name] = BucketFidelity.model_validate(rounded)
        folder = out / "reconstructions" / bucket.name
        files += reconstructed_clips(subject, samples, folder, dtype=dtype, tile_above_pixels=limit)
    return base.model_copy(update={"fidelity": found, "files": _names(files, out)})


def _names(files: list[Path], out: Path) -> tuple[str, ...]:
    return tuple(str(path.relative_to(out)) for path in files)
