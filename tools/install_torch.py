"""Install PyTorch without dragging gigabytes of CUDA along.

Run inside the virtual environment that should get it: ``python tools/install_torch.py``.

On macOS and Windows the ordinary package is the CPU build. On Linux the ordinary package may bring CUDA libraries:
this script asks pip what it would install, and when CUDA is among it takes PyTorch's own CPU builds through uv's
``--torch-backend=cpu`` instead. ``OPENLEPTON_TORCH=cuda`` keeps whatever pip would install (for a machine with a GPU).
"""

import importlib.metadata
import json
import os
import subprocess
import sys
import tempfile
from pathlib import Path

WANTED = "torch==2.13.0"


def pip(*arguments: str) -> int:
    """Run pip of this interpreter and return its exit status."""
    return subprocess.call([sys.executable, "-m", "pip", "--disable-pip-version-check", *arguments])


def would_bring_cuda() -> bool:
    """Tell whether pip's own choice for `WANTED` has packages of CUDA in it."""
    with tempfile.TemporaryDirectory() as folder:
        report = Path(folder) / "report.json"
        if pip("install", "-q", "--dry-run", "--report", str(report), WANTED) != 0:
            return True
        names = [row["metadata"]["name"].lower() for row in json.loads(report.read_text())["install"]]
    return any(name.startswith(("nvidia-", "cuda-", "triton")) for name in names)


def main() -> int:
    """Install torch unless a version that the project accepts is already there."""
    try:
        have = importlib.metadata.version("torch")
    except importlib.metadata.PackageNotFoundError:
        have = ""
    if have and tuple(int(part) for part in have.split("+")[0].split(".")[:2]) >= (2, 10):
        print(f"torch {have} is installed")
        return 0
    if not sys.platform.startswith("linux") or os.environ.get("OPENLEPTON_TORCH") == "cuda" or not would_bring_cuda():
        return pip("install", "-q", WANTED)
    print("the ordinary torch would bring CUDA along: taking PyTorch's CPU build instead")
    if pip("install", "-q", "uv") != 0:
        return 1
    uv = [sys.executable, "-m", "uv", "pip", "install", "--python", sys.executable, "--torch-backend=cpu", WANTED]
    return subprocess.call(uv)


if __name__ == "__main__":
    sys.exit(main())
