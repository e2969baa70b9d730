"""Who may import whom (docs/explain/architecture.md), read off the source."""

from __future__ import annotations

import ast
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]

LAYERS = {
    "openus_data": {
        0: {"errors", "schema", "records", "progress", "vocabulary", "strict", "strict_yaml", "patterns", "data"},
        1: {"card", "card_check", "card_fields", "store", "recipe", "tables"},
        2: {
            "sources",
            "transfer",
            "archive",
            "items",
            "masks",
            "decode",
            "deid",
            "cone",
            "quality",
            "duplicates",
            "split",
            "phantom",
        },
        3: {"shards", "manifest", "executor", "corpus"},
        5: {"commands", "cli", "__main__"},
    },
    "openus_model": {
        0: {"errors", "contracts"},
        1: {"recipe", "typed_yaml", "distributed", "scan", "corpus", "remote", "order", "views", "pictures"},
        5: {"assemble", "commands", "cli", "pretrain", "cuda_check", "bench", "plan"},
    },
}
"""Modules that are not named belong to the layer that is left out: commands of openus_data, parts of openus_model."""
DEFAULT_LAYER = {"openus_data": 4, "openus_model": 3}
HEAVY = ("torch", "pydicom", "cv2", "pandas", "pyarrow", "duckdb", "av", "requests", "sklearn", "webdataset")


def _modules(package: str) -> Iterator[tuple[str, Path]]:
    for path in sorted((ROOT / package).rglob("*.py")):
        parts = path.relative_to(ROOT / package).with_suffix("").parts
        if parts != ("__init__",):
            yield parts[0], path


def _imports(path: Path) -> Iterator[tuple[str, str]]:
    """(package, first part below it) of every import of our own packages, wherever it stands in the file."""
    for node in ast.walk(ast.parse(path.read_text())):
        names = []
        if isinstance(node, ast.Import):
            names = [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom) and node.module:
            names = [node.module] if node.module.count(".") else [f"{node.module}.{a.name}" for a in node.names]
        for name in names:
            parts = name.split(".")
            if parts[0] in LAYERS and len(parts) > 1:
                yield parts[0], parts[1]


def _layer(package: str, module: str) -> int:
    return next((n for n, names in LAYERS[package].items() if module in names), DEFAULT_LAYER[package])


@pytest.mark.parametrize("package", LAYERS)
def test_no_module_imports_from_a_layer_above_its_own(package: str) -> None:
    wrong = [
        f"{path.relative_to(ROOT)} imports {other}.{imported}"
        for module, path in _modules(package)
        for other, imported in _imports(path)
        if other == package and imported != module and _layer(package, imported) > _layer(package, module)
    ]
    assert not wrong


def test_the_model_knows_the_data_package_through_its_schema_alone() -> None:
    wrong = [
        f"{path.relative_to(ROOT)} imports openus_data.{imported}"
        for _, path in _modules("openus_model")
        for other, imported in _imports(path)
        if other == "openus_data" and imported != "schema"
    ]
    assert not wrong


def test_the_data_package_knows_nothing_of_the_model() -> None:
    assert not [p for _, p in _modules("openus_data") for other, _ in _imports(p) if other == "openus_model"]


@pytest.mark.parametrize("module", ["openus_data", "openus_data.cli", "openus_model", "openus_model.cli"])
def test_importing_a_package_or_its_command_line_loads_nothing_heavy(module: str) -> None:
    code = f"import sys, {module}; print([m for m in {HEAVY!r} if m in sys.modules])"
    answer = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert answer.stdout.strip() == "[]"


@pytest.mark.parametrize("module", ["openus_data.build", "openus_data.first_stage.staged", "openus_data.shard_task"])
def test_a_build_loads_no_library_before_a_file_needs_it(module: str) -> None:
    slow = ("pydicom", "av", "requests", "pandas", "rich", "typer")
    code = f"import sys, {module}; print([m for m in {slow!r} if m in sys.modules])"
    answer = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert answer.stdout.strip() == "[]"
