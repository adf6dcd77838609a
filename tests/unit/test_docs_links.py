"""Links, anchors and names of the documentation lead somewhere.

make docs checks links as the site sees them; this also sees README.md, pictures, files and modules
of the repository, and the list of pages.
"""

import re
from pathlib import Path

import pytest
import yaml
from support.docs_blocks import DOCS, PAGES, ROOT, name_of

LINK = re.compile(r"!?\[[^\]]*\]\(([^)\s]+)\)")
PACKAGES = "bandits|policies|serve_app|simulator"
FILE = re.compile(
    rf"(?<![\w/.:-])((?:{PACKAGES}|tests|benchmarks|clients|deploy|examples|docs)/[\w./-]*\w/?)"
)
MODULE = re.compile(rf"(?<![\w/.:-])((?:{PACKAGES}|benchmarks)(?:\.\w+)+)")
MADE_BY_THE_READER = {"deploy/secrets.env", "deploy/keys.yaml", "deploy/prometheus.key"}
OTHER_PAGES = [ROOT / name / "README.md" for name in ("clients/python", "deploy", "tests/fixtures")]
SOURCES = [
    path
    for pattern in ("*.py", "*.yaml", "*.toml", "Makefile")
    for folder in ("bandits", "policies", "serve_app", "simulator", "benchmarks", "deploy", ".")
    for path in (ROOT / folder).glob(pattern if folder == "." else f"**/{pattern}")
]


def prose(page: Path) -> str:
    """Return a page without its fenced blocks."""
    return re.sub(r"(?ms)^```.*?^```$", "", page.read_text())


def anchors(page: Path) -> set[str]:
    """Return the anchors of a page's headings, as the site and code hosts make them."""
    headings = re.findall(r"(?m)^#+ (.+)$", prose(page))
    return {
        re.sub(r"[\s-]+", "-", re.sub(r"[^\w\s-]", "", each).strip().lower()) for each in headings
    }


@pytest.mark.parametrize("page", [*PAGES, *OTHER_PAGES], ids=name_of)
def test_a_link_leads_to_a_page_and_an_anchor(page):
    broken = []
    for link in LINK.findall(prose(page)):
        if link.startswith(("https://", "http://")):
            continue
        path, _, anchor = link.partition("#")
        target = (page.parent / path).resolve() if path else page
        if not target.is_file() or (anchor and anchor not in anchors(target)):
            broken.append(link)
    assert broken == []


@pytest.mark.parametrize("page", [*PAGES, *OTHER_PAGES], ids=name_of)
def test_a_file_that_a_page_names_exists(page):
    text = re.sub(r"\]\([^)]*\)", "]", page.read_text())  # links have a test of their own
    named = set(FILE.findall(text)) - MADE_BY_THE_READER
    assert sorted(path for path in named if not (ROOT / path).exists()) == []


@pytest.mark.parametrize("page", PAGES, ids=name_of)
def test_a_module_that_a_page_names_exists(page):
    assert (
        sorted(name for name in set(MODULE.findall(page.read_text())) if not _is_there(name)) == []
    )


def _is_there(name: str) -> bool:
    """Say whether the longest beginning of a dotted name is a module that holds the rest."""
    parts = name.split(".")
    for length in range(len(parts), 0, -1):
        path = ROOT.joinpath(*parts[:length])
        rest = parts[length:]
        if path.with_suffix(".py").is_file():
            source = path.with_suffix(".py").read_text()
            return all(re.search(rf"\b{each}\b", source) for each in rest)
        if path.is_dir():
            return not rest or rest[0] in (path / "__init__.py").read_text()
    return False


def test_a_test_that_a_page_names_exists():
    files = list((ROOT / "tests").rglob("test_*.py"))
    tests = "\n".join(path.read_text() for path in files)
    stems = {path.stem for path in files}

    named = {name for page in PAGES for name in re.findall(r"\b(test_\w+)", page.read_text())}
    assert len(named) > 20
    assert sorted(each for each in named if each not in stems and f"def {each}" not in tests) == []


def test_a_page_that_the_sources_name_exists():
    named = {
        (str(path.relative_to(ROOT)), page)
        for path in SOURCES
        for page in re.findall(r"\bdocs/[\w/-]+\.md", path.read_text())
    }
    assert len(named) > 10
    assert sorted(each for each in named if not (ROOT / each[1]).is_file()) == []


def test_the_site_lists_every_page_once():
    text = (ROOT / "mkdocs.yml").read_text()
    listed = sorted(_pages(yaml.safe_load(text)["nav"]))
    assert listed == sorted(str(page.relative_to(DOCS)) for page in DOCS.rglob("*.md"))


def _pages(nav) -> list[str]:
    """Return the pages of a part of the navigation."""
    if isinstance(nav, str):
        return [nav]
    parts = nav if isinstance(nav, list) else nav.values()
    return [page for part in parts for page in _pages(part)]


def test_the_architecture_names_every_room():
    rooms = {
        f"`{path.parent.relative_to(ROOT)}/`"
        for package in PACKAGES.split("|")
        for path in (ROOT / package).glob("*/__init__.py")
    }
    text = (DOCS / "explanation" / "architecture.md").read_text()
    assert sorted(room for room in rooms if room not in text) == []


@pytest.mark.parametrize("folder", ["tutorials", "how-to", "reference", "explanation"])
def test_the_first_page_leads_to_every_other(folder):
    """Some are listed by a page that it leads to."""
    seen, ahead = set(), [DOCS / "index.md"]
    while ahead:
        page = ahead.pop()
        if page in seen or not page.exists():
            continue
        seen.add(page)
        if page.parent in {DOCS, DOCS / "reference"}:
            links = (link.partition("#")[0] for link in LINK.findall(page.read_text()))
            ahead += [(page.parent / link).resolve() for link in links if link.endswith(".md")]
    assert sorted(page.name for page in (DOCS / folder).glob("*.md") if page not in seen) == []


def test_the_readme_stays_short():
    assert len((ROOT / "README.md").read_text().split()) <= 600
