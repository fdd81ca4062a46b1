"""Builds as child processes of this worker, one at a time on a machine; failures as the engine cache remembers them."""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import ExitStack

from models import bundle
from models.builds import building
from models.compiling import owned
from models.compiling.engine_cache import EngineCache
from models.compiling.engine_failures import Failures
from models.compiling.turns import Turn
from models.engine import Precision
from workers.builds import Build, Ended, Wish

LOCK = "background.lock"
"""In the engine cache: held while a worker's build runs."""


class ChildBuilder:
    """Begins builds by `models.builds.building`."""

    def __init__(
        self, *, tries: int, cache: EngineCache | None = None, program: Sequence[str] = building.BUILDER
    ) -> None:
        """`tries`: failures, of any process, after which nothing is begun. `program` is what the child runs."""
        self._tries, self._program = tries, program
        self._cache = cache or EngineCache.default()

    def refuses(self, wish: Wish) -> str:
        """How often it has failed, and of what, if that is enough."""
        known = bundle.read_spec(wish.path)
        attempt = building.attempt_of(known, engine=wish.engine, precision=Precision(wish.precision))
        failures = Failures(self._cache.root)
        failure = failures.find(attempt)
        if failure is None or failures.may_try(attempt, tries=self._tries):
            return ""
        return f"failed {failure.count} times, not tried again; the last time: {failure.reason}"

    def start(self, wish: Wish) -> Build | None:
        """None while another process has the turn. `NotOwn` or OSError where the cache cannot be written to."""
        owned.make_directory(self._cache.root)
        with ExitStack() as stack:
            turn = stack.enter_context(Turn(self._cache.root / LOCK))
            if not turn.mine:
                return None
            precision = Precision(wish.precision)
            child = building.Build.start(
                wish.path, engine=wish.engine, precision=precision, cache=self._cache, program=self._program
            )
            return _Child(child, stack.pop_all())


class _Child:
    """A running build and the turn that it has."""

    def __init__(self, child: building.Build, turn: ExitStack) -> None:
        self._child, self._turn = child, turn

    def poll(self) -> Ended | None:
        match self._child.poll():
            case building.Progress():
                return None
            case building.Succeeded():
                self._turn.close()
                return Ended()
            case building.Failed(reason):
                self._turn.close()
                return Ended(reason)

    def stop(self) -> None:
        self._child.stop()
        self._turn.close()
