"""Imports only point down, there is no cycle, and what must run without paddle never imports it."""

from __future__ import annotations

import ast
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]
LAYERS = {
    "errors": 0, "registry": 0, "config": 0, "build": 0, "log": 0, "dist": 0, "runtime": 0, "options": 0, "progress": 0,
    "terminal": 0,
    "io": 1, "palette": 1, "exif": 1, "header": 1, "_cv2": 1, "bands": 1, "polygons": 1, "postprocess": 1,
    "models": 2, "losses": 2, "datasets": 2, "transforms": 2, "optim": 2, "metrics": 2,
    "engine": 3, "deploy": 3, "data": 3, "report": 3,
    "cli": 4, "__main__": 4,
}  # fmt: skip
PADDLE_FREE = {
    *("errors", "registry", "config", "build", "log", "dist", "runtime", "options", "progress", "terminal"),
    *("io", "palette", "exif", "header", "_cv2", "bands", "polygons"),
    *("transforms", "postprocess", "datasets", "metrics", "data"),
}
FILES = sorted((ROOT / "segkit").rglob("*.py"))


def part(path: Path) -> str:
    """`segkit/models/unet.py` -> models; `segkit/io.py` -> io; the package's own __init__ -> ''."""
    relative = path.relative_to(ROOT / "segkit")
    return "" if relative.name == "__init__.py" and len(relative.parts) == 1 else relative.parts[0].removesuffix(".py")


def imports(path: Path) -> list[tuple[str, bool]]:
    """(dotted name, whether only type checkers run it) of every import in a file, those inside functions too."""
    found = []

    def walk(node: ast.AST, typing_only: bool) -> None:
        if isinstance(node, ast.Import):
            found.extend((alias.name, typing_only) for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            base = node.module or ""
            found.extend((f"{base}.{alias.name}", typing_only) for alias in node.names)
        inside = typing_only or (isinstance(node, ast.If) and "TYPE_CHECKING" in ast.unparse(node.test))
        for child in ast.iter_child_nodes(node):
            walk(child, inside)

    walk(ast.parse(path.read_text(encoding="utf-8")), False)
    return found


def test_every_part_has_a_layer() -> None:
    assert {part(path) for path in FILES} - {""} == set(LAYERS)


@pytest.mark.parametrize("path", FILES, ids=lambda path: str(path.relative_to(ROOT)))
def test_imports_point_down(path: Path) -> None:
    own = part(path)
    for name, typing_only in imports(path):
        parts = name.split(".")
        if parts[0] == "paddle" and own in PADDLE_FREE and not typing_only:
            pytest.fail(f"{path}: imports {name}, but {own} must work without paddle")
        if name.startswith("paddle.nn") and own == "deploy":
            pytest.fail(f"{path}: imports {name}, but deploy must not")
        if parts[0] != "segkit" or len(parts) < 2 or parts[1] not in LAYERS or typing_only or not own:
            continue
        other = parts[1]
        assert LAYERS[other] <= LAYERS[own], f"{path}: imports {name}, which is in a higher layer"
        if LAYERS[own] == LAYERS[other] == 2 and own != other:
            assert (own, other) == ("datasets", "transforms"), f"{path}: imports {name} of its own layer"
        assert (own, other) != ("deploy", "engine"), f"{path}: imports {name}; engine may use deploy, not the reverse"


def test_no_cycles() -> None:
    modules = {}
    for path in FILES:
        dotted = ".".join(path.relative_to(ROOT).with_suffix("").parts).removesuffix(".__init__")
        modules[dotted] = path
    graph: dict[str, set[str]] = {}
    for dotted, path in modules.items():
        graph[dotted] = set()
        for name, typing_only in imports(path):
            target = name if name in modules else name.rpartition(".")[0]
            if target in modules and target != dotted and not typing_only and target != "segkit":
                graph[dotted].add(target)
    done: set[str] = set()

    def visit(node: str, trail: tuple[str, ...]) -> None:
        assert node not in trail, f"import cycle: {' -> '.join([*trail, node])}"
        if node not in done:
            for child in graph[node]:
                visit(child, (*trail, node))
            done.add(node)

    for node in graph:
        visit(node, ())


@pytest.mark.parametrize(
    "code",
    [
        "import segkit",
        "import segkit.cli.main as m; m.main(['--help'])",
        "import segkit.config, segkit.build, segkit.io",
    ],
)
def test_no_paddle_is_loaded(code: str) -> None:
    check = f"import sys; {code}; assert 'paddle' not in sys.modules, 'paddle was imported'"
    subprocess.run([sys.executable, "-c", check], check=True, cwd=ROOT, stdout=subprocess.DEVNULL)


def test_doors_are_short() -> None:
    for path in (ROOT / "tools").rglob("*.py"):
        assert len(path.read_text(encoding="utf-8").splitlines()) <= 40, path
