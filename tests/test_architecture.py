"""The rules of the code base that a reader relies on: layering, sizes, names, and what is never written."""

from __future__ import annotations

import ast
import functools
import importlib.util
import re
import subprocess
import sys
import tomllib
import zipfile
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

import pytest

ROOT = Path(__file__).parents[1]
PACKAGE = ROOT / "bimo"

GPU_KERNELS = PACKAGE / "models" / "kernels_gpu.py"

# Lowest first. A module imports only from its own row and from rows above it in this list.
LAYERS = [
    "errors",
    "files",
    "config",
    "device",
    "compiled",
    "run",
    "text",
    "tokenizer",
    "batches",
    "models",
    "optim",
    "generate",
    "evaluate",
    "report",  # reads only the files of a run; train writes it at its end
    "train",
    "tune",
    "explain",
    "export",
    "serve",
    "scale",
    "commands",
    "cli",
    "__init__",  # the Python interface: bimo.load, bimo.train
    "__main__",
]

# What a newcomer reads to know how training works, in the order of reading.
TRAINING_PATH = [
    "cli.py",
    "commands/train.py",
    "train/pretrain.py",
    "train/loop.py",
    "batches/loader.py",
    "models/llama.py",
    "optim/__init__.py",
    "optim/muon.py",
]
TRAINING_PATH_LINES = 1_200
FILE_LINES = 500
FUNCTION_LINES = 80

VAGUE_NAMES = {"util", "utils", "helper", "helpers", "misc", "common"}
PICKLE_MODULES = {"pickle", "_pickle", "cPickle", "cloudpickle", "dill", "joblib", "marshal", "shelve"}
PICKLE_CALLS = {"torch.load", "torch.save"}
# Put together here, because this file is searched for them too.
REGISTRY_HOSTS = [
    ".".join(parts)
    for parts in [("pypi", "org"), ("files", "pythonhosted"), ("registry", "npmjs"), ("deb", "debian", "org")]
]
MACHINE_PATHS = re.compile(r"(?<![\w.~/])/(?:work|root)" + "/")

IMPORT_NAMES = {
    "pyyaml": "yaml",
    "python-docx": "docx",
    "python-pptx": "pptx",
}  # distribution -> module, where the two differ


class Import(NamedTuple):
    """One imported dotted name; ``deferred`` when it stands inside a function."""

    name: str
    line: int
    deferred: bool


@functools.cache
def tree_of(path: Path) -> ast.Module:
    return ast.parse(path.read_text(encoding="utf-8"), filename=str(path))


def modules() -> list[Path]:
    return sorted(PACKAGE.rglob("*.py"))


def repository_files() -> list[Path]:
    """The files that git knows or would add; none that it ignores."""
    command = ["git", "ls-files", "-z", "--cached", "--others", "--exclude-standard"]
    if not (ROOT / ".git").exists():
        pytest.skip("not a git checkout")
    names = subprocess.run(command, cwd=ROOT, check=True, capture_output=True, text=True).stdout.split("\0")
    return [ROOT / name for name in names if name and (ROOT / name).is_file()]


def python_files() -> list[Path]:
    return [path for path in repository_files() if path.suffix == ".py"]


def lines_of(path: Path) -> int:
    return len(path.read_text(encoding="utf-8").splitlines())


def shown(path: Path, line: int) -> str:
    return f"{path.relative_to(ROOT)}:{line}"


def is_module_name(text: str) -> bool:
    return bool(re.fullmatch(r"bimo(\.\w+)+", text)) and is_module(text)


def is_module(dotted: str) -> bool:
    path = ROOT.joinpath(*dotted.split("."))
    return path.with_suffix(".py").exists() or path.is_dir()


