"""Start and stop the server of a page."""

from __future__ import annotations

import socket
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

from wasnow.errors import OutputError, UsageError
from wasnow.review.security import new_token
from wasnow.storage.lock import locked_folder

if TYPE_CHECKING:
    from fastapi import FastAPI

LOCK_FOLDER = ".review"


@contextmanager
def bound(port: int) -> Iterator[socket.socket]:
    """A socket on the loopback interface.

    Args:
        port: to listen on; 0 takes a free one.

    Raises:
        UsageError: the port is in use.
    """
    with socket.socket(socket.AF_INET, socket.SOCK_STREAM) as listener:
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            listener.bind(("127.0.0.1", port))
        except OSError as error:
            raise UsageError(
                f"port {port} cannot be used ({error.strerror}); choose another, or leave --port out"
            ) from None
        yield listener


def serve(
    folder: Path, make_app: Callable[[str, int], FastAPI], *, port: int = 0, ready: Callable[[str], None] | None = None
) -> None:
    """Serve a page until the process is interrupted. One server per folder.

    Args:
        folder: locked while the server runs.
        make_app: called with the token and the port.
        port: to listen on; 0 takes a free one.
        ready: called with the address of the page once it answers.

    Raises:
        OutputLocked: another server holds the folder; names it.
        UsageError: the port is in use.
        OutputError: the folder cannot be written.
    """
    import uvicorn

    if not folder.is_dir():
        raise OutputError(f"{folder} is not a folder")
    with locked_folder(folder / LOCK_FOLDER, folder), bound(port) as listener:
        number = int(listener.getsockname()[1])
        token = new_token()
        config = uvicorn.Config(
            make_app(token, number), log_level="warning", access_log=False, timeout_graceful_shutdown=2
        )
        server = uvicorn.Server(config)
        if ready is not None:
            ready(f"http://127.0.0.1:{number}/?token={token}")
        server.run(sockets=[listener])
