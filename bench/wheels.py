"""Lay what `gpu.py` needs beside a checkout, for a machine that has torch but neither this project's packages nor a network.

Downloads the wheels for that machine's Python and unpacks them into one folder for PYTHONPATH: pydantic with what it stands on,
and bitsandbytes stripped from 43 MB to 4: its Python files, the library of one CUDA version and the processor's. Packages that
are named are laid beside them (`trl datasets` for the peers), without their own needs.

Needs: stilnovo.
"""

from __future__ import annotations

import argparse
import platform
import re
import subprocess
import sys
import tempfile
import zipfile
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
PACKAGES = ("bitsandbytes", "pydantic", "annotated-types", "typing-inspection", "typing-extensions")
GLIBC = range(17, 40)  # what a platform's name may say; pip takes each by its number alone


def arguments() -> argparse.Namespace:
    """The command line."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("folder", type=Path, help="where the packages go; new or empty")
    parser.add_argument("packages", nargs="*", help="more packages, without what these need")
    parser.add_argument(
        "--python", default=platform.python_version(), help="version of that machine's Python [this one's]"
    )
    parser.add_argument("--cuda", default="13.0", help="CUDA version of its torch, as torch.version.cuda says [13.0]")
    options = parser.parse_args()
    if options.folder.exists() and (not options.folder.is_dir() or any(options.folder.iterdir())):
        parser.error(f"{options.folder} is not empty")
    if not re.fullmatch(r"3\.\d+(\.\d+)?", options.python) or not re.fullmatch(r"\d+\.\d+", options.cuda):
        parser.error("--python takes 3.12, --cuda 13.0")
    return options


def download(names: list[str], python: str, folder: Path) -> None:
    """Download wheels alone, by pip, in the versions of constraints.txt where it names them."""
    platforms = [f"--platform=manylinux_2_{number}_x86_64" for number in GLIBC]
    command = [
        sys.executable, "-m", "pip", "download", "-q", "--no-deps", "--only-binary=:all:", "--implementation=cp",
        f"--python-version={python}", *platforms, "--platform=manylinux2014_x86_64", "-c", str(ROOT / "constraints.txt"), "-d",
        str(folder), *names,
    ]  # fmt: skip
    if subprocess.run(command).returncode:
        sys.exit(1)


def pinned(wheel: Path, package: str) -> str:
    """The version of a package that a wheel asks for, as `name==version`.

    Raises:
        ValueError: where it asks for none in particular.
    """
    with zipfile.ZipFile(wheel) as archive:
        place = next(name for name in archive.namelist() if name.endswith(".dist-info/METADATA"))
        found = re.search(rf"^Requires-Dist: {package} ?\(?==([\w.]+)", archive.read(place).decode(), flags=re.M)
    if found is None:
        raise ValueError(f"{wheel.name} asks for no version of {package}")
    return f"{package}=={found[1]}"


def wanted(name: str, cuda: str) -> bool:
    """Whether a file of a wheel is unpacked: of bitsandbytes' libraries, the processor's and that of one CUDA version."""
    library = re.match(r"bitsandbytes/libbitsandbytes_(\w+)\.so$", name)
    return library is None or library[1] in ("cpu", f"cuda{cuda.replace('.', '')}")


def unpack(wheel: Path, folder: Path, cuda: str) -> int:
    """Unpack what is wanted of a wheel; its bytes."""
    with zipfile.ZipFile(wheel) as archive:
        files = [info for info in archive.infolist() if wanted(info.filename, cuda)]
        if wheel.name.startswith("bitsandbytes") and not any("_cuda" in info.filename for info in files):
            raise ValueError(f"{wheel.name} has no library for CUDA {cuda}")
        archive.extractall(folder, [info.filename for info in files])
    return sum(info.file_size for info in files)


def main() -> None:
    """Download, strip and unpack; says what to run there."""
    options = arguments()
    with tempfile.TemporaryDirectory() as name:
        store = Path(name)
        download([*PACKAGES, *options.packages], options.python, store)
        download([pinned(next(store.glob("pydantic-[0-9]*.whl")), "pydantic-core")], options.python, store)
        for wheel in sorted(store.glob("*.whl")):
            try:
                size = unpack(wheel, options.folder, options.cuda)
            except ValueError as error:
                print(f"{error}.\nChoose another with --cuda.", file=sys.stderr)
                sys.exit(2)
            print(f"{size / 1e6:7.1f} MB  {wheel.name}")
    print(f"There, in the checkout: PYTHONPATH={options.folder.absolute()} python3 bench/gpu.py")


if __name__ == "__main__":
    main()
