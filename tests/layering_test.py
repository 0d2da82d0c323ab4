"""Imports point downwards: read with ast, nothing is imported."""

import ast
import pathlib

from case import REPOSITORY

# The level of a module by the longest prefix; a module may import modules of its own package and of lower levels.
_LEVELS = {
    "nas_seg.common": 0,
    "nas_seg.utils": 0,
    "nas_seg.core": 1,
    "nas_seg.datasets": 1,
    "nas_seg.search": 1,
    "nas_seg.losses": 2,
    "nas_seg.metrics": 2,
    "nas_seg.label_weights": 2,
    "nas_seg.initial_checkpoint": 2,
    "nas_seg.list_flags": 1,
    "nas_seg.old_flags": 1,
    "nas_seg.inference": 2,
    "nas_seg.inference_config": 1,
    "nas_seg.optimizers": 2,
    "nas_seg.gradients": 2,
    "nas_seg.search_flags": 1,
    "nas_seg.train_config": 1,
    "nas_seg.train_flags": 3,
    "nas_seg.train": 3,
    "nas_seg.eval": 3,
    "nas_seg.vis": 3,
    "nas_seg.prediction": 3,
    "nas_seg.overlays": 2,
    "nas_seg.picture_files": 2,
    "nas_seg.tiles": 2,
    "nas_seg.export_model": 3,
    "nas_seg.export_formats": 4,
    "nas_seg.sample_pictures": 4,
    "nas_seg.deeplab": 4,
    "nas_seg.dpc": 4,
    "nas_seg.auto_deeplab": 4,
    "nas_seg.template": 4,
    "nas_seg.model": 5,
    "nas_seg.spaces": 5,
    "nas_seg.auto_deeplab_retrain": 8,
    "nas_seg.auto_deeplab_search": 8,
    "nas_seg.dpc_compare": 8,
    "nas_seg.dpc_search": 8,
    "nas_seg.dpc_task": 7,
    "nas_seg.full_training": 7,
    "nas_seg.space_search": 7,
    "nas_seg.template_search": 8,
    "nas_seg.template_task": 7,
    "nas_seg.rerank": 8,
    "nas_seg.convert": 6,
    "nas_seg.features": 6,
    "nas_seg.network_flags": 6,
    "nas_seg.scaled_networks": 6,
    "nas_seg.pipeline": 6,
    "nas_seg.presets": 6,
    "nas_seg.plot": 6,
    "nas_seg.inference_flags": 8,
    "nas_seg.benchmark": 9,
    "nas_seg": 10,
    "tools": 11,
}
_DATA = "nas_seg.datasets"
_PAPERS = {"nas_seg.deeplab", "nas_seg.dpc", "nas_seg.auto_deeplab", "nas_seg.template"}
# Files that a laptop without TensorFlow must be able to import.
_WITHOUT_TENSORFLOW = (
    "nas_seg/search/*.py",
    "nas_seg/*/genotype.py",
    "nas_seg/*/space.py",
    "nas_seg/*/decode.py",
    "nas_seg/*/relaxation.py",
    "nas_seg/*/plan.py",
    "nas_seg/*/baselines.py",
    "nas_seg/*/search_config.py",
    "nas_seg/*/search_run.py",
    "nas_seg/*/memory.py",
    "nas_seg/*/controller.py",
    "nas_seg/*/policy_search.py",
    "nas_seg/*/rejection.py",
    "nas_seg/*/proxy_config.py",
)
# These define flags for several tools, when a tool calls them.
_FOR_SEVERAL_TOOLS = (
    "nas_seg.list_flags",
    "nas_seg.train_flags",
    "nas_seg.network_flags",
    "nas_seg.search_flags",
    "nas_seg.old_flags",
    "nas_seg.inference_flags",
    "nas_seg.utils.app",
)


