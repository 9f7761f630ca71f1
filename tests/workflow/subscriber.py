"""A subscriber as its daprd sees it: takes every message, records it, and says nothing.

Usage: ``python -m tests.workflow.subscriber PORT FILE TOPIC...``
"""

import json
import sys
import threading
import time
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any


def make_handler(record: Path, topics: list[str]) -> type[BaseHTTPRequestHandler]:
    """A handler that records into one file, one JSON object a line."""
    lock = threading.Lock()
    routes = {f"/topics/{topic}": topic for topic in topics}

    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def do_GET(self) -> None:
            subscriptions = [
                {"pubsubname": "pubsub-redis", "topic": topic, "route": route} for route, topic in routes.items()
            ]
            self._answer(subscriptions if self.path == "/dapr/subscribe" else {})

        def do_POST(self) -> None:
            body = self.rfile.read(int(self.headers["Content-Length"]))
            delivery = {
                "topic": routes[self.path],
                "content_type": self.headers["Content-Type"],
                "at": time.time(),
                "body": json.loads(body),
            }
            with lock, record.open("a") as file:
                file.write(json.dumps(delivery) + "\n")
            self._answer({"status": "SUCCESS"})

        def _answer(self, value: Any) -> None:
            body = json.dumps(value).encode()
            self.send_response(200)
            self.send_header("Content-Type", "application/json")
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, format: str, *args: Any) -> None:  # noqa: A002 - the base class's name
            """Nothing: what came is in the record."""

    return Handler


def main() -> None:
    """Serves until it is killed."""
    port, record, *topics = sys.argv[1:]
    ThreadingHTTPServer(("127.0.0.1", int(port)), make_handler(Path(record), topics)).serve_forever()


if __name__ == "__main__":
    main()
