"""What can go wrong, each with a stable code that the command line, JSON and HTTP share.

::

    OpenLeptonError            error
    +-- UsageError             usage                 the call itself makes no sense
    +-- ShapeError             shape                 an array has the wrong shape (also a ValueError)
    +-- MissingExtra           missing-extra         an optional dependency is not installed (also an ImportError)
    +-- ImageError             image
    |   +-- ImageNotFound      image-not-found       no such file
    |   +-- ImageUnreadable    image-unreadable      not an image, truncated, empty, or of a kind that is not read
    |   +-- ImageTooLarge      image-too-large       more bytes or pixels than the limits admit
    +-- ModelError             model
    |   +-- ModelNotFound      model-not-found       no such name or folder
    |   +-- ModelFormatRefused model-format-refused  external data, custom domains, pickles, wrong magic bytes
    |   +-- ModelCorrupt       model-corrupt         a file differs from the size or sha256 in its card
    |   +-- CardInvalid        card-invalid          card.toml is missing, malformed or of an unknown contract
    |   +-- ModelFailed        model-failed          the runtime could not load or run the model
    +-- CheckpointError        checkpoint
    |   +-- CheckpointRefused  checkpoint-refused    a foreign checkpoint names something that is not a network
    |   +-- CheckpointMismatch checkpoint-mismatch   names or shapes differ from the network they claim to be
    |   +-- ParityFailed       parity-failed         the exported graph and the network disagree
    +-- DataError              data
    |   +-- DataNotFound       data-not-found        no such folder, file or split
    |   +-- DataInvalid        data-invalid          not a layout that is read, or a file that breaks its format
    |   +-- DataEmpty          data-empty            nothing usable: no image, or no label for any of them
    +-- TrainError             train
    |   +-- TrainingDiverged   training-diverged     a loss or a weight is not a finite number any more
    |   +-- OutOfMemory        out-of-memory         a batch does not fit into memory
    +-- RulesInvalid           rules-invalid         a hand-written file of zones, rules or a camera says what is not understood
    +-- OutputError            output                a result could not be written
    +-- ServeError             serve                 a server, or what was asked of it
        +-- RequestInvalid     request-invalid       the body or an option is not what the server takes
        +-- RequestTooLarge    request-too-large     the body, a batch or a text exceeds the limits
        +-- RequestTooSlow     request-too-slow      the body did not arrive in time
        +-- MediaTypeRefused   media-type-refused    a content type that is not taken
        +-- NotAllowed         not-allowed           a method, host or origin that is not admitted, or a missing scope
        +-- Unauthorized       unauthorized          no token, or not one that the server knows
        +-- NotFound           not-found             no such address
        +-- JobNotFound        job-not-found         no such job, or somebody else's
        +-- JobUnfinished      job-unfinished        the job has no result yet
        +-- Overloaded         overloaded            no room for more; the answer says when to try again
        +-- Draining           draining              the server is stopping or not ready yet
        +-- DeadlineExceeded   deadline-exceeded     the result would have come too late
        +-- WorkerLost         worker-lost           the process that did the work ended, twice
        +-- Unreachable        unreachable           no server answered there
"""

from typing import ClassVar


class OpenLeptonError(Exception):
    """The root of every error raised on purpose; `code` never changes between releases."""

    code: ClassVar[str] = "error"


class UsageError(OpenLeptonError):
    """The call itself makes no sense; the message says what would."""

    code = "usage"


class ShapeError(OpenLeptonError, ValueError):
    """An array has the wrong shape or type; the message says what was wanted and what came."""

    code = "shape"


class MissingExtra(OpenLeptonError, ImportError):
    """An optional dependency is not installed; the message names the extra that brings it."""

    code = "missing-extra"


class ImageError(OpenLeptonError):
    """Something is wrong with an image."""

    code = "image"


class ImageNotFound(ImageError):
    """There is no such file."""

    code = "image-not-found"


class ImageUnreadable(ImageError):
    """The data is not an image, is truncated or empty, or of a kind that is not read."""

    code = "image-unreadable"


class ImageTooLarge(ImageError):
    """The image has more bytes or pixels than the limits admit."""

    code = "image-too-large"


class ModelError(OpenLeptonError):
    """Something is wrong with a model."""

    code = "model"


class ModelNotFound(ModelError):
    """There is no model of that name and no such folder."""

    code = "model-not-found"


class ModelFormatRefused(ModelError):
    """The file could do more than hold a network, or is not what its name says; it was not parsed further."""

    code = "model-format-refused"


