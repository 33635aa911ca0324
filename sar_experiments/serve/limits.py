"""What stands between the network and the service: a limit on requests, and safe headers."""

from __future__ import annotations

from typing import TYPE_CHECKING

from starlette.exceptions import HTTPException
from starlette.responses import JSONResponse

if TYPE_CHECKING:
    from starlette.types import ASGIApp, Message, Receive, Scope, Send

# The page takes nothing from other hosts; Swagger's page has one inline script and inline styles.
_HEADERS = {
    "content-security-policy": (
        "default-src 'self'; img-src 'self' data: blob:; style-src 'self' 'unsafe-inline';"
        " script-src 'self'; frame-ancestors 'none'; base-uri 'none'; form-action 'self'"
    ),
    "x-content-type-options": "nosniff",
    "referrer-policy": "no-referrer",
    "cache-control": "no-store",
}
_INLINE_SCRIPT = ("script-src 'self'", "script-src 'self' 'unsafe-inline'")


class BodyLimit:
    """Refuse a body above ``max_bytes``, before it is stored, whatever its header promised."""

    def __init__(self, app: ASGIApp, max_bytes: int) -> None:
        self.app = app
        self.max_bytes = max_bytes

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Count what arrives; answer 413 at the first byte too many."""
        sentence = f"the request is larger than serve.max_megabytes={self.max_bytes / 1e6:g}"
        declared = dict(scope.get("headers", [])).get(b"content-length", b"0")
        if declared.isdigit() and int(declared) > self.max_bytes:
            refuse = JSONResponse({"detail": sentence}, 413, headers={"Connection": "close"})
            await refuse(scope, receive, send)
            return
        seen = 0

        async def counted() -> Message:
            nonlocal seen
            message = await receive()
            seen += len(message.get("body", b""))
            if seen > self.max_bytes:  # answered by the application, which is reading the body
                raise HTTPException(413, sentence, {"Connection": "close"})
            return message

        await self.app(scope, counted, send)


class SafeHeaders:
    """Tell browsers to load nothing from elsewhere and to guess no content types."""

    def __init__(self, app: ASGIApp) -> None:
        self.app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Add the headers to every answer."""

        async def with_headers(message: Message) -> None:
            if message["type"] == "http.response.start":
                is_docs = scope["path"] == "/docs"
                message["headers"] = [
                    *message.get("headers", []),
                    *(
                        (
                            name.encode(),
                            (value.replace(*_INLINE_SCRIPT) if is_docs else value).encode(),
                        )
                        for name, value in _HEADERS.items()
                    ),
                ]
            await send(message)

        await self.app(scope, receive, with_headers if scope["type"] == "http" else send)
