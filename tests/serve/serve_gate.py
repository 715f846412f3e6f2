"""A service that lets nobody through until a file is there, and writes down who came; its one argument is the folder for both."""

import os
import sys
import time
from pathlib import Path

from openlepton.serve import Service, Settings, endpoint


class Gate(Service):
    @endpoint
    def come(self, name: str) -> str:
        """Wait at the gate."""
        folder = Path(os.environ["GATE"])
        with (folder / "log").open("a", encoding="utf-8") as log:
            log.write(f"{name.strip()}\n")
        while not (folder / "open").exists():
            time.sleep(0.01)
        return name.strip()


if __name__ == "__main__":
    sys.exit(Gate.run(Settings(port=0, workers=1)))
