"""What mkdocs does besides: the tutorial's page is made, with its outputs, when the site is."""

from __future__ import annotations

import os

from mkdocs.config.defaults import MkDocsConfig
from mkdocs.structure.files import File, Files
from tutorial_page import SCRIPT, page


def on_files(files: Files, config: MkDocsConfig) -> Files:
    """Add the tutorial: it runs once for every build."""
    os.environ.setdefault("HF_HUB_OFFLINE", "1")
    os.environ.setdefault("MPLBACKEND", "Agg")
    text = page(SCRIPT.read_text(encoding="utf-8"))
    files.append(File.generated(config, "tutorial.md", content=text))
    return files
