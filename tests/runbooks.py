"""The runbooks as programs: their blocks of commands, for a shell and a scratch environment."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).parents[1]
RUNBOOKS = ROOT / "runbooks"
FOUR = ("Meaning", "Impact", "Diagnosis", "Mitigation")

_FENCE = re.compile(r"^```(?P<words>[^\n]*)\n(?P<text>.*?)^```$", re.MULTILINE | re.DOTALL)
_EXITS = re.compile(r"exits-(\d+)")

# The daemon goes on until the end of the runbook, and must then stop as it should. A person reads
# in its log that it follows before typing the next command.
_PRELUDE = """\
set -euo pipefail
daemons=()
: > daemon.log
trap 'cat daemon.log >&2' EXIT
listener() {
    if [ "${1:-}" = run ]; then
        command listener run 2>> daemon.log & daemons+=($!)
        until grep --quiet following daemon.log; do kill -0 $!; sleep 0.1; done
    else
        command listener "$@"
    fi
}
finish() {
    for daemon in "${daemons[@]}"; do kill -TERM "$daemon"; wait "$daemon"; done
}
ended() {
    if [ "$1" != "$2" ]; then echo "$3 ended with $1 instead of $2" >&2; exit 1; fi
}
"""


@dataclass(frozen=True, slots=True)
class Block:
    """Commands that a person copies from line `line` of a runbook, and how they must end."""

    line: int
    text: str
    exits: int


def all_runbooks() -> list[Path]:
    """Return every runbook there is."""
    return sorted(RUNBOOKS.rglob("*.md"))


def blocks_of(runbook: Path) -> Iterator[Block]:
    """Yield the blocks that can be tried here: ```sh, without the word no-run.

    The word exits-N says that they end with another code than 0.
    """
    text = runbook.read_text(encoding="utf-8")
    for found in _FENCE.finditer(text):
        words = found["words"].split()
        if words[:1] != ["sh"] or "no-run" in words:
            continue
        codes = [int(match[1]) for word in words if (match := _EXITS.fullmatch(word))]
        line = text[: found.start()].count("\n") + 2
        yield Block(line, found["text"], codes[0] if codes else 0)


def languages_of(runbook: Path) -> list[str]:
    """Return what each fenced block of a runbook says that it is."""
    found = _FENCE.finditer(runbook.read_text(encoding="utf-8"))
    return [block["words"] for block in found]


def script_of(runbook: Path, stand_ins: Mapping[str, str]) -> str:
    """Return all blocks as one program for bash, with addresses of the scratch environment."""
    return (
        _PRELUDE
        + "".join(_step(runbook, block, stand_ins) for block in blocks_of(runbook))
        + ("finish\n")
    )


def alert_runbooks() -> set[Path]:
    """Return the runbooks to which alerts lead."""
    rules = [path.read_text(encoding="utf-8") for path in (RUNBOOKS / "alerts").glob("*.yaml")]
    return {RUNBOOKS / name for text in rules for name in re.findall(r"[a-z-]+\.md", text)}


def opening_of(runbook: Path) -> str:
    """Return what stands between the title and the first heading of the second level."""
    opening, _, _ = runbook.read_text(encoding="utf-8").partition("\n## ")
    return opening.partition("\n")[2]


def headings_of(runbook: Path) -> tuple[str, ...]:
    """Return the headings of the second level."""
    text = _FENCE.sub("", runbook.read_text(encoding="utf-8"))
    return tuple(re.findall(r"^## (.+)$", text, re.MULTILINE))


def links_of(page: Path) -> list[str]:
    """Return the relative links of a page."""
    found: list[str] = re.findall(r"\]\(([^)#\s]+)(?:#[^)]*)?\)", page.read_text(encoding="utf-8"))
    return [link for link in found if "://" not in link]


def _step(runbook: Path, block: Block, stand_ins: Mapping[str, str]) -> str:
    # In one pass: what stands in may hold what is replaced.
    examples = re.compile("|".join(map(re.escape, stand_ins)))
    text = examples.sub(lambda found: stand_ins[found[0]], block.text)
    place = f"{runbook.name}:{block.line}"
    begin = f"echo '+++ {place}' >&2\n"
    if not block.exits:
        return begin + text
    return f"{begin}code=0\n({text}) || code=$?\nended $code {block.exits} {place}\n"
