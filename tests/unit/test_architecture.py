"""The architecture page and CONTRIBUTING match the code."""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator
from pathlib import Path

import pytest

_ROOT = Path(__file__).parents[2]
_PAGE = (_ROOT / "docs" / "architecture.md").read_text(encoding="utf-8")
# Words in names that need no explanation.
_PLAIN_TEXT = """
    call count goes halted id include interrupted key limits lost named no on part refused row
    statement status store unavailable
"""
_PLAIN = frozenset(_PLAIN_TEXT.split())


def _public_classes() -> Iterator[tuple[str, str]]:
    for layer in ("domain", "engine"):
        for path in sorted((_ROOT / "listener" / layer).glob("*.py")):
            for node in ast.parse(path.read_text(encoding="utf-8")).body:
                if isinstance(node, ast.ClassDef) and not node.name.startswith("_"):
                    yield f"{layer}/{path.stem}", node.name


def _glossary() -> set[str]:
    """Return every word that the glossary explains."""
    table = _PAGE.partition("## Glossary")[2]
    terms = re.findall(r"^\| ([^|]+) \|", table, re.MULTILINE)
    return {word for term in terms for word in re.findall(r"[a-z]+", term.lower())}


def _words_of(name: str) -> list[str]:
    return [word.lower() for word in re.findall(r"[A-Z][a-z]*", name)]


def _known(word: str, glossary: set[str]) -> bool:
    forms = {word, word.removesuffix("s"), word.removesuffix("es"), f"{word}s"}
    forms.add(re.sub("ies$", "y", word))
    return bool(forms & (glossary | _PLAIN))


@pytest.mark.parametrize(("module", "name"), list(_public_classes()))
def test_every_public_class_of_domain_and_engine_is_explained(module: str, name: str) -> None:
    glossary = _glossary()
    unknown = [word for word in _words_of(name) if not _known(word, glossary)]
    assert not unknown, f"{module}.{name}: the glossary lacks {unknown}"


def test_glossary_names_modules_that_exist() -> None:
    table = _PAGE.partition("## Glossary")[2]
    places = set(re.findall(r"`((?:domain|engine|adapters|app)/\w+)`", table))
    assert places
    missing = [each for each in places if not (_ROOT / "listener" / f"{each}.py").exists()]
    assert not missing


@pytest.mark.parametrize("page", ["docs/architecture.md", "CONTRIBUTING.md"])
def test_links_lead_somewhere(page: str) -> None:
    path = _ROOT / page
    targets = re.findall(r"\]\(([^)#:]+)\)", path.read_text(encoding="utf-8"))
    assert targets
    missing = [target for target in targets if not (path.parent / target).exists()]
    assert not missing


def test_modules_and_files_named_in_the_paths_exist() -> None:
    text = _PAGE.partition("## Glossary")[0]
    named = set(re.findall(r"\b((?:domain|engine|adapters|app|simulator)/[\w/]+)", text))
    assert named
    missing = [
        each
        for each in named
        if not (_ROOT / "listener" / each).exists()
        and not (_ROOT / "listener" / f"{each}.py").exists()
    ]
    assert not missing


def test_every_table_of_ours_is_named() -> None:
    schema = "".join(p.read_text(encoding="utf-8") for p in (_ROOT / "sql/schema").glob("*.sql"))
    tables = set(re.findall(r"CREATE TABLE (?:IF NOT EXISTS )?listener\.(\w+)", schema))
    assert tables
    assert not [table for table in tables if f"`{table}`" not in _PAGE]


def test_contributing_stays_short() -> None:
    assert len((_ROOT / "CONTRIBUTING.md").read_text(encoding="utf-8").splitlines()) <= 60
