"""Installed size: the core of OpenLepton and everything it needs, against the peer as its own installer lays it down."""

import subprocess
import sys
import tempfile
from pathlib import Path

from measure import ROOT


def megabytes(folder: Path) -> float:
    """Return the size of all files below `folder`, links not followed."""
    return sum(path.stat().st_size for path in folder.rglob("*") if path.is_file() and not path.is_symlink()) / 1e6


def install(folder: Path, package: str) -> float:
    """Return the megabytes that installing `package` into a new environment adds to it."""
    subprocess.run([sys.executable, "-m", "venv", str(folder)], check=True)
    python = next(path for path in (folder / "bin" / "python", folder / "Scripts" / "python.exe") if path.exists())
    before = megabytes(folder)
    subprocess.run([str(python), "-m", "pip", "install", "-q", "--no-compile", package], check=True)
    return megabytes(folder) - before


def main(peer: str = "") -> None:
    """Print both sizes; with `--peer` install `ultralytics` as it comes, which downloads and writes about 6 GB."""
    with tempfile.TemporaryDirectory() as name:
        ours = install(Path(name) / "ours", str(ROOT))
        print(f"installed size of the core: {ours:.0f} MB")
        if peer == "--peer":
            theirs = install(Path(name) / "peer", "ultralytics")
            print(f"installed size of ultralytics: {theirs:.0f} MB; ratio {theirs / ours:.1f}, target 15")


if __name__ == "__main__":
    main(*sys.argv[1:2])
