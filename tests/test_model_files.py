"""Files of models from others: nothing that is put into one runs, unless it was asked for."""

from __future__ import annotations

import ast
import io
import json
import pickle
import re
import zipfile
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from torch import nn

import midgrain
from midgrain.models import load_model
from models_for_tests import seeded, tiny_net

SUFFIXES = (".pt", ".pth", ".pt2", ".onnx")


class Evil:
    """Unpickling it writes a file."""

    def __init__(self, canary: Path):
        self.canary = canary

    def __reduce__(self):
        return Path.touch, (self.canary,)


@pytest.fixture
def canary(tmp_path):
    path = tmp_path / "canary"
    yield path
    assert not path.exists(), "something in the file ran"


def rewritten(source: Path, target: Path, change: Callable[[str, bytes], bytes | None], more=()) -> Path:
    """An archive with other contents; what `change` returns None for is left out."""
    with zipfile.ZipFile(source) as old, zipfile.ZipFile(target, "w") as new:
        root = old.namelist()[0].partition("/")[0]
        for name in old.namelist():
            content = change(name.partition("/")[2], old.read(name))
            if content is not None:
                new.writestr(name, content)
        for name, content in more:
            new.writestr(f"{root}/{name}", content)
    return target


@pytest.fixture(scope="module")
def exported(tmp_path_factory) -> Path:
    """A network of two sizes that are not fixed, in whose file everything usual is."""
    path = tmp_path_factory.mktemp("model") / "net.pt2"
    batch, side = torch.export.Dim("batch", min=2, max=64), torch.export.Dim("side", min=8, max=512)
    net = nn.Sequential(tiny_net()[:5], nn.Upsample(scale_factor=2.0), tiny_net()[5:])
    x = torch.zeros(2, 3, 16, 16)
    torch.export.save(torch.export.export(net, (x,), dynamic_shapes=({0: batch, 2: 2 * side},)), path)
    return path


def saved(thing: object) -> bytes:
    file = io.BytesIO()
    torch.save(thing, file)
    return file.getvalue()


@pytest.mark.parametrize("suffix", SUFFIXES)
@pytest.mark.parametrize("form", ["bare", "torch", "legacy", "zip", "zip of torch"])
def test_pickles_are_refused_and_not_run(tmp_path, canary, suffix, form):
    path = tmp_path / f"model{suffix}"
    evil = Evil(canary)
    if form == "bare":
        path.write_bytes(pickle.dumps(evil))
    elif form == "torch":
        torch.save({"state": evil}, path)
    elif form == "legacy":
        torch.save(evil, path, _use_new_zipfile_serialization=False)
    else:
        # Looks like TorchScript and like an exported program at once.
        content = pickle.dumps(evil) if form == "zip" else saved(evil)
        with zipfile.ZipFile(path, "w") as archive:
            archive.writestr("m/archive_format", "pt2")
            archive.writestr("m/archive_version", "0")
            archive.writestr("m/version", "3")
            for name in ("constants.pkl", "data.pkl", "data/sample_inputs/model.pt", "data/weights/model.pt"):
                archive.writestr(f"m/{name}", content)
    with pytest.raises((ValueError, ModuleNotFoundError), match="model"):
        load_model(str(path))


def test_an_exported_network_is_taken(exported, tmp_path):
    x = torch.rand(3, 3, 24, 16)
    found = load_model(str(exported)).model(x)
    torch.testing.assert_close(found, torch.export.load(exported).module()(x))


def config(key: str, value: object) -> Callable[[bytes], bytes]:
    def change(content: bytes) -> bytes:
        found = json.loads(content)
        for each in found["config"].values():
            each[key] = value
        return json.dumps(found).encode()

    return change


def replaced(pattern: bytes, text: str) -> Callable[[bytes], bytes]:
    def change(content: bytes) -> bytes:
        found, count = re.subn(pattern, lambda _: text.encode(), content, count=1)
        assert count, "the file has no such part any more"
        return found

    return change


# The shell command stands for anything; `canary` is put in for CANARY.
SIZE = rb'"expr_str": "(?:[^"\\]|\\.)*"'
TARGET = rb'"target": "torch\.[^"]*"'
RUNS = "__import__('pathlib').Path('CANARY').touch()"
CHANGES: dict[str, tuple[str, Callable[[bytes], bytes], str]] = {
    "weights": ("data/weights/model_weights_config.json", config("use_pickle", True), "pickled"),
    "constants": ("data/weights/model_weights_config.json", config("path_name", "opaque_obj_0"), "pickled"),
    "sizes": ("models/model.json", replaced(SIZE, f'"expr_str": "{RUNS}"'), "no expression of sizes"),
    "sizes in texts": ("models/model.json", replaced(SIZE, f'"expr_str": "Max(\\"{RUNS}\\", 1)"'), "no expression"),
    "sizes in names": ("models/model.json", replaced(SIZE, f'"expr_str": "Symbol(\\"{RUNS}\\")"'), "no expression"),
    "sizes that call": ("models/model.json", replaced(SIZE, '"expr_str": "exit(1)"'), "no expression"),
    "sizes that look up": ("models/model.json", replaced(SIZE, '"expr_str": "Integer.__class__"'), "no expression"),
    "guards": ("models/model.json", replaced(rb'"guards_code": \[\]', f'"guards_code": ["{RUNS}"]'), "condition"),
    "system": ("models/model.json", replaced(TARGET, '"target": "torch.os.system"'), "torch.os.system"),
    "library": ("models/model.json", replaced(TARGET, '"target": "torch.ops.load_library"'), "no operator"),
    "caller": ("models/model.json", replaced(TARGET, '"target": "_operator.methodcaller"'), "no operator"),
}


