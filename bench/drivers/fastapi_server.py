"""A plain FastAPI endpoint, as most people write it, on uvicorn with uvloop and httptools: `fastapi_server.py MODEL PORT THREADS`.

An ordinary function, so that FastAPI runs it in its pool of threads; the session is shared by them.
"""

import json
import sys
from functools import partial
from typing import Annotated

import uvicorn
from fastapi import Body, FastAPI, HTTPException, Response

import openlepton
from openlepton.errors import OpenLeptonError
from openlepton.runtimes.onnx import OnnxRuntime


def main(model: str, port: str, threads: str) -> None:
    """Serve until killed."""
    predictor = openlepton.load(model, runtime=partial(OnnxRuntime, threads=int(threads)))
    app = FastAPI()

    @app.post("/predict")
    def predict(body: Annotated[bytes, Body(media_type="image/jpeg")]) -> Response:
        try:
            return Response(json.dumps(predictor(body).to_dict()), media_type="application/json")
        except OpenLeptonError as error:
            raise HTTPException(422, str(error)) from None

    @app.get("/health")
    def health() -> str:
        return "ok"

    uvicorn.run(app, host="127.0.0.1", port=int(port), log_level="error", access_log=False)


if __name__ == "__main__":
    main(*sys.argv[1:])