_UNSAFE_MODULES = ("pickle", "cPickle", "dill", "cloudpickle", "joblib", "shelve", "marshal", "yaml")
# By the function that reads a file: what it has to be told.
_SAFE_ARGUMENTS = {
    "np.load": {"allow_pickle": False},
    "keras.models.load_model": {"safe_mode": True},
    "keras.saving.load_model": {"safe_mode": True},
}


def _package(module: str) -> str:
    return max((p for p in _LEVELS if module == p or module.startswith(p + ".")), key=len)


def _imports(path: pathlib.Path, anywhere: bool) -> set[str]:
    """Modules that a file imports: at its top, or also inside functions."""
    tree = ast.parse(path.read_text())
    nodes = ast.walk(tree) if anywhere else tree.body
    found = set()
    for node in nodes:
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            found |= {f"{node.module}.{alias.name}" for alias in node.names} | {node.module}
    return found


def _files() -> dict[str, pathlib.Path]:
    files = [*REPOSITORY.glob("nas_seg/**/*.py"), *REPOSITORY.glob("tools/*.py")]
    return {".".join(f.relative_to(REPOSITORY).with_suffix("").parts).removesuffix(".__init__"): f for f in files}


def test_every_module_of_the_package_has_a_level():
    # But for the package itself: whatever else took its level could be imported from anywhere.
    missing = [module for module in _files() if module != "nas_seg" and _package(module) == "nas_seg"]
    assert not missing, missing


def test_every_import_points_to_a_lower_level():
    wrong = []
    for module, path in _files().items():
        package = _package(module)
        for imported in (name for name in _imports(path, anywhere=True) if name.startswith("nas_seg.")):
            target = _package(imported)
            if target not in (package, "nas_seg") and _LEVELS[target] >= _LEVELS[package]:
                wrong.append(f"{module} (level {_LEVELS[package]}) imports {imported} (level {_LEVELS[target]})")
    assert not wrong, wrong


def test_papers_import_neither_one_another_nor_the_data():
    wrong = []
    for module, path in _files().items():
        package = _package(module)
        if package in _PAPERS or _LEVELS[package] == 3:
            banned = (_PAPERS | {_DATA}) - {package}
            wrong += [
                f"{module} imports {name}" for name in _imports(path, anywhere=True) if _package_of(name) in banned
            ]
    assert not wrong, wrong


def _package_of(name: str) -> str | None:
    return _package(name) if name.startswith("nas_seg.") else None


def test_searching_needs_no_tensorflow():
    for pattern in _WITHOUT_TENSORFLOW:
        files = list(REPOSITORY.glob(pattern))
        for path in files:
            heavy = {name for name in _imports(path, anywhere=True) if name.split(".")[0] in ("tensorflow", "keras")}
            assert not heavy, f"{path} imports {heavy}"
    assert list(REPOSITORY.glob("nas_seg/*/genotype.py"))


def test_only_the_tools_define_flags():
    for module, path in _files().items():
        if not module.startswith("tools") and module not in _FOR_SEVERAL_TOOLS:
            assert "flags.DEFINE" not in path.read_text(), module


def test_nothing_is_unpickled_or_evaluated_and_networks_of_others_bring_no_code():
    seen = 0
    for module, path in _files().items():
        banned = {name for name in _imports(path, anywhere=True) if name.split(".")[0] in _UNSAFE_MODULES}
        assert not banned, f"{module} imports {banned}"
        for call in (node for node in ast.walk(ast.parse(path.read_text())) if isinstance(node, ast.Call)):
            name = call.func.attr if isinstance(call.func, ast.Attribute) else getattr(call.func, "id", "")
            given = {keyword.arg: getattr(keyword.value, "value", None) for keyword in call.keywords}
            where = f"{module}, line {call.lineno}"
            assert not (isinstance(call.func, ast.Name) and name in ("eval", "exec", "compile", "__import__")), where
            assert not given.get("shell"), where
            if (wanted := _SAFE_ARGUMENTS.get(ast.unparse(call.func))) is not None:
                seen += 1
                assert wanted.items() <= given.items(), f"{where}: expected {wanted}"
    assert seen >= 4
