"""An HTTP server on this machine that plays an OpenAI-compatible endpoint, well or badly."""

import json
import threading
from collections.abc import Callable
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

Reply = tuple[int, Any]
"""Status, and a body: JSON, or text as it is."""


def completion(text: str | None, finish: str | None = "stop") -> Reply:
    choice = {"index": 0, "message": {"role": "assistant", "content": text}}
    usage = {"prompt_tokens": 7, "completion_tokens": 3, "total_tokens": 10}
    return 200, {"choices": [choice | {"finish_reason": finish}], "usage": usage}


class ChatServer:
    """Answers request number n (from 1) with `play(n, body)`; remembers bodies and headers."""

    def __init__(self, play: Callable[[int, dict[str, Any]], Reply]) -> None:
        self.play = play
        self.bodies: list[dict[str, Any]] = []
        self.headers: list[dict[str, str]] = []
        lock = threading.Lock()

        class Handler(BaseHTTPRequestHandler):
            def do_POST(handler) -> None:
                raw = handler.rfile.read(int(handler.headers["content-length"]))
                body = {"path": handler.path, **json.loads(raw)}
                with lock:
                    self.bodies.append(body)
                    self.headers.append({k.lower(): v for k, v in handler.headers.items()})
                    number = len(self.bodies)
                status, reply = self.play(number, body)
                content = (reply if isinstance(reply, str) else json.dumps(reply)).encode()
                handler.send_response(status)
                kind = "text/html" if isinstance(reply, str) else "application/json"
                handler.send_header("content-type", kind)
                handler.send_header("content-length", str(len(content)))
                handler.send_header("retry-after-ms", "5")  # tests must not wait
                handler.end_headers()
                handler.wfile.write(content)

            def log_message(self, *args: Any) -> None:
                pass

        self._server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self._server.daemon_threads = True
        # A client that hangs up is what some tests are about.
        self._server.handle_error = lambda *_: None  # type: ignore[method-assign]
        self.address = f"http://127.0.0.1:{self._server.server_port}/v1"
        threading.Thread(target=self._server.serve_forever, args=(0.01,), daemon=True).start()

    @property
    def asked(self) -> int:
        """Requests so far."""
        return len(self.bodies)

    def close(self) -> None:
        """Stop listening."""
        self._server.shutdown()
        self._server.server_close()
