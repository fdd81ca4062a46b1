"""A store at the URL of an object store: s3://, gs://, az:// and whatever else obstore speaks.

Every put is conditional (If-None-Match), so a name is given once. Credentials come from the environment alone, by the
provider's own variables, and no message holds them. Whatever may pass is tried again here, for at most
`RETRY_SECONDS`; what lasts is told as StoreUnavailable.
"""

from __future__ import annotations

import os
import re
import secrets
from collections.abc import Collection, Iterator
from contextlib import contextmanager, suppress
from datetime import timedelta
from itertools import chain
from typing import TYPE_CHECKING
from urllib.parse import urlsplit

import obstore
from obstore import exceptions, store

from workers.contracts.errors import StorageFull, StoreError, StoreGone, StoreUnavailable
from workers.contracts.job import StoredObject
from workers.storage.store import Found, Store, checked

if TYPE_CHECKING:
    from obstore.store import ClientConfig, RetryConfig

CHUNK = 1024 * 1024
"""Bytes of one ranged read: a slow reader holds no connection between two."""
RETRY_SECONDS = 20
RETRIES = 6
_RETRY: RetryConfig = {"max_retries": RETRIES, "retry_timeout": timedelta(seconds=RETRY_SECONDS)}
_ENDPOINTS = ("AWS_ENDPOINT_URL_S3", "AWS_ENDPOINT_URL", "AWS_ENDPOINT")
_FULL = ("StorageFull", "QuotaExceeded", "No space left")
_QUERY = re.compile(r"\?\S+")
LONGEST_REASON = 300
PROBES = "files/probes"
"""What a process that died at its start leaves here goes as any file without a record does."""


class ObjectStore(Store):
    """Files below a URL."""

    def __init__(self, url: str) -> None:
        """Nothing is sent yet; raises StoreError for a URL that names no store."""
        remote = urlsplit(url).scheme != "memory"
        try:
            self._store = (
                store.from_url(url, retry_config=_RETRY, client_options=_client()) if remote else store.from_url(url)
            )
        except (exceptions.BaseError, ValueError) as error:
            raise StoreError(_reason(error)) from error

    def check(self) -> None:
        """Raises StoreError unless new names can be written, and only new ones."""
        path = f"{PROBES}/{secrets.token_hex(8)}"
        self._create(path, b"1")
        replaces = self._create(path, b"2")
        self.delete([path])
        if replaces:
            raise StoreError("it overwrites what exists: it does not know conditional puts (If-None-Match)")

    def chunks(self, stored: StoredObject, *, start: int = 0, stop: int | None = None) -> Iterator[bytes]:
        end = stored.bytes if stop is None else stop
        for begin in range(start, end, CHUNK):
            with _told(stored.path):
                piece = obstore.get_range(self._store, checked(stored.path), start=begin, end=min(end, begin + CHUNK))
            yield piece.to_bytes()

    def delete(self, paths: Collection[str]) -> None:
        names = [checked(path) for path in paths]
        try:
            with _told("what is to be deleted"):
                if names:
                    obstore.delete(self._store, names)
        except StoreGone:  # some providers say so, and may have stopped there
            for name in names:
                with suppress(StoreGone), _told(name):
                    obstore.delete(self._store, name)

    def delete_tree(self, prefix: str) -> None:
        self.delete([found.path for found in self.files(checked(prefix))])

    def files(self, prefix: str = "") -> Iterator[Found]:
        with _told(prefix):
            listed = chain.from_iterable(obstore.list(self._store, checked(prefix) if prefix else None))
            for meta in listed:
                yield Found(meta["path"], meta["size"], meta["last_modified"].timestamp())

    def folders(self, prefix: str) -> list[str]:
        with _told(prefix):
            listed = obstore.list_with_delimiter(self._store, checked(prefix))
        return sorted(path.rpartition("/")[2] for path in listed["common_prefixes"])

    def free_bytes(self) -> int | None:
        return None

    def _create(self, path: str, data: bytes) -> bool:
        try:
            with _told(path):
                obstore.put(self._store, checked(path), data, mode="create")
        except _Exists:
            return False
        except StoreGone as error:
            raise StoreError(error.message) from error  # the bucket is
        return True

    def _content(self, path: str) -> bytes:
        with _told(path):
            return obstore.get(self._store, path).bytes().to_bytes()


class _Exists(Exception):
    pass


def _client() -> ClientConfig:
    """Plain http only where the environment names such an endpoint."""
    plain = any(os.environ.get(name, "").startswith("http://") for name in _ENDPOINTS)
    return {"connect_timeout": timedelta(seconds=5), "timeout": timedelta(seconds=30), "allow_http": plain}


@contextmanager
def _told(path: str) -> Iterator[None]:
    """What obstore raises inside, as ours."""
    try:
        yield
    except exceptions.AlreadyExistsError as error:
        raise _Exists from error
    except FileNotFoundError as error:
        raise StoreGone(f"{path} is not in the store: {_reason(error)}") from error
    except (exceptions.PermissionDeniedError, exceptions.UnauthenticatedError, PermissionError) as error:
        raise StoreError(f"the store refuses {path}: {_reason(error)}") from error
    except (exceptions.BaseError, OSError) as error:
        reason = _reason(error)
        if any(word in str(error) for word in _FULL):
            raise StorageFull(f"the store has no room for {path}: {reason}", retry_after=30) from error
        raise StoreUnavailable(f"the store does not answer for {path}: {reason}", retry_after=30) from error


def _reason(error: Exception) -> str:
    """The first line, without queries: they may be signed."""
    return _QUERY.sub("", (str(error).splitlines() or [type(error).__name__])[0])[:LONGEST_REASON]
