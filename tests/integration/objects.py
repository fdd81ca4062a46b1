"""A local S3 server for tests: moto's, behind a gate that can be told to fail.

Credentials and endpoint are set in the environment, as anybody sets them, so worker processes have them too.
"""

from __future__ import annotations

import logging
import threading
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

import boto3
import pytest
from moto.moto_server.werkzeug_app import DomainDispatcherApplication, create_backend_app
from werkzeug.serving import make_server

SECRET = "only-in-the-environment"
BUCKET = "bucket"


@dataclass
class Gate:
    """WSGI in front of moto: fails so many requests with 503, or forgets that puts are conditional."""

    inside: Any
    failures: int = 0
    unconditional: bool = False
    seen: list[tuple[str, str, str]] = field(default_factory=list)
    """Method, path and Range of every request."""

    def __call__(self, environ: dict[str, Any], start: Any) -> Iterable[bytes]:
        self.seen.append((environ["REQUEST_METHOD"], environ["PATH_INFO"], environ.get("HTTP_RANGE", "")))
        if self.unconditional:
            environ.pop("HTTP_IF_NONE_MATCH", None)
        if self.failures > 0:
            self.failures -= 1
            start("503 Slow Down", [("content-type", "text/plain")])
            return [b"slow down"]
        answer: Iterable[bytes] = self.inside(environ, start)
        return answer


@dataclass(frozen=True)
class S3:
    """The server: its gate and its one bucket."""

    gate: Gate
    url: str
    client: Any

    def names(self) -> list[str]:
        """Every object in the bucket."""
        pages = self.client.get_paginator("list_objects_v2").paginate(Bucket=BUCKET)
        return [entry["Key"] for page in pages for entry in page.get("Contents", ())]

    def clear(self) -> None:
        self.gate.failures, self.gate.unconditional = 0, False
        for name in self.names():
            self.client.delete_object(Bucket=BUCKET, Key=name)
        self.gate.seen.clear()


@contextmanager
def running_s3() -> Iterator[S3]:
    """The server on a free port, with an empty bucket, in the environment."""
    logging.getLogger("werkzeug").setLevel(logging.ERROR)
    gate = Gate(DomainDispatcherApplication(create_backend_app))
    server = make_server("127.0.0.1", 0, gate, threaded=True)
    thread = threading.Thread(target=server.serve_forever, daemon=True)
    thread.start()
    endpoint = f"http://127.0.0.1:{server.server_port}"
    with pytest.MonkeyPatch.context() as environment:
        environment.setenv("AWS_ENDPOINT_URL", endpoint)
        environment.setenv("AWS_ACCESS_KEY_ID", "key")
        environment.setenv("AWS_SECRET_ACCESS_KEY", SECRET)
        environment.setenv("AWS_REGION", "us-east-1")
        client = boto3.client("s3", region_name="us-east-1", endpoint_url=endpoint)
        client.create_bucket(Bucket=BUCKET)
        yield S3(gate, f"s3://{BUCKET}/some/prefix", client)
        client.close()
    server.shutdown()
    server.server_close()
    thread.join()
