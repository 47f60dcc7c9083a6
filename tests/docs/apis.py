"""The APIs that the documentation speaks of, on loopback: each refuses what does not carry the real key."""

import base64
import json
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from urllib.parse import parse_qs, urlsplit

from attrs import Factory, define

KEY = "real-key-0c6f1d7a94e2b358-5d20c7f4"
ENVIRONMENT = ("GITHUB_TOKEN", "OPENAI_API_KEY", "STRIPE_KEY", "PARTNER_KEY", "DEEPL_KEY", "MAPS_KEY", "TOKEN_KEY")
"""Where the documentation's programs look for their keys."""


@define
class Apis:
    """A running server. `seen` holds method and target of what carried the key; `refused` of what did not."""

    url: str = ""
    seen: list[str] = Factory(list)
    refused: list[str] = Factory(list)
    headers: list[dict[str, str]] = Factory(list)


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    apis: Apis

    def log_message(self, *_args: object) -> None:
        pass

    def answer(self) -> None:
        self.rfile.read(int(self.headers.get("content-length", 0)))
        request = f"{self.command} {self.path}"
        if not _has_key(self.path, {name.lower(): value for name, value in self.headers.items()}):
            self.apis.refused.append(request)
            self.reply(401, "text/plain", "who are you?")
            return
        self.apis.seen.append(request)
        self.apis.headers.append({name.lower(): value for name, value in self.headers.items()})
        path = urlsplit(self.path).path
        if path == "/zen":
            self.reply(200, "text/plain", "Keep it logically awesome.")
        elif path.endswith("/chat/completions"):
            self.reply(200, "application/json", json.dumps(CHAT))
        else:
            self.reply(200, "application/json", json.dumps({"path": path}))

    do_GET = do_POST = do_PUT = do_PATCH = do_DELETE = answer  # noqa: N815 - http.server's names

    def reply(self, status: int, kind: str, text: str) -> None:
        self.send_response(status)
        self.send_header("Content-Type", kind)
        self.send_header("Content-Length", str(len(text)))
        self.end_headers()
        self.wfile.write(text.encode())


CHAT = {
    "id": "chatcmpl-1",
    "object": "chat.completion",
    "created": 1790000000,
    "model": "gpt-5",
    "choices": [
        {"index": 0, "finish_reason": "stop", "message": {"role": "assistant", "content": "A proxy stands between."}}
    ],
    "usage": {"prompt_tokens": 9, "completion_tokens": 4, "total_tokens": 13},
}


def _has_key(target: str, headers: dict[str, str]) -> bool:
    scheme, _, value = headers.get("authorization", "").partition(" ")
    if scheme == "Basic":
        value = base64.b64decode(value).decode().replace(":", " ").strip().split(" ")[-1]
    in_query = parse_qs(urlsplit(target).query).get("key", [""])
    return KEY in {value, headers.get("x-api-key"), *in_query}


@contextmanager
def running_apis() -> Iterator[Apis]:
    """Run the server until the block ends."""
    apis = Apis()
    handler = type("Handler", (_Handler,), {"apis": apis})
    server = ThreadingHTTPServer(("127.0.0.1", 0), handler)
    server.daemon_threads = True
    apis.url = f"http://127.0.0.1:{server.server_port}"
    thread = threading.Thread(target=server.serve_forever, args=(0.01,), daemon=True)
    thread.start()
    try:
        yield apis
    finally:
        server.shutdown()
        server.server_close()
        thread.join()
