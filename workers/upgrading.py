"""From what serves to what could be faster: engines that were built beside the work are opened, judged and swapped in.

Whatever is wrong with one of them, the engine that serves goes on, and what is told of it says why. Which engines are
wanted, and which one is taken in the end, `models.engines.select` decides; when they are built, `workers.builds`.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass

import torch

from models.bundle import Bundle
from models.engine import Engine, EngineUnavailable, NetName
from models.engines import Choice
from models.evaluator import Answering, CodecEvaluator, Evaluator
from models.spec import Stage
from workers.builds import Builds, Wish
from workers.contracts.catalogue import EngineInfo
from workers.faults import Blame, blame
from workers.offering import info_of
from workers.serving import Serving
from workers.shares import Net
from workers.tasks import EngineFact, EngineKept, EngineSwapped

Choose = Callable[[Bundle, NetName], Choice]
"""The engine for a net of a bundle, not yet prepared, and what could be faster but is not built."""


@dataclass(frozen=True, slots=True)
class Improving:
    """How a runner comes to other engines than those it begins with."""

    builds: Builds
    choose: Choose
    wanted: Mapping[Net, tuple[Wish, ...]]
    """By net: what could be faster."""


class Upgrading:
    """Sees to builds, and makes engines of them. Not thread safe: one device thread calls it."""

    def __init__(self, serving: Serving, improving: Improving) -> None:
        self.serving = serving
        self.choose = improving.choose
        self.facts: list[EngineFact] = []
        """What has happened and was not told yet."""
        self._builds = improving.builds
        self._wanted = {(net.bundle, net.part): wishes for net, wishes in improving.wanted.items()}
        for wishes in improving.wanted.values():
            self._builds.want(wishes)
        self._tell()

    def look(self) -> Candidates | None:
        """See to the builds, cheaply; after one that has succeeded its engines, to be opened."""
        facts, built = self._builds.look()
        self.facts += facts
        if facts:
            self._tell()
        return None if built is None else Candidates(self, built)

    def want(self, net: Net, choice: Choice) -> None:
        """What could still be faster than the choice made now."""
        wishes = wishes_of(self.serving.bundles[net.bundle], choice)
        self._wanted[net.bundle, net.part] = wishes
        self._builds.want(wishes)

    def refuse(self, wish: Wish, net: Net, reason: str) -> None:
        """An engine that was built does not serve."""
        self._builds.failed[wish] = reason
        self.facts.append(EngineKept(net.bundle, net.part.value, wish.engine, wish.precision, reason))

    def stop(self) -> None:
        """End what is being built; repeat-safe."""
        self.facts += self._builds.stop()
        self._tell()

    def _tell(self) -> None:
        for (bundle, part), wishes in self._wanted.items():
            net = self.serving.newest(bundle, part)
            info = self.serving.info(net)
            if info is not None:
                self.serving.tell(net, info.evolve(building=self._pending(wishes), failed=self._failed(wishes)))

    def _pending(self, wishes: tuple[Wish, ...]) -> str:
        return ", ".join(str(wish) for wish in wishes if self._builds.is_pending(wish))

    def _failed(self, wishes: tuple[Wish, ...]) -> str:
        failed = self._builds.failed
        return "; ".join(f"{wish}: {failed[wish]}" for wish in wishes if wish in failed)

    def settled(self) -> None:
        """Candidates have been swapped in or not: tell what is so now."""
        self._tell()


@dataclass(slots=True)
class _Candidate:
    """A prepared engine that may take over a net."""

    net: Net
    answering: Answering
    info: EngineInfo


class Candidates:
    """The engines that one build has brought, those of a bundle's nets."""

    def __init__(self, upgrading: Upgrading, built: Wish) -> None:
        self._upgrading, self._built = upgrading, built
        self._opened: list[_Candidate] = []

    @torch.inference_mode()
    def open(self) -> None:
        """Choose again for each net; what is new is opened, warmed up and judged. An error of the device escapes."""
        serving, name = self._upgrading.serving, self._built.bundle
        for part in serving.parts(name):
            net = serving.newest(name, part)
            try:
                self._consider(net)
            except Exception as error:
                if blame(error) is Blame.DEVICE:
                    raise
                self._upgrading.refuse(self._built, net, str(error) or type(error).__name__)

    def swap(self) -> None:
        """Jobs that begin from now on are served by what was opened."""
        for each in self._opened:
            self._swap(each)
        self._opened = []
        self._upgrading.settled()

    def _consider(self, net: Net) -> None:
        upgrading = self._upgrading
        bundle = upgrading.serving.bundles[net.bundle]
        choice = upgrading.choose(bundle, net.part)
        was, info = upgrading.serving.info(net), info_of(choice)
        if was is not None and (was.engine, was.precision) == (info.engine, info.precision):
            choice.engine.close()
            upgrading.want(net, choice)
            upgrading.serving.tell(net, was.evolve(reason=info.reason))
            built = self._built
            upgrading.facts.append(EngineKept(net.bundle, net.part.value, built.engine, built.precision, info.reason))
            return
        choice.engine.prepare()
        answering = _answering(bundle, net.part, engine=choice.engine, before=upgrading.serving[net])
        if upgrading.serving[net].caches and not answering.caches:
            answering.close()
            raise EngineUnavailable("it cannot reuse features, as the engine can that serves")
        upgrading.want(net, choice)
        self._opened.append(_Candidate(net, answering, info))

    def _swap(self, each: _Candidate) -> None:
        net, info, upgrading = each.net, each.info, self._upgrading
        was = upgrading.serving.info(net)
        upgrading.serving.swap(net.bundle, net.part, answering=each.answering, info=info)
        told = ("", "") if was is None else (was.engine, was.precision)
        fact = EngineSwapped(net.bundle, net.part.value, info.engine, info.precision, *told, info.reason)
        upgrading.facts.append(fact)


def wishes_of(bundle: Bundle, choice: Choice) -> tuple[Wish, ...]:
    """What could be faster than a choice."""
    return tuple(Wish(bundle.spec.name, bundle.path, engine, precision.value) for engine, precision in choice.wanted)


def _answering(bundle: Bundle, part: NetName, *, engine: Engine, before: Answering) -> Answering:
    if not isinstance(part, Stage):
        return CodecEvaluator(engine)
    if isinstance(before, Evaluator) and before.device == engine.device:
        return before.beside(engine)
    return Evaluator(bundle.net(part), engine)
