"""The model hub: names of a repository's files, and the files, by way of huggingface_hub (extra `latent`).

The library's own settings hold: HF_ENDPOINT, HF_HOME, HF_HUB_OFFLINE, tokens. A revision is always resolved to a
commit, which is the name of the folder that is handed out. Offline, the cache is looked at and nothing else.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from types import ModuleType
from typing import Any

from models.checkpoint.errors import HubError

KNOWN_FILES = {"snehalstomar/GriDiT": "GriDiT_stage1_sky_ckpt.pt"}
"""What is meant where a repository is named and no file."""


@dataclass(frozen=True, slots=True)
class Hub:
    """A hub and a cache; None: as the environment says."""

    endpoint: str | None = None
    cache: Path | None = None
    timeout_seconds: float = 10.0
    """For the first answer."""

    @staticmethod
    def known_file(repository: str) -> str | None:
        """The file that is meant by the repository's name."""
        return KNOWN_FILES.get(repository)

    def names(self, repository: str, *, revision: str | None) -> tuple[str, ...]:
        """Every file of a repository; offline, those that are in the cache."""
        library = _library(repository)
        if library.constants.is_offline_mode():
            folder = self._cached(library, repository, revision)
            return tuple(file.relative_to(folder).as_posix() for file in folder.rglob("*") if file.is_file())
        api = library.HfApi(endpoint=self.endpoint)
        try:
            info = api.model_info(repository, revision=revision, timeout=self.timeout_seconds)
        except Exception as error:
            raise _explained(library, repository, revision, error) from error
        return tuple(str(file.rfilename) for file in info.siblings or ())

    def fetch(self, repository: str, names: Sequence[str], *, revision: str | None) -> Path:
        """The folder that has these files; its name is the commit."""
        library = _library(repository)
        if library.constants.is_offline_mode():
            return self._cached(library, repository, revision)
        try:
            folder = library.snapshot_download(
                repository,
                revision=revision,
                allow_patterns=list(names),
                endpoint=self.endpoint,
                cache_dir=self.cache,
            )
        except Exception as error:
            raise _explained(library, repository, revision, error) from error
        return Path(folder)

    def _cached(self, library: ModuleType, repository: str, revision: str | None) -> Path:
        """The cached folder of a branch, tag or commit."""
        wanted = revision or library.constants.DEFAULT_REVISION
        try:
            cached = library.scan_cache_dir(self.cache).repos
        except library.errors.CacheNotFound:
            cached = ()
        for snapshot in (one for repo in cached if repo.repo_id == repository for one in repo.revisions):
            if wanted in snapshot.refs or snapshot.commit_hash.startswith(wanted):
                return Path(snapshot.snapshot_path)
        raise HubError(
            _named(repository, revision),
            found="nothing in the cache, and HF_HUB_OFFLINE is set",
            expected="its files",
            remedy="import it once without HF_HUB_OFFLINE, or name a folder on this machine",
        )


def _library(repository: str) -> Any:
    try:
        import huggingface_hub
        from huggingface_hub import constants, errors  # noqa: F401 - used as attributes
    except ImportError as error:
        remedy = "pip install 'gridit-serve[latent]', or name a path on this machine"
        raise HubError(repository, found="no such path", expected="huggingface_hub for ids", remedy=remedy) from error
    return huggingface_hub


def _explained(library: Any, repository: str, revision: str | None, error: Exception) -> HubError:
    errors, where = library.errors, _named(repository, revision)
    if isinstance(error, errors.GatedRepoError):
        remedy = "accept its terms on the hub, and log in: hf auth login"
        return HubError(where, found="a repository with conditions", expected="one open to you", remedy=remedy)
    if isinstance(error, errors.RepositoryNotFoundError):
        remedy = "check the spelling; for a private one log in: hf auth login"
        return HubError(where, found="no such repository on the hub", expected="OWNER/NAME", remedy=remedy)
    if isinstance(error, errors.RevisionNotFoundError):
        remedy = "check the spelling, or leave it out for the newest"
        return HubError(where, found="no such revision", expected="a branch, a tag or a commit", remedy=remedy)
    return HubError(
        where,
        found=f"no answer from the hub ({type(error).__name__}: {_first_line(error)})",
        expected="its files",
        remedy="check the network and HF_ENDPOINT and try again; HF_HUB_OFFLINE=1 takes what is in the cache",
    )


def _first_line(error: Exception) -> str:
    return str(error).strip().split("\n")[0][:160]


def _named(repository: str, revision: str | None) -> str:
    return f"{repository}@{revision}" if revision else repository
