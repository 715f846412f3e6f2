"""LitServe at its best here: a worker for each core, one thread each, raw bytes in: `litserve_server.py MODEL PORT WORKERS`."""

import json
import sys
from functools import partial
from typing import Annotated

import litserve
from fastapi import Body, HTTPException, Response

import openlepton
from openlepton.errors import OpenLeptonError
from openlepton.runtimes.onnx import OnnxRuntime


class Detect(litserve.LitAPI):
    """The same model file, preparation and finish."""

    def __init__(self, model: str) -> None:
        super().__init__()
        self._name = model

    def setup(self, device: str) -> None:
        """Load the model in its worker."""
        self._predictor = openlepton.load(self._name, runtime=partial(OnnxRuntime, threads=1))

    def decode_request(self, request: Annotated[bytes, Body(media_type="image/jpeg")]) -> bytes:
        """Pass the file on."""
        return request

    def predict(self, data: bytes) -> bytes:
        """Return the JSON of the result."""
        try:
            return json.dumps(self._predictor(data).to_dict()).encode()
        except OpenLeptonError as error:
            raise HTTPException(422, str(error)) from None

    def encode_response(self, body: bytes) -> Response:
        """Send it as it is."""
        return Response(body, media_type="application/json")


def main(model: str, port: str, workers: str) -> None:
    """Serve until killed."""
    server = litserve.LitServer(
        Detect(model), accelerator="cpu", workers_per_device=int(workers), timeout=False, fast_queue=True
    )
    server.run(host="127.0.0.1", port=int(port), num_api_servers=1, generate_client_file=False, log_level="error")


if __name__ == "__main__":
    main(*sys.argv[1:])
