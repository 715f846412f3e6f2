"""Writing a file so that a reader finds the old one or the new one, never half of either."""

import os
from pathlib import Path

from openlepton.errors import OutputError


def write_atomic(path: str | os.PathLike[str], data: bytes) -> None:
    """Write `data` to `path`, replacing what is there in one step; upon failure nothing is changed or left behind.

    The file's mode is what the umask says, as for any new file.

    Raises:
        OutputError: The folder is missing, or the disk or its permissions do not allow it.
    """
    path = Path(path)
    beside = path.with_name(f".{os.urandom(8).hex()}.part")  # the same folder, so that replacing is a rename
    try:
        try:
            with beside.open("xb") as file:
                file.write(data)
            beside.replace(path)
        except BaseException:
            beside.unlink(missing_ok=True)
            raise
    except FileNotFoundError as error:
        raise OutputError(f"{path}: cannot be written: there is no folder {path.parent}") from error
    except OSError as error:
        raise OutputError(f"{path}: cannot be written: {error.strerror or error}") from error
