"""Draw an SVG as PNG by a program that is installed anyway: nothing of this project draws pixels."""

from __future__ import annotations

import base64
import re
import shutil
import subprocess
import tempfile
from collections.abc import Callable
from pathlib import Path

from stilnovo.errors import InputError, StilnovoError

SCALE = 3  # pixels for each unit of the drawing
_SECONDS = 120
_CHROMIUM = ("chromium", "chromium-browser", "google-chrome", "google-chrome-stable", "chrome")


def find_drawing_program() -> Callable[[str], bytes]:
    """What draws here: SVG → PNG.

    Raises:
        InputError: no program that can is installed.
    """
    for program, arguments in (
        ("rsvg-convert", _rsvg),
        ("inkscape", _inkscape),
        *((name, _chromium) for name in _CHROMIUM),
    ):
        if found := shutil.which(program):
            return lambda svg, found=found, arguments=arguments: _drawn(svg, found, arguments)  # type: ignore[misc]
    raise InputError(
        "PNG needs a program that draws SVG.", "Neither rsvg-convert nor Inkscape nor Chromium is installed.",
        "Install one, take --format svg, or open the page in a browser and choose PNG under Download.",
    )  # fmt: skip


def _size(svg: str) -> tuple[int, int]:
    found = re.search(r'width="([\d.]+)" height="([\d.]+)"', svg)
    return (int(float(found[1])), int(float(found[2])) + 1) if found else (736, 400)


def _rsvg(svg: Path, png: Path, size: tuple[int, int]) -> list[str]:
    return ["-z", str(SCALE), "-o", str(png), str(svg)]


def _inkscape(svg: Path, png: Path, size: tuple[int, int]) -> list[str]:
    return [f"--export-filename={png}", f"--export-width={SCALE * size[0]}", str(svg)]


def _chromium(svg: Path, png: Path, size: tuple[int, int]) -> list[str]:
    """A page that draws on a canvas and holds the picture as text: a screenshot's size differs between versions."""
    width, height = (SCALE * side for side in size)
    page = svg.with_suffix(".html")
    page.write_text(
        "<!doctype html><body><script>const picture = new Image(); picture.onload = () => {"
        "const canvas = document.createElement('canvas');"
        f"canvas.width = {width}; canvas.height = {height};"
        f"canvas.getContext('2d').drawImage(picture, 0, 0, {width}, {height});"
        "document.body.textContent = canvas.toDataURL('image/png'); };"
        f"picture.src = 'data:image/svg+xml;base64,{base64.b64encode(svg.read_bytes()).decode()}';</script>",
        encoding="utf-8",
    )
    # The page is this project's own: the sandbox, which containers lack, has nothing to hold.
    return [
        "--headless", "--no-sandbox", "--disable-gpu", f"--user-data-dir={svg.parent / 'profile'}", "--virtual-time-budget=10000",
        "--dump-dom", page.as_uri(),
    ]  # fmt: skip


def _drawn(svg: str, program: str, arguments: Callable[[Path, Path, tuple[int, int]], list[str]]) -> bytes:
    with tempfile.TemporaryDirectory(prefix="stilnovo-png-", ignore_cleanup_errors=True) as name:
        source, target = Path(name) / "figure.svg", Path(name) / "figure.png"
        source.write_text(svg, encoding="utf-8")
        try:
            done = subprocess.run(
                [program, *arguments(source, target, _size(svg))], capture_output=True, text=True, timeout=_SECONDS
            )
        except subprocess.TimeoutExpired as error:
            raise StilnovoError(
                f"{program} did not draw a figure in {_SECONDS} seconds.", next="Take --format svg."
            ) from error
        if target.is_file():
            return target.read_bytes()
        if found := re.search(r"data:image/png;base64,([A-Za-z0-9+/=]+)", done.stdout):
            return base64.b64decode(found[1])
        said = (done.stderr.strip() or "It said nothing.").splitlines()[-1][:200]
        raise StilnovoError(f"{program} could not draw a figure.", said, "Take --format svg.")
