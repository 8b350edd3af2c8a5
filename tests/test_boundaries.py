"""Who may import whom. Read from the source, so that lazy imports inside functions count too."""

import ast
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]
_TORCH = {"torch", "torchvision", "transformers", "diffusers", "accelerate", "vllm"}
_RAY_FILES = ("pipeline/engine/", "modeling/launch.py", "modeling/precompute.py")
_LAZY_TORCH_FOLDER = "pipeline/caption/"


def _sources(*folders: str) -> list[Path]:
    return [path for folder in folders for path in sorted((ROOT / folder).rglob("*.py"))]


def _imports(path: Path) -> list[tuple[str, bool]]:
    """Top-level package of each import, and whether it runs when the module is imported."""
    tree = ast.parse(path.read_text(encoding="utf-8"))
    lazy = {
        inner
        for node in ast.walk(tree)
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef | ast.Lambda)
        or (isinstance(node, ast.If) and "TYPE_CHECKING" in ast.unparse(node.test))
        for inner in ast.walk(node)
    }
    found: list[tuple[str, bool]] = []
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            found += [(alias.name.split(".")[0], node not in lazy) for alias in node.names]
        elif isinstance(node, ast.ImportFrom):
            package = "" if node.level else (node.module or "").split(".")[0]
            found.append((package, node not in lazy))
        elif isinstance(node, ast.Call) and ast.unparse(node.func).endswith("import_module"):
            name = node.args[0] if node.args else None
            if isinstance(name, ast.Constant) and isinstance(name.value, str):
                found.append((name.value.split(".")[0], node not in lazy))
    return found


def _name(path: Path) -> str:
    return path.relative_to(ROOT).as_posix()


def _who_imports(folder: str, packages: set[str], *, at_import: bool = False) -> list[str]:
    return [
        f"{_name(path)} imports {package}"
        for path in _sources(folder)
        for package, runs_at_import in _imports(path)
        if package in packages and (runs_at_import or not at_import)
    ]


def test_schemas_stand_on_pydantic_alone() -> None:
    import sys

    allowed = {"schemas", "pydantic", *sys.stdlib_module_names}
    found = {package for path in _sources("schemas") for package, _ in _imports(path)}
    assert found - allowed == set()


def test_pipeline_and_modeling_meet_in_files_only() -> None:
    assert _who_imports("pipeline", {"modeling"}) == []
    assert _who_imports("modeling", {"pipeline"}) == []


def test_ray_is_imported_where_it_is_meant_to_be() -> None:
    found = [
        line
        for folder in ("schemas", "pipeline", "modeling")
        for line in _who_imports(folder, {"ray"})
        if not line.startswith(_RAY_FILES)
    ]
    assert found == []


def test_the_pipeline_needs_no_torch() -> None:
    found = _who_imports("pipeline", _TORCH)
    assert [line for line in found if not line.startswith(_LAZY_TORCH_FOLDER)] == []
    assert _who_imports("pipeline", _TORCH, at_import=True) == []


def test_nothing_that_ships_imports_the_tests_or_their_tools() -> None:
    for folder in ("schemas", "pipeline", "modeling"):
        assert _who_imports(folder, {"tests", "benchmarks", "pytest", "hypothesis", "moto"}) == []


@pytest.mark.parametrize(
    ("text", "found"),
    [
        ("import torch.nn", [("torch", True)]),
        ("def f():\n    from ray import get", [("ray", False)]),
        ("from typing import TYPE_CHECKING\nif TYPE_CHECKING:\n    import ray", [("ray", False)]),
        ("import importlib\nimportlib.import_module('torch.cuda')", [("torch", True)]),
        ("from . import sibling", [("", True)]),
    ],
)
def test_imports_are_seen_wherever_they_stand(
    tmp_path: Path, text: str, found: list[tuple[str, bool]]
) -> None:
    path = tmp_path / "module.py"
    path.write_text(text)
    assert [item for item in _imports(path) if item[0] not in {"typing", "importlib"}] == found
