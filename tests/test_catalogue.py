"""Every message for a user's mistake, word for word, against tests/messages.txt: no wording changes unseen.

What the messages say about a case is tested where the case is; this keeps the words that those tests do not match.
After a deliberate change: `python -m tests.test_catalogue`, and read the difference.
"""

from __future__ import annotations

import ast
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
ERRORS = ("InputError", "ListError", "WrongBands", "ColourLabel")
CATALOGUE = Path(__file__).with_name("messages.txt")


def texts(tree: ast.AST) -> list[str]:
    """The strings inside a call, `{}` for what is filled in."""
    found = []
    for node in ast.iter_child_nodes(tree):
        if isinstance(node, ast.Constant) and isinstance(node.value, str):
            found.append(node.value)
        elif isinstance(node, ast.JoinedStr):
            found.append("".join(part.value if isinstance(part, ast.Constant) else "{}" for part in node.values))
        else:
            found += texts(node)
    return found


def catalogue() -> str:
    """`file: message` for each InputError made in the package, and each problem of a config."""
    lines = []
    for path in sorted((ROOT / "segkit").rglob("*.py")):
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            name = getattr(node, "func", None)
            if getattr(name, "id", "") in ERRORS or getattr(name, "attr", "") == "say":  # say: the config's check
                text = " / ".join(texts(node)).replace("\n", "\\n")
                lines.append(f"{path.relative_to(ROOT).as_posix()}: {text}")
    return "\n".join(sorted(lines)) + "\n"


def test_messages_are_those_of_the_catalogue() -> None:
    assert catalogue().splitlines() == CATALOGUE.read_text(encoding="utf-8").splitlines()


if __name__ == "__main__":
    CATALOGUE.write_text(catalogue(), encoding="utf-8")
