"""The documentation as pages: Sphinx builds it without a network, and a link that leads nowhere is an error."""

from __future__ import annotations

import shutil
import subprocess
import sys
from pathlib import Path

import pytest

pytest.importorskip("myst_parser", reason="needs pip install 'stilnovo[docs]'")
pytest.importorskip("furo", reason="needs pip install 'stilnovo[docs]'")
ROOT = Path(__file__).parents[1]


def build(source: Path, out: Path) -> subprocess.CompletedProcess[str]:
    command = [
        sys.executable,
        "-m",
        "sphinx",
        "-W",
        "--keep-going",
        "-q",
        "-c",
        str(ROOT / "docs"),
        str(source),
        str(out),
    ]
    return subprocess.run(command, capture_output=True, text=True, cwd=ROOT)


def test_the_site_is_built_and_fetches_nothing(tmp_path: Path) -> None:
    done = build(ROOT, tmp_path)
    assert done.returncode == 0, done.stderr
    assert "README.html" in (tmp_path / "index.html").read_text(encoding="utf-8")
    for name in ("README", "CONTRIBUTING", "docs/tour", "docs/cli", "results/README"):
        page = (tmp_path / f"{name}.html").read_text(encoding="utf-8")
        assert not [line for line in page.splitlines() if 'src="http' in line or 'rel="stylesheet" href="http' in line]
    assert (tmp_path / "_images" / "chat.png").is_file()


def test_a_dead_link_is_an_error(tmp_path: Path) -> None:
    for path in ROOT.glob("*.md"):
        shutil.copy(path, tmp_path)
    for folder in ("docs", "results", "bench"):
        (tmp_path / folder).mkdir()
        for path in [*(ROOT / folder).glob("*.md"), *(ROOT / folder).glob("*.png")]:
            shutil.copy(path, tmp_path / folder)
    (tmp_path / "CHANGELOG.md").write_text("# Changelog\n\n[gone](docs/nowhere.md)\n", encoding="utf-8")
    done = build(tmp_path, tmp_path / "site")
    assert done.returncode != 0
    assert "nowhere" in done.stderr
