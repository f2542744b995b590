"""HTTP parsing with a bound on headers, and with our envelope for requests that are not HTTP."""

from __future__ import annotations

from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol

from moestro.gateway import failure, request_id

MAX_HEAD_BYTES = 64 * 1024


class BoundedHttp(HttpToolsProtocol):
    """uvicorn's parser waits for the end of a request's head however long it grows; this one gives
    up on a head that is still open after `MAX_HEAD_BYTES`."""

    _in_head = True
    _head_bytes = 0

    def data_received(self, data: bytes) -> None:
        if self._in_head:
            self._head_bytes += len(data)
        super().data_received(data)
        if self._in_head and self._head_bytes > MAX_HEAD_BYTES and not self.transport.is_closing():
            self.send_400_response("too long")

    def on_headers_complete(self) -> None:
        self._in_head = False
        self._head_bytes = 0
        super().on_headers_complete()

    def on_message_complete(self) -> None:
        self._in_head = True
        super().on_message_complete()

    def send_400_response(self, msg: str) -> None:
        error = failure.bad_request(
            "This is not a valid HTTP request.",
            code="invalid_http",
            hint=f"Its head may take {MAX_HEAD_BYTES} bytes.",
        )
        body = error.body()
        self.transport.write(
            b"HTTP/1.1 400 Bad Request\r\ncontent-type: application/json\r\n"
            b"content-length: %d\r\nconnection: close\r\n%b: %b\r\n\r\n%b"
            % (len(body), request_id.HEADER, request_id.new_request_id(), body)
        )
        self.transport.close()