@pytest.mark.parametrize("case", CHANGES)
def test_exported_programs_that_do_more_are_refused(exported, tmp_path, canary, case):
    record, change, message = CHANGES[case]

    def changed(name: str, content: bytes) -> bytes:
        return change(content).replace(b"CANARY", str(canary).encode()) if name == record else content

    path = rewritten(exported, tmp_path / "changed.pt2", changed)
    assert path.read_bytes() != exported.read_bytes()
    with pytest.raises(ValueError, match=rf"^model: '.*changed\.pt2' is refused: .*{message}.*allow_pickle=True"):
        load_model(str(path))


@pytest.mark.parametrize(
    "name", ["data/sample_inputs/model.pt", "data/weights/model.pt", "data/constants/model.pt"], ids=lambda n: n[5:-9]
)
def test_pickles_inside_exported_programs_are_refused(exported, tmp_path, canary, name):
    def changed(each: str, content: bytes) -> bytes | None:
        return None if each == name else content

    path = rewritten(exported, tmp_path / "net.pt2", changed, [(name, saved(({}, Evil(canary))))])
    with pytest.raises(ValueError, match=f"record '{name}' holds pickled objects"):
        load_model(str(path))


@pytest.mark.parametrize("name", ["data/aotinductor/model/a.so", "data/constants/custom_obj_0", "MODELS/model.json"])
def test_other_parts_are_refused(exported, tmp_path, canary, name):
    content = pickle.dumps(Evil(canary))
    path = rewritten(exported, tmp_path / "net.pt2", lambda _, content: content, [(name, content)])
    with pytest.raises(ValueError, match=r"no part of a network|two records of one name"):
        load_model(str(path))


def test_the_format_of_before_is_refused(exported, tmp_path, canary):
    path = rewritten(exported, tmp_path / "net.pt2", lambda _, content: content)
    with zipfile.ZipFile(path, "a") as archive:
        archive.writestr("version", "1.0")
        archive.writestr("serialized_state_dict.pt", saved(Evil(canary)))
    with pytest.raises(ValueError, match=r"before torch 2\.8"):
        load_model(str(path))


def test_the_attacks_are_real(tmp_path, exported):
    """Without the checks torch runs what the tests above put into files; if it stops to, they can go."""
    canary = tmp_path / "canary"
    path = tmp_path / "net.pt"
    torch.save(Evil(canary), path)
    with pytest.raises(ValueError, match="holds NoneType"):
        load_model(str(path), allow_pickle=True)
    assert canary.exists()
    canary.unlink()
    record, change, _ = CHANGES["sizes"]
    evil = rewritten(
        exported,
        tmp_path / "evil.pt2",
        lambda name, content: change(content).replace(b"CANARY", str(canary).encode()) if name == record else content,
    )
    with pytest.raises(ValueError, match=r"cannot be loaded by torch\.export"):
        load_model(str(evil), allow_pickle=True)
    assert canary.exists()


def test_pickles_are_taken_when_asked_for(tmp_path):
    path = tmp_path / "net.pt"
    net = tiny_net().train()
    torch.save(net, path)
    with pytest.raises(ValueError, match="allow_pickle=True only"):
        load_model(str(path))
    loaded = load_model(str(path), allow_pickle=True).model
    x = seeded(lambda: torch.rand(2, 3, 16, 16))
    assert not loaded.training
    torch.testing.assert_close(loaded(x), net.eval()(x))
    with pytest.raises(TypeError, match=r"^allow_pickle: expected a bool, got str"):
        load_model(str(path), allow_pickle="yes")
    torch.save(net.state_dict(), path)
    with pytest.raises(ValueError, match=r"holds OrderedDict, expected a torch\.nn\.Module"):
        load_model(str(path), allow_pickle=True)


# Calls that may run what a file says, and where each may stand. Workers of one evaluation unpickle what its own
# processes have sent them.
ALLOWED = {
    ("pickle.loads", "evaluate/ray_engine.py"),
    ("torch.load", "models.py"),
    ("super().load", "evaluate/ray_engine.py"),
}
DANGEROUS = re.compile(
    r"(pickle|cPickle|dill|cloudpickle|joblib|marshal|shelve|yaml)\.(load|loads|open|full_load|unsafe_load)|eval|exec"
    r"|os\.system|os\.popen|pickle\.Unpickler|torch\.hub\.load"
)


def calls() -> list[tuple[str, str, ast.Call]]:
    package = Path(midgrain.__file__).parent
    return [
        (path.relative_to(package).as_posix(), ast.unparse(node.func), node)
        for path in sorted(package.rglob("*.py"))
        for node in ast.walk(ast.parse(path.read_text()))
        if isinstance(node, ast.Call)
    ]


def test_nothing_else_in_the_package_unpickles_or_evaluates():
    found = calls()
    assert len(found) > 1000
    seen = set()
    for place, function, node in found:
        keywords = {each.arg: each.value for each in node.keywords}
        options = {name: value.value for name, value in keywords.items() if isinstance(value, ast.Constant)}
        if function == "torch.load" and options.get("weights_only") is not True:
            # The one that was asked for.
            assert (place, options.get("weights_only")) == ("models.py", False)
            seen.add(function)
        if function in ("np.load", "np.savez", "np.lib.format.read_array"):
            assert options.get("allow_pickle") is False, (place, node.lineno)
        if DANGEROUS.fullmatch(function):
            assert (function, place) in ALLOWED, (function, place, node.lineno)
        if function.startswith("subprocess."):
            assert options.get("shell") is not True, (place, node.lineno)
    assert seen == {"torch.load"}
