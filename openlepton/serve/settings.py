"""How a server is set up: what it admits and how much; every default is the safe one."""

from dataclasses import dataclass, field
from pathlib import Path

from openlepton.errors import UsageError
from openlepton.serve.tokens import NOBODY, Tokens

MIB = 1024 * 1024


@dataclass(frozen=True)
class Limits:
    """What is refused before it costs anything."""

    body_bytes: int = 32 * MIB
    """One request; an image in base64 is a third larger than its file."""
    held_bytes: int = 256 * MIB
    """All bodies that are arriving, waiting or worked on, together."""
    image_bytes: int = 16 * MIB
    image_pixels: int = 25_000_000
    image_formats: tuple[str, ...] = ("BMP", "JPEG", "PNG", "WEBP")
    image_size: int = 1280
    """The most that `?size=` may ask of a network."""
    tensor_json_bytes: int = 8 * MIB
    """Tensors in JSON take thirty times their size while they are read; as bytes they take none."""
    batch: int = 16
    texts: int = 64
    text_chars: int = 10_000
    header_s: float = 10.0
    """For the head of a request to arrive."""
    body_s: float = 30.0
    """For the body of a request to arrive."""
    connections: int = 1024


@dataclass(frozen=True)
class Settings:
    """A server's address, guards and pace.

    Raises:
        UsageError: Strangers could reach the server and there is no token, unless `insecure` says that this is meant.
    """

    host: str = "127.0.0.1"
    port: int = 8000
    hosts: tuple[str, ...] = ()
    """Names that clients may call the server by, besides those of this machine; none on a public address: any."""
    tokens: Tokens = NOBODY
    insecure: bool = False
    workers: int | None = None
    """Worker processes; None to choose by measuring."""
    queue: int = 64
    """The most items that wait; more are refused at once."""
    deadline_s: float = 30.0
    """How long a request may take unless it says less."""
    run_s: float = 60.0
    """How long a worker may be busy with one thing before it is replaced."""
    grace_s: float = 30.0
    """How long a stop waits for what was accepted."""
    jobs: Path | None = None
    """The folder that jobs may read from; None for no jobs."""
    job_ttl_s: float = 3600.0
    limits: Limits = field(default_factory=Limits)

    def __post_init__(self) -> None:
        if not (self.loopback or self.tokens or self.insecure):
            raise UsageError(
                f"host {self.host} can be reached from other machines: give a token file, or say --insecure if that is meant"
            )
        if self.workers is not None and self.workers < 1:
            raise UsageError(f"workers: expected 1 or more, got {self.workers}")
        if self.jobs is not None and not self.jobs.is_dir():
            raise UsageError(f"{self.jobs}: no such folder for jobs")

    @property
    def loopback(self) -> bool:
        """Whether only this machine can reach the server."""
        return self.host == "localhost" or self.host == "::1" or self.host.startswith("127.")
