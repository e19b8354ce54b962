"""Only the page that this server handed out may talk to it.

- The server listens on the loopback interface.
- Every request names this host and port in its Host header, which stops DNS rebinding.
- A request with an Origin header must come from this very address, which stops other web pages.
- Everything but static files needs the token of this start, which the printed address carries.
"""

from __future__ import annotations

import secrets
from collections.abc import Awaitable, Callable

from fastapi import FastAPI, Request, Response
from fastapi.responses import JSONResponse, PlainTextResponse

from wasnow.errors import WasnowError
from wasnow.review.polygons import Conflict

HEADER = "x-wasnow-token"
POLICY = (
    "default-src 'none'; script-src 'self'; style-src 'self' 'unsafe-inline'; img-src 'self' blob: data:; "
    "connect-src 'self'; worker-src 'self' blob:; base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
)

Next = Callable[[Request], Awaitable[Response]]


def new_token() -> str:
    """Return a token for one start of a server."""
    return secrets.token_urlsafe(24)


def protect(app: FastAPI, token: str, port: int) -> None:
    """Add the checks to an application.

    Args:
        app: to protect.
        token: that requests must carry, in the header or as a parameter.
        port: that the server listens on.
    """
    hosts = {f"127.0.0.1:{port}", f"localhost:{port}"}
    origins = {f"http://{host}" for host in hosts}

    @app.middleware("http")
    async def check(request: Request, proceed: Next) -> Response:
        if request.headers.get("host") not in hosts:
            return PlainTextResponse("this server answers requests to 127.0.0.1 only", 403)
        origin = request.headers.get("origin")
        if origin is not None and origin not in origins:
            return PlainTextResponse("requests of other web pages are refused", 403)
        if not request.url.path.startswith("/static/"):
            given = request.headers.get(HEADER) or request.query_params.get("token") or ""
            if not secrets.compare_digest(given.encode(), token.encode()):
                return PlainTextResponse(
                    "the token is missing or wrong; open the address that the command printed", 403
                )
        try:
            response = await proceed(request)
        except Conflict as error:
            response = JSONResponse({"error": str(error)}, 409)
        except WasnowError as error:
            response = JSONResponse({"error": str(error)}, 400)
        response.headers["Content-Security-Policy"] = POLICY
        response.headers["Referrer-Policy"] = "no-referrer"
        response.headers["X-Content-Type-Options"] = "nosniff"
        response.headers["Cache-Control"] = "no-store"
        return response
