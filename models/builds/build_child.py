"""`python -m models.builds.build_child COMMISSION`, which `building` starts: facts as lines, then an end.

It is nice to whoever serves, the first to go when memory runs out, and never outlives its parent. Libraries write what
they like to standard output, so the lines go through a copy of it and the descriptor itself leads to standard error.
"""

from __future__ import annotations

import ctypes
import faulthandler
import os
import signal
import sys
import threading
import traceback
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from models.builds.building import Commission, Line

NICENESS = 10
FIRST_TO_GO = "1000"
PR_SET_PDEATHSIG = 1


def main(commission: str) -> int:
    """Exit status: 0 when every plan is in the cache."""
    die_with_parent()
    step_back()
    faulthandler.enable()
    last = None
    with os.fdopen(os.dup(1), "w", buffering=1) as out:
        os.dup2(2, 1)
        for last in tell(commission):
            out.write(last.model_dump_json(exclude_defaults=True) + "\n")
    return 0 if last is not None and last.done else 1


def tell(commission: str) -> Iterator[Line]:
    """The build as lines, to its end, good or bad."""
    from models.builds.building import Commission, Line  # heavy, so after the leash is on

    try:
        yield from build(Commission.model_validate_json(commission))
    except MemoryError:
        yield Line(failed="memory ran out")
    except Exception as error:  # noqa: BLE001 - the parent must be told, whatever it is
        traceback.print_exc()
        known = type(error).__module__.startswith("models.") or type(error) is ValueError
        yield Line(failed=str(error) if known else f"{type(error).__name__}: {error}")


def build(commission: Commission) -> Iterator[Line]:
    """Every net of the bundle, through the cache; what is damaged there is made again."""
    from models.builds.building import Line
    from models.builds.compile import Phase, compile_bundle
    from models.compiling.build import OnDamage
    from models.compiling.engine_cache import EngineCache

    facts = compile_bundle(
        commission.bundle,
        engine=commission.engine,
        targets=commission.targets,
        precision=commission.precision,
        buckets=commission.buckets,
        on_damage=OnDamage.REBUILD,
        cache=EngineCache(commission.cache),
    )
    for fact in facts:
        if isinstance(fact, Phase):
            yield Line(doing=fact.doing, graph=fact.graph, index=fact.index, total=fact.total)
    yield Line(done=True)


def die_with_parent() -> None:
    """By the kernel's word where it can give it, which reaches a compiler too, else as soon as Python runs again."""
    if sys.platform == "linux":
        ctypes.CDLL(None).prctl(PR_SET_PDEATHSIG, signal.SIGKILL)
    threading.Thread(target=_watch, name="parent", daemon=True).start()


def step_back() -> None:
    """Leave processor and memory to others first."""
    os.nice(NICENESS)
    with suppress(OSError):  # not Linux, or not allowed
        Path("/proc/self/oom_score_adj").write_text(FIRST_TO_GO)


def _watch() -> None:
    """Nothing is ever written to standard input; it ends with the parent."""
    while os.read(0, 1):
        pass
    os.kill(os.getpid(), signal.SIGKILL)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1]))
