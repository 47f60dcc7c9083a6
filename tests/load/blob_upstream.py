"""An upstream for large bodies, run as a process of its own: it prints its port and serves until it is ended.

    GET  /download/N   N bytes, made of numbered blocks
    GET  /endless      chunks until the client leaves
    POST /upload       takes the body as fast as it comes; answers its length and checksum
    POST /slow         takes 1 MB of the body a second for 4 s, the rest as fast as it comes
    POST /stuck        takes nothing
    GET  /moved        how many bytes /endless has sent and /slow has taken so far

Everything but /moved wants the real key.
"""

import json
import os
import socketserver
import struct
import time
import zlib
from collections.abc import Iterator
from typing import BinaryIO

BLOCK = 262_144
_FILLING = bytes(range(256)) * (BLOCK // 256)


def blocks(length: int) -> Iterator[bytes]:
    """Yield `length` bytes in blocks of which each begins with its number, so that none can be lost or swapped."""
    for number in range(length // BLOCK):
        yield struct.pack(">Q", number) + _FILLING[8:]
    if rest := length % BLOCK:
        yield _FILLING[:rest]


def checksum(chunks: Iterator[bytes]) -> tuple[int, int]:
    """Return length and CRC-32."""
    length = crc = 0
    for chunk in chunks:
        length += len(chunk)
        crc = zlib.crc32(chunk, crc)
    return length, crc


class _Moved:
    endless = 0
    slow = 0


class _Handler(socketserver.StreamRequestHandler):
    rbufsize = 1 << 20
    disable_nagle_algorithm = True

    def handle(self) -> None:
        try:
            while self._one():
                pass
        except OSError:
            pass  # the proxy has left, which several tests are about

    def _one(self) -> bool:
        line = self.rfile.readline()
        if not line:
            return False
        _, path, _ = line.decode().split(" ")
        headers = {}
        while (line := self.rfile.readline()) not in {b"\r\n", b""}:
            name, _, value = line.decode().partition(":")
            headers[name.lower()] = value.strip()
        if path == "/moved":
            self._json({"endless": _Moved.endless, "slow": _Moved.slow})
        elif headers.get("authorization") != f"Bearer {os.environ['DEMO_KEY']}":
            self.wfile.write(b"HTTP/1.1 401 Unauthorized\r\nContent-Length: 0\r\nConnection: close\r\n\r\n")
            return False
        elif path.startswith("/download/"):
            self._download(int(path.rpartition("/")[2]))
        elif path == "/endless":
            self._endless()
        elif path == "/upload":
            length, crc = checksum(_body(self.rfile, headers))
            self._json({"length": length, "crc": crc})
        elif path == "/slow":
            self._slow()
        elif path == "/stuck":
            time.sleep(60)
        return True

    def _json(self, value: object) -> None:
        body = json.dumps(value).encode()
        self.wfile.write(b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n%s" % (len(body), body))

    def _download(self, length: int) -> None:
        self.wfile.write(b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n" % length)
        for block in blocks(length):
            self.wfile.write(block)

    def _endless(self) -> None:
        self.wfile.write(b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n")
        chunk = b"%x\r\n%s\r\n" % (65536, _FILLING[:65536])
        while True:
            self.wfile.write(chunk)
            _Moved.endless += 65536

    def _slow(self) -> None:
        end = time.monotonic() + 4
        while taken := self.connection.recv(100_000):
            _Moved.slow += len(taken)
            if time.monotonic() < end:
                time.sleep(len(taken) / 1_000_000)


def _body(source: BinaryIO, headers: dict[str, str]) -> Iterator[bytes]:
    left = int(headers.get("content-length", 0))
    while left:
        chunk = source.read(min(left, BLOCK))
        if not chunk:
            return
        left -= len(chunk)
        yield chunk
    if headers.get("transfer-encoding") == "chunked":
        while size := int(source.readline(), 16):
            yield source.read(size)
            source.readline()
        source.readline()


class _Server(socketserver.ThreadingTCPServer):
    daemon_threads = True
    request_queue_size = 64


if __name__ == "__main__":
    with _Server(("127.0.0.1", 0), _Handler) as server:
        print(server.server_address[1], flush=True)  # noqa: T201 - how the test learns the port
        server.serve_forever()
