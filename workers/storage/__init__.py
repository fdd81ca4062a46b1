"""The object store: immutable files by relative path, in a directory or at an object store's URL.

`Store` is the seam; `open_store` makes the one that the settings name. Workers write to it, the service reads from it,
so it knows of nothing but the contracts.
"""

from __future__ import annotations

from pathlib import Path
from urllib.parse import unquote, urlsplit

from workers.contracts.errors import StoreError
from workers.contracts.settings import Settings
from workers.storage.directory import DirectoryStore
from workers.storage.store import Found, Store

__all__ = ["DirectoryStore", "Found", "Store", "open_store"]


def open_store(settings: Settings) -> Store:
    """The store of this process; raises StoreError, with what to do, unless it can be written to now."""
    if settings.store is None:
        return DirectoryStore(settings.store_dir)
    parts = urlsplit(settings.store)
    if parts.scheme == "file":
        return DirectoryStore(Path(unquote(parts.path)))
    try:
        from workers.storage.objects import ObjectStore
    except ModuleNotFoundError as error:
        remedy = "install it with: pip install 'gridit-serve[objects]'"
        raise StoreError(f"GRIDIT_STORE={settings.store} needs {error.name}; {remedy}") from error
    try:
        store = ObjectStore(settings.store)
        store.check()
    except StoreError as error:
        remedy = "check that URL and, in the environment, the credentials, the region and the endpoint of its provider"
        raise StoreError(f"GRIDIT_STORE={settings.store} cannot be used: {error.message}; {remedy}") from error
    return store