def imports_of(path: Path) -> Iterator[Import]:
    """Every import of a file: at its top, in functions, for type checkers, and module names written as strings."""
    tree = tree_of(path)
    functions = [node for node in ast.walk(tree) if isinstance(node, (ast.FunctionDef, ast.AsyncFunctionDef))]
    inside = {id(node) for function in functions for node in ast.walk(function)}
    for node in ast.walk(tree):
        deferred = id(node) in inside
        if isinstance(node, ast.Import):
            yield from (Import(alias.name, node.lineno, deferred) for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0 and node.module, f"{shown(path, node.lineno)}: import by the full name"
            yield from (Import(f"{node.module}.{alias.name}", node.lineno, deferred) for alias in node.names)
        elif isinstance(node, ast.Constant) and is_module_name(str(node.value)):
            yield Import(str(node.value), node.lineno, True)


def layer_of(path: Path) -> str:
    return path.relative_to(PACKAGE).parts[0].removesuffix(".py")


def test_every_module_has_a_layer() -> None:
    homeless = sorted({layer_of(path) for path in modules()} - set(LAYERS))
    assert not homeless, f"give these a row in LAYERS: {homeless}"


@pytest.mark.parametrize("path", modules(), ids=lambda path: str(path.relative_to(PACKAGE)))
def test_imports_go_down(path: Path) -> None:
    own = layer_of(path)
    for name, line, _ in imports_of(path):
        parts = name.split(".")
        if parts[0] != "bimo" or name == "bimo.__version__":
            continue
        assert len(parts) > 1 and is_module(f"bimo.{parts[1]}"), f"{shown(path, line)}: {name} is above every layer"
        target = parts[1]
        assert LAYERS.index(target) <= LAYERS.index(own), f"{shown(path, line)}: {own} may not import {target}"


def distributions(requirements: list[str]) -> set[str]:
    names = {re.split(r"[\s\[<>=!~;]", requirement, maxsplit=1)[0].lower() for requirement in requirements}
    return {IMPORT_NAMES.get(name, name) for name in names}


@pytest.mark.parametrize("path", modules(), ids=lambda path: str(path.relative_to(PACKAGE)))
def test_imports_are_declared(path: Path) -> None:
    """At the top of a module stands what is always installed; what an extra installs, in the function that needs it.

    The server is made of its extra as a whole: nothing imports it but its command, and inside a function. So it is with
    the kernels for GPUs and Triton, which torch for CUDA brings along.
    """
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    always = distributions(project["dependencies"]) | set(sys.stdlib_module_names) | {"bimo"}
    extras = [names for extra, names in project["optional-dependencies"].items() if extra != "dev"]
    optional = distributions([name for names in extras for name in names])
    if layer_of(path) == "serve":
        always |= distributions(project["optional-dependencies"]["serve"])
    if path == GPU_KERNELS:
        always |= {"triton"}
    for name, line, deferred in imports_of(path):
        package = name.partition(".")[0]
        allowed = always | optional | {"pip"} if deferred else always  # pip is part of every environment
        wanted = "declared" if deferred else "a core dependency"
        assert package in allowed, f"{shown(path, line)}: {package} is not {wanted}"
        inside = deferred or layer_of(path) == "serve" or not name.startswith("bimo.serve")
        assert inside, f"{shown(path, line)}: import the server in the function that starts it"
        assert deferred or name != "bimo.models.kernels_gpu", f"{shown(path, line)}: import it in the function"


def test_files_are_short() -> None:
    lengths = {str(path.relative_to(ROOT)): lines_of(path) for path in python_files()}
    assert not {name: lines for name, lines in lengths.items() if lines > FILE_LINES}


def test_functions_are_short() -> None:
    long = []
    for path in python_files():
        for node in ast.walk(tree_of(path)):
            if isinstance(node, (ast.FunctionDef, ast.AsyncFunctionDef)):
                lines = (node.end_lineno or node.lineno) - node.lineno + 1
                if lines > FUNCTION_LINES:
                    long.append(f"{shown(path, node.lineno)} {node.name}: {lines}")
    assert not long


def test_the_training_path_is_short() -> None:
    lines = {}
    for pattern in TRAINING_PATH:
        found = sorted(PACKAGE.glob(pattern))
        assert found, f"bimo/{pattern} is gone: say in TRAINING_PATH what a newcomer reads instead"
        lines.update({str(path.relative_to(ROOT)): lines_of(path) for path in found})
    assert sum(lines.values()) <= TRAINING_PATH_LINES, lines


def test_names_say_the_job() -> None:
    names = [path.relative_to(ROOT) for path in repository_files()]
    assert not [name for name in names if VAGUE_NAMES & {part.split(".")[0] for part in name.parts}]


@pytest.mark.parametrize("path", modules(), ids=lambda path: str(path.relative_to(PACKAGE)))
def test_caught_errors_are_named(path: Path) -> None:
    for node in ast.walk(tree_of(path)):
        if isinstance(node, ast.ExceptHandler):
            caught = (
                {name.id for name in ast.walk(node.type) if isinstance(name, ast.Name)} if node.type else {"anything"}
            )
            assert not caught & {"anything", "Exception", "BaseException"}, shown(path, node.lineno)


@pytest.mark.parametrize("path", modules(), ids=lambda path: str(path.relative_to(PACKAGE)))
def test_no_pickle(path: Path) -> None:
    for name, line, _ in imports_of(path):
        assert name.partition(".")[0] not in PICKLE_MODULES and name not in PICKLE_CALLS, shown(path, line)
    for node in ast.walk(tree_of(path)):
        if isinstance(node, ast.Attribute):
            assert ast.unparse(node) not in PICKLE_CALLS, shown(path, node.lineno)
        if isinstance(node, ast.keyword):
            assert node.arg != "allow_pickle" or ast.unparse(node.value) == "False", shown(path, node.value.lineno)


def test_no_registry_host_and_no_path_of_one_machine() -> None:
    found = []
    for path in repository_files():
        text = path.read_bytes().decode("utf-8", errors="replace")
        hosts = [host for host in REGISTRY_HOSTS if host in text]
        found += [f"{path.relative_to(ROOT)}: {what}" for what in [*hosts, *MACHINE_PATHS.findall(text)]]
    assert not found


def run_python(code: str) -> str:
    finished = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=False)
    assert finished.returncode == 0, finished.stderr
    return finished.stdout


