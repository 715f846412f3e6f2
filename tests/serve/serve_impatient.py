"""A server that waits a second for heads and bodies, and holds few bytes of bodies."""

import sys

from openlepton.serve.hosting import serve_models
from openlepton.serve.settings import Limits, Settings


def tell(text: str) -> None:
    print(f"openlepton serve: {text}", flush=True)


if __name__ == "__main__":
    limits = Limits(header_s=1.0, body_s=1.0, held_bytes=1_500_000, connections=50)
    sys.exit(serve_models(["yolov5n-bccd"], Settings(port=0, workers=1, limits=limits), tell))
