"""An upstream that gives back the credential it was sent wherever an answer has room for it, except in the body.

/ok /created          plain answers
/headers/FORM         the credential in a response header: whole, bare, base64, hex, percent, decoded, target
/redirect /link       the credential in Location and Link
/reason               the credential in the reason phrase
/status-line /field   the credential in a line that is not HTTP
/length               the credential in a Content-Length
/chunk                the credential in a chunk's size and extension, after a good head
/surplus              a second response after the first, with the credential in it
/cut                  an answer that breaks off
/401 /407 /500        statuses, with the credential in WWW-Authenticate where it belongs
/events               a stream
"""

import base64
import socketserver
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from urllib.parse import quote_from_bytes, unquote_to_bytes

_OK = b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n"


def _forms(credential: bytes, target: bytes) -> dict[str, bytes]:
    bare = credential.rpartition(b" ")[2] or target.partition(b"key=")[2]
    return {
        "whole": credential or target,
        "bare": bare,
        "base64": base64.b64encode(bare),
        "hex": bare.hex().encode(),
        "percent": quote_from_bytes(unquote_to_bytes(bare), safe="").encode(),
        "decoded": base64.b64decode(bare) if credential.startswith(b"Basic ") else unquote_to_bytes(bare),
        "target": target,
    }


def _quoting(credential: bytes, target: bytes) -> dict[str, bytes]:
    forms = _forms(credential, target)
    plain, quoted = forms["bare"], forms["whole"]
    return {
        **{
            f"/headers/{form}": _OK + b"X-Reflected: <" + value + b">\r\nETag: " + value + b"\r\n\r\nok"
            for form, value in forms.items()
        },
        "/ok": _OK + b"\r\nok",
        "/created": b"HTTP/1.1 201 Created\r\nContent-Length: 0\r\n\r\n",
        "/redirect": b"HTTP/1.1 302 Found\r\nLocation: /next?key=" + plain + b"\r\nContent-Length: 0\r\n\r\n",
        "/link": _OK + b"Link: <" + target + b'&page=2>; rel="next"\r\n\r\nok',
        "/reason": b"HTTP/1.1 200 " + quoted + b"\r\nContent-Length: 2\r\n\r\nok",
        "/status-line": b"HTTP/9 " + quoted + b"\r\n\r\n",
        "/field": b"HTTP/1.1 200 OK\r\n" + quoted + b"\r\nX\x01: " + quoted + b"\r\n\r\n",
        "/length": b"HTTP/1.1 200 OK\r\nContent-Length: " + quoted + b"\r\n\r\n",
        "/chunk": b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n2;" + plain + b"\r\nok\r\n" + quoted + b"\r\n",
        "/surplus": _OK + b"\r\nokHTTP/1.1 200 OK\r\nX-Reflected: " + quoted + b"\r\nContent-Length: 0\r\n\r\n",
        "/cut": b"HTTP/1.1 200 OK\r\nContent-Length: 100\r\n\r\nhalf",
        "/401": b'HTTP/1.1 401 No\r\nWWW-Authenticate: Bearer realm="' + quoted + b'"\r\nContent-Length: 0\r\n\r\n',
        "/407": b'HTTP/1.1 407 No\r\nProxy-Authenticate: Basic realm="' + quoted + b'"\r\nContent-Length: 0\r\n\r\n',
        "/500": b"HTTP/1.1 500 Oh\r\nX-Debug: " + quoted + b"\r\nContent-Length: 0\r\n\r\n",
    }


_CLOSING = {"/status-line", "/field", "/length", "/chunk", "/cut", "/surplus"}


class _Handler(socketserver.StreamRequestHandler):
    disable_nagle_algorithm = True

    def handle(self) -> None:
        while line := self.rfile.readline():
            target = line.split(b" ")[1]
            fields = {}
            while (line := self.rfile.readline()) not in {b"\r\n", b""}:
                name, _, value = line.partition(b":")
                fields[name.lower()] = value.strip()
            self.rfile.read(int(fields.get(b"content-length", 0)))
            path = target.partition(b"?")[0].decode()
            if path == "/events":
                self._events()
                continue
            credential = fields.get(b"authorization") or fields.get(b"x-real") or b""
            self.wfile.write(_quoting(credential, target)[path])
            if path in _CLOSING:
                return

    def _events(self) -> None:
        self.wfile.write(b"HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\nTransfer-Encoding: chunked\r\n\r\n")
        for number in range(5):
            event = b"data: %d\n\n" % number
            self.wfile.write(b"%x\r\n%s\r\n" % (len(event), event))
            time.sleep(0.01)
        self.wfile.write(b"0\r\n\r\n")


FORMS = [*_forms(b"", b"")]
PATHS = [*_quoting(b"", b""), "/events"]


class _Server(socketserver.ThreadingTCPServer):
    daemon_threads = True
    request_queue_size = 64

    def handle_error(self, *args: object) -> None:
        pass


@contextmanager
def running_reflection() -> Iterator[str]:
    """Run the upstream until the block ends; yields its URL."""
    with _Server(("127.0.0.1", 0), _Handler) as server:
        thread = threading.Thread(target=server.serve_forever, args=(0.01,), daemon=True)
        thread.start()
        yield f"http://127.0.0.1:{server.server_address[1]}"
        server.shutdown()
        thread.join()
