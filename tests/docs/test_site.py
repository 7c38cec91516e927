"""The site builds without a warning, and fetches nothing from anywhere."""

import os
import re
import subprocess
import sys
from importlib.util import find_spec
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
FETCHED = re.compile(r"https://fonts|cdn|<(?:script|link rel=.?stylesheet)[^>]*https?://")


@pytest.mark.slow
@pytest.mark.skipif(find_spec("mkdocs") is None, reason="needs mkdocs: make docs")
def test_the_site_is_whole_and_by_itself(tmp_path):
    site = tmp_path / "site"
    built = subprocess.run(
        [sys.executable, "-m", "mkdocs", "build", "--strict", "--site-dir", str(site)],
        cwd=ROOT,
        env={**os.environ, "NO_MKDOCS_2_WARNING": "1"},
        capture_output=True,
        text=True,
        check=False,
    )
    assert built.returncode == 0, built.stderr
    pages = sorted(site.rglob("*.html"))
    assert {"index.html", "tutorial.html", "changelog.html"} <= {page.name for page in pages}
    assert not (site / "build").exists()
    texts = [p for p in site.rglob("*") if p.suffix in (".html", ".css", ".js")]
    assert [str(p) for p in texts if FETCHED.search(p.read_text(encoding="utf-8"))] == []
    assert "doc-heading" in (site / "reference" / "federation.html").read_text(encoding="utf-8")
    assert "<svg" in (site / "tutorial.html").read_text(encoding="utf-8")