class ModelCorrupt(ModelError):
    """A file differs from the size or sha256 that its card states."""

    code = "model-corrupt"


class CardInvalid(ModelError):
    """`card.toml` is missing, malformed, or of a contract version that this release does not know."""

    code = "card-invalid"


class ModelFailed(ModelError):
    """The runtime could not load or run the model."""

    code = "model-failed"


class CheckpointError(OpenLeptonError):
    """Something is wrong with a foreign checkpoint."""

    code = "checkpoint"


class CheckpointRefused(CheckpointError):
    """The checkpoint is not of a known layout, or names something that no network needs; nothing of it was run."""

    code = "checkpoint-refused"


class CheckpointMismatch(CheckpointError):
    """Tensor names or shapes differ from the network that the checkpoint claims to be."""

    code = "checkpoint-mismatch"


class ParityFailed(CheckpointError):
    """The exported graph and the network disagree by more than the stated tolerance; nothing was written."""

    code = "parity-failed"


class DataError(OpenLeptonError):
    """Something is wrong with a data set."""

    code = "data"


class DataNotFound(DataError):
    """There is no such folder or file, or the data set has no split of that name."""

    code = "data-not-found"


class DataInvalid(DataError):
    """The folder is not of a layout that is read, or one of its files breaks its format as a whole."""

    code = "data-invalid"


class DataEmpty(DataError):
    """Nothing in the data set can be used: no image was found, or no label for any of them."""

    code = "data-empty"


class TrainError(OpenLeptonError):
    """A training cannot go on; its last checkpoint is intact."""

    code = "train"


class TrainingDiverged(TrainError):
    """A loss or a weight is not a finite number any more."""

    code = "training-diverged"


class OutOfMemory(TrainError):
    """A batch does not fit into memory."""

    code = "out-of-memory"


class RulesInvalid(OpenLeptonError):
    """A hand-written file of zones, rules or a camera is missing, malformed, or says what is not understood."""

    code = "rules-invalid"


class VideoError(OpenLeptonError):
    """Something is wrong with a video or a stream."""

    code = "video"


class VideoNotFound(VideoError):
    """There is no such file, folder or camera."""

    code = "video-not-found"


class VideoUnreadable(VideoError):
    """It is not a video, has no frames, is damaged or cut short, or the stream cannot be opened."""

    code = "video-unreadable"


class OutputError(OpenLeptonError):
    """A result could not be written; what was there before is untouched."""

    code = "output"


class ServeError(OpenLeptonError):
    """Something is wrong with a server, or with what was asked of it."""

    code = "serve"


class RequestInvalid(ServeError):
    """The body or an option is not what the server takes; the message says what it takes."""

    code = "request-invalid"


class RequestTooLarge(ServeError):
    """The body, the batch or a text exceeds the server's limits."""

    code = "request-too-large"


class RequestTooSlow(ServeError):
    """The body did not arrive in time."""

    code = "request-too-slow"


class MediaTypeRefused(ServeError):
    """The content type of the body is not one that the address takes."""

    code = "media-type-refused"


class NotAllowed(ServeError):
    """The method, the host or the origin is not admitted, or the token lacks the scope."""

    code = "not-allowed"


class Unauthorized(ServeError):
    """There is no token, or not one that the server knows."""

    code = "unauthorized"


class NotFound(ServeError):
    """The server has no such address."""

    code = "not-found"


class JobNotFound(ServeError):
    """There is no such job, or it belongs to somebody else, or its time is over."""

    code = "job-not-found"


class JobUnfinished(ServeError):
    """The job has no result yet."""

    code = "job-unfinished"


class Overloaded(ServeError):
    """The server has no room for more work at the moment."""

    code = "overloaded"


class Draining(ServeError):
    """The server is stopping, or not ready yet; another one may answer."""

    code = "draining"


class DeadlineExceeded(ServeError):
    """The result would have come after the deadline, so it was not computed, or it was given up."""

    code = "deadline-exceeded"


class WorkerLost(ServeError):
    """The process that worked on the request ended without an answer, and so did the one that tried again."""

    code = "worker-lost"


class Unreachable(ServeError):
    """No server answered at the address, or not like one."""

    code = "unreachable"


def missing_extra(module: str | None, extra: str) -> MissingExtra:
    """Return the error that says which extra brings `module`."""
    return MissingExtra(f"{module} is not installed: pip install 'openlepton[{extra}]'")
