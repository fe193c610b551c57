"""Around every answer: the headers that tell a browser what must not be done with it.

The page runs what the service itself sends and nothing else, nobody may frame it or read its
answers from another site, and what is said of a patient stays in no cache.
"""

from __future__ import annotations

from starlette.types import ASGIApp, Message, Receive, Scope, Send

_POLICY = (
    "default-src 'none'",
    "script-src 'self'",
    "style-src 'self'",
    "img-src 'self' blob: data:",
    "connect-src 'self'",
    "form-action 'self'",
    "base-uri 'none'",
    "frame-ancestors 'none'",
    "require-trusted-types-for 'script'",
    "trusted-types 'none'",
)
_UNUSED = (
    "accelerometer", "camera", "display-capture", "geolocation", "gyroscope", "magnetometer",
    "microphone", "midi", "payment", "screen-wake-lock", "usb", "xr-spatial-tracking",
)  # fmt: skip
HEADERS = {
    "Content-Security-Policy": "; ".join(_POLICY),
    "X-Content-Type-Options": "nosniff",
    "Referrer-Policy": "no-referrer",
    "Cross-Origin-Opener-Policy": "same-origin",
    "Cross-Origin-Resource-Policy": "same-origin",
    "Permissions-Policy": ", ".join(f"{feature}=()" for feature in _UNUSED),
}
_RAW = [(name.lower().encode(), value.encode()) for name, value in HEADERS.items()]
_CACHE = b"cache-control"
_RAW_UNKEPT = [*_RAW, (_CACHE, b"no-store")]  # where the answer does not say it itself


class Protect:
    """ASGI middleware."""

    def __init__(self, app: ASGIApp) -> None:
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        async def send_protected(message: Message) -> None:
            if message["type"] == "http.response.start":
                own = message["headers"]
                says = any(name == _CACHE for name, _ in own)
                message["headers"] = [*own, *(_RAW if says else _RAW_UNKEPT)]
            await send(message)

        await self._app(scope, receive, send_protected)
