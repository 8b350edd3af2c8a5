"""Where text encoders' weights lie, and what identifies them."""

import hashlib
import importlib.util
from pathlib import Path

_HASHED_ENDS = 1 << 20  # bytes hashed at both ends of a weights file larger than 64 of these


def packaged_folder(module: str) -> Path:
    """Where a package with weights lies, found without importing it."""
    spec = importlib.util.find_spec(module)
    if spec is None or spec.origin is None:
        raise FileNotFoundError(
            f"the text encoder needs the package {module.replace('_', '-')}: install it, or name "
            "another encoder in the configuration"
        )
    return Path(spec.origin).parent


def folder_fingerprint(folder: Path) -> str:
    """Hash of a model folder's configuration, tokenizer and weights.

    Weight files beyond 64 MiB count with their size and a mebibyte at both ends (which hold the
    tensor names and the last tensors): a 16 GB model is told apart in no time.
    """
    digest = hashlib.sha256()
    kept = (".json", ".safetensors", ".bin", ".gguf", ".model", ".txt")
    for path in sorted(p for p in folder.iterdir() if p.suffix in kept and p.is_file()):
        digest.update(f"{path.name} {path.stat().st_size}\n".encode())
        with path.open("rb") as file:
            if path.stat().st_size <= 64 * _HASHED_ENDS:
                digest.update(file.read())
            else:
                digest.update(file.read(_HASHED_ENDS))
                file.seek(-_HASHED_ENDS, 2)
                digest.update(file.read())
    return digest.hexdigest()[:16]


def model_folder(name_or_path: str) -> Path:
    """The folder of a model that is a local path or a transformers id."""
    if Path(name_or_path).is_dir():
        return Path(name_or_path)
    from huggingface_hub import snapshot_download

    return Path(snapshot_download(name_or_path))


def tokenizer_folder(folder: Path) -> Path:
    """The tokenizer of a model folder: its own, or the sibling of a diffusers pipeline folder."""
    sibling = folder.parent / folder.name.replace("text_encoder", "tokenizer")
    has_own = any(folder.glob("tokenizer*")) or any(folder.glob("*.gguf"))
    return folder if has_own or not sibling.is_dir() else sibling
