"""A service whose one method fails in the way that it is asked to."""

import os
import sys

from openlepton.errors import ModelFailed
from openlepton.serve import Service, Settings, endpoint


class Failing(Service):
    @endpoint
    def fail(self, way: str) -> str:
        """Fail in some way."""
        match way:
            case "raise":
                raise ValueError("secret: /home/somebody/thing.py")
            case "model":
                raise ModelFailed("/home/somebody/model.onnx: could not run")
            case "die":
                os._exit(3)
            case "exit":
                sys.exit("/home/somebody")
            case "memory":
                raise MemoryError
            case "unwritable":
                return object()
        return way


if __name__ == "__main__":
    sys.exit(Failing.run(Settings(port=0, workers=1)))
