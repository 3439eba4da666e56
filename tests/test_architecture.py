"""The rules of the house, held by walking the source: who imports whom, how long things are."""

import ast
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]
PACKAGE = ROOT / "mlx_yoda"
SOURCES = sorted(PACKAGE.rglob("*.py"))
ALL = SOURCES + sorted((ROOT / "benchmarks").rglob("*.py"))
TESTS = sorted((ROOT / "tests").rglob("*.py"))

LAYERS = {
    "errors": 0, "config": 0, "files": 0, "secrets": 0, "launcher": 0,
    "child": 0, "digests": 0, "hub_client": 0, "kernels": 0, "pytorch": 0, "strict_json": 0,
    "data": 1, "model": 1, "lora": 1, "adapters": 1, "report": 1, "demo": 1,
    "machine": 1,
    "train": 2, "generation": 2, "evaluate": 2, "hub": 2, "serve": 2,
    "recipes": 3,
    "cli": 4, "api": 5, "__main__": 5, "__init__": 0,
}  # fmt: skip

# Who may import a library: top-level names of the package, or single modules.
OWNERS = {
    "click": ["cli"],
    "rich": ["report/console.py", "report/panel.py"],
    "mlx_lm": ["model", "generation", "recipes/dataset.py", "demo/pretrain.py"],
    "datasets": ["data/arrow.py", "data/hub.py", "data/layout.py"],
    "huggingface_hub": ["hub_client.py", "model/load.py", "data/hub.py", "hub"],
    "httpx2": ["hub_client.py", "hub"],
    "pyarrow": ["data/formats.py"],
    "tensorboard": ["report/trackers/tensorboard.py"],
    "wandb": ["report/trackers/wandb.py"],
    "trackio": ["report/trackers/trackio.py"],
    "safetensors": ["adapters", "train/checkpoint.py"],
    "sacrebleu": ["evaluate"],
    "tokenizers": ["demo", "model/tokenizer_trial.py"],
    "gguf": ["adapters/gguf.py"],
    "jinja2": ["report/page.py", "generation", "model/tokenizer_trial.py"],
    "yaml": ["config"],
    "regex": ["config"],
    "torch": [],
    "peft": [],
}  # fmt: skip
NUMPY_ONLY = "data"
LIGHT = (
    "child", "errors", "files", "kernels", "launcher", "pytorch", "secrets", "strict_json",
    "config", "__init__",
)  # fmt: skip
HEAVY = {"mlx", "mlx_lm", "numpy", "transformers", "datasets", "huggingface_hub", "rich"}


def name_of(path: Path) -> str:
    return str(path.relative_to(ROOT))


def unit(path: Path) -> str:
    """The package or module right below mlx_yoda that a file belongs to."""
    return path.relative_to(PACKAGE).parts[0].removesuffix(".py")


def imports(path: Path) -> Iterator[str]:
    """Every module that a file imports, anywhere in it, but for type checking alone."""
    tree = ast.parse(path.read_text())
    skipped = {
        id(inner)
        for node in ast.walk(tree)
        if isinstance(node, ast.If) and "TYPE_CHECKING" in ast.unparse(node.test)
        for inner in ast.walk(node)
    }
    for node in ast.walk(tree):
        if id(node) in skipped:
            continue
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom) and node.module:
            assert node.level == 0, f"{name_of(path)} imports relatively"
            if node.module == "mlx_yoda":
                yield from (f"mlx_yoda.{alias.name}" for alias in node.names)
            else:
                yield node.module


@pytest.mark.parametrize("path", SOURCES, ids=name_of)
def test_modules_import_only_from_below(path):
    own = unit(path)
    for module in imports(path):
        parts = module.split(".")
        if parts[0] == "mlx_yoda" and len(parts) > 1 and parts[1] != own and parts[1] in LAYERS:
            below = LAYERS[parts[1]] < LAYERS[own] or LAYERS[own] == 0 == LAYERS[parts[1]]
            assert below, f"{name_of(path)} imports {module}"


@pytest.mark.parametrize("path", SOURCES, ids=name_of)
def test_each_library_has_its_owner(path):
    inside = str(path.relative_to(PACKAGE))
    for module in imports(path):
        library = module.split(".")[0]
        if library in OWNERS:
            allowed = any(inside == owner or unit(path) == owner for owner in OWNERS[library])
            assert allowed, f"{name_of(path)} imports {module}"


@pytest.mark.parametrize("path", sorted((PACKAGE / NUMPY_ONLY).rglob("*.py")), ids=name_of)
def test_data_knows_numpy_only(path):
    assert not {module.split(".")[0] for module in imports(path)} & {"mlx", "mlx_lm", "torch"}


@pytest.mark.parametrize("path", ALL + TESTS, ids=name_of)
def test_files_and_functions_are_short(path):
    text = path.read_text()
    assert text.count("\n") <= 600
    for node in ast.walk(ast.parse(text)):
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
            length = (node.end_lineno or 0) - node.lineno + 1
            assert length <= 60, f"{node.name} has {length} lines"


@pytest.mark.parametrize("path", SOURCES, ids=name_of)
def test_only_the_command_line_prints_and_exits(path):
    if unit(path) in ("cli", "__main__"):
        return
    tree = ast.parse(path.read_text())
    scripts = {
        id(inner)
        for node in ast.walk(tree)
        if isinstance(node, ast.If) and "__main__" in ast.unparse(node.test)
        for inner in ast.walk(node)
    }
    for node in ast.walk(tree):
        if isinstance(node, ast.Call) and id(node) not in scripts:
            assert ast.unparse(node.func) not in ("print", "sys.exit", "exit")


@pytest.mark.parametrize("path", ALL, ids=name_of)
def test_durations_are_measured_by_clocks_that_nobody_sets_back(path):
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Attribute | ast.Name):
            assert ast.unparse(node) not in ("time.time", "time.time_ns", "datetime.utcnow")


@pytest.mark.parametrize("path", ALL, ids=name_of)
def test_every_module_and_public_function_says_what_it_is_for(path):
    tree = ast.parse(path.read_text())
    assert ast.get_docstring(tree), f"{name_of(path)} has no docstring"
    for node in tree.body:
        if isinstance(node, ast.FunctionDef | ast.ClassDef) and not node.name.startswith("_"):
            assert ast.get_docstring(node), f"{node.name} has no docstring"


@pytest.mark.parametrize("name", LIGHT)
def test_the_lowest_layer_is_light(name):
    module = "mlx_yoda" if name == "__init__" else f"mlx_yoda.{name}"
    code = f"import sys, {module}; print(*{{m.split('.')[0] for m in sys.modules}})"
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=True, cwd=ROOT
    )
    assert not set(done.stdout.split()) & HEAVY
