"""What stands in a worker where a test is about the queue and not about models; imported by the worker processes."""

import json
import os
import time
from dataclasses import dataclass
from pathlib import Path

from openlepton.errors import ModelFailed, RequestInvalid


class Echo:
    """Answers with the body; some bodies have effects."""

    def __init__(self, log, share):
        self._log, self._share = Path(log), share

    def facts(self):
        return {"echo": {"run_s": 0.01}, "slow": {"run_s": 0.01}, "glacial": {"run_s": 5.0}}

    def __call__(self, head, parts):
        if head["kind"] == "measure":
            fast = head.get("wide") and self._share.wide > 2
            return [json.dumps({"each_s": (0.002 if fast else 0.01) / (head["batch"] if fast else 1)}).encode()]
        with self._log.open("a") as log:
            log.write(f"{os.getpid()} {'wide' if head.get('wide') else 'narrow'} {b','.join(parts).decode()}\n")
        return [self._one(part) for part in parts]

    def _one(self, part):
        word, _, rest = part.partition(b" ")
        if word == b"sleep":
            time.sleep(float(rest))
        if word == b"die":
            os._exit(9)
        if word == b"die-once":
            try:
                os.open(rest, os.O_CREAT | os.O_EXCL)
            except FileExistsError:
                return b"{}"
            os._exit(9)
        if word == b"refuse":
            return RequestInvalid("refused")
        if word == b"raise":
            raise ValueError("secret: /home/somebody")
        return json.dumps({"echo": part.decode()}).encode()


@dataclass(frozen=True)
class EchoSetup:
    log: str

    def __call__(self, share):
        return Echo(self.log, share)


@dataclass(frozen=True)
class BrokenSetup:
    def __call__(self, share):
        raise ModelFailed("the model is broken")