HEAVY = "heavy = {'torch', 'transformers'} & set(sys.modules); assert not heavy, heavy"


def test_import_is_cheap() -> None:
    run_python(f"import sys, bimo; dir(bimo); bimo.__version__; {HEAVY}")


def test_help_is_cheap() -> None:
    if not (PACKAGE / "cli.py").exists():
        pytest.skip("bimo/cli.py is not written yet")
    code = "import sys\nfrom bimo.cli import main\nsys.argv = ['bimo', '--help']\n"
    code += f"try:\n    main()\nexcept SystemExit as end:\n    assert not end.code, end.code\n{HEAVY}"
    assert "train" in run_python(code)


def test_imports_have_no_effects() -> None:
    """Import every module, optional libraries blocked: nothing printed, warned about or set globally."""
    names = [".".join(path.relative_to(ROOT).with_suffix("").parts).removesuffix(".__init__") for path in modules()]
    names = [name for name in names if not name.endswith(("__main__", GPU_KERNELS.stem))]
    code = f"""
import importlib, random, sys, warnings
import torch, numpy, rich.progress, rich.table
blocked = {{"optuna", "tensorboard", "transformers", "pytest", "hypothesis"}}
sys.modules.update(dict.fromkeys(blocked))
def state():
    return (random.getstate(), torch.initial_seed(), torch.get_rng_state().sum().item(), torch.get_num_threads(),
            torch.get_default_dtype(), torch.get_float32_matmul_precision(), torch.is_grad_enabled(),
            repr(numpy.random.get_state()), repr(numpy.geterr()), sys.getrecursionlimit())
before = state()
with warnings.catch_warnings():
    warnings.filterwarnings("error", module="bimo")
    for name in {names}:
        importlib.import_module(name)
assert state() == before, (state(), before)
"""
    assert run_python(code) == ""


def test_train_is_a_folder_and_a_function() -> None:
    if not (PACKAGE / "train" / "pretrain.py").exists():
        pytest.skip("bimo/train/pretrain.py is not written yet")
    run_python("import bimo; assert callable(bimo.train); import bimo.train.loop as loop; assert callable(bimo.train)")
    run_python("import bimo.train.loop; import bimo; assert callable(bimo.train); bimo.train.loop.fit")
    run_python("import bimo; assert callable(bimo.tune); import bimo.tune.plan; assert callable(bimo.tune)")


def test_the_wheel_holds_the_whole_package(tmp_path: Path) -> None:
    assert importlib.util.find_spec("hatchling"), "make test installs it"
    command = [sys.executable, "-m", "hatchling", "build", "-t", "wheel", "-d", str(tmp_path)]
    finished = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
    assert finished.returncode == 0, finished.stderr
    (wheel,) = tmp_path.glob("*.whl")
    written = {path for path in PACKAGE.rglob("*") if path.is_file() and "__pycache__" not in path.parts}
    assert {str(path.relative_to(ROOT)) for path in written} <= set(zipfile.ZipFile(wheel).namelist())
