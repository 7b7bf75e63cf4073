"""What comes from strangers runs no code and leaves its folder nowhere: configs, archives, lists, exported folders."""

from __future__ import annotations

import ast
import re
import sys
import time
from pathlib import Path

import pytest

from segkit.cli.main import main
from segkit.config import Config
from segkit.errors import InputError
from tests.tiny import make_data, tiny_config

ROOT = Path(__file__).resolve().parents[1]
CODE = "from pathlib import Path\nPath(__file__).with_name('ran').touch()\n"


@pytest.fixture
def here(tmp_path: Path, monkeypatch) -> Path:
    """A working directory with a module of the user's, and a home of its own."""
    here = tmp_path / "work"
    here.mkdir()
    monkeypatch.chdir(here)
    monkeypatch.setenv("SEGKIT_HOME", str(tmp_path / "home"))
    monkeypatch.setattr(sys, "path", [str(here), *sys.path])
    yield here
    for name in [name for name in sys.modules if name.startswith("guest")]:
        del sys.modules[name]


def guest(path: Path, code: str = CODE) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(code, encoding="utf-8")
    return path.with_name("ran")


def ran(mark: Path, name: str) -> bool:
    """Whether the module ran; it is forgotten, so that the next config imports it anew."""
    for module in [module for module in sys.modules if module.split(".")[0] == name.split(".")[0]]:
        del sys.modules[module]
    found = mark.exists()
    mark.unlink(missing_ok=True)
    return found


class TestImports:
    def test_a_config_from_elsewhere_asks_first_and_once(self, here: Path, tmp_path: Path, capsys) -> None:
        mark = guest(here / "guest_a.py")
        path = tiny_config(tmp_path / "none", tmp_path / "elsewhere.yml", imports=["guest_a"])
        assert main(["config", str(path), "--check"]) == 2
        said = capsys.readouterr().err
        assert f"{path}:" in said and "imports: this config lies outside the working directory" in said
        assert (
            f"would run the code of guest_a ({here / 'guest_a.py'}), which has not run here before as it and its package are now"
            in said
        )
        assert "--trust" in said
        assert not ran(mark, "guest_a")
        assert main(["config", str(path), "--check", "--trust"]) == 0
        assert ran(mark, "guest_a")
        assert main(["config", str(path), "--check"]) == 0  # the same code is not asked about again
        assert ran(mark, "guest_a")
        guest(here / "guest_a.py", CODE + "# changed\n")
        assert main(["config", str(path), "--check"]) == 2
        assert not ran(mark, "guest_a")

    def test_every_tool_that_takes_a_config_asks(self, here: Path, tmp_path: Path, capsys) -> None:
        mark = guest(here / "guest_b.py")
        path = tiny_config(tmp_path / "none", tmp_path / "config.yml", imports=["guest_b"])
        (tmp_path / "model.pdparams").touch()
        given = ["--config", str(path)]
        for argv in (["train", *given], ["val", *given], ["predict", *given, "--image_path", "x.png"], ["export", *given],
                     ["info", *given], ["data", "check", str(path)], ["val", "--model_path", str(tmp_path)]):  # fmt: skip
            assert main(argv) == 2, argv
            assert "say --trust" in capsys.readouterr().err, argv
        with pytest.raises(InputError, match="trust=True"):
            Config(path)
        import segkit

        with pytest.raises(InputError, match="trust=True"):
            segkit.load(tmp_path)
        assert not ran(mark, "guest_b")
        Config(path, trust=True)
        assert ran(mark, "guest_b")

    def test_a_config_of_the_working_directory_runs_and_is_remembered(self, here: Path, tmp_path: Path) -> None:
        mark = guest(here / "guest_c.py")
        Config(tiny_config(tmp_path / "none", here / "config.yml", imports=["guest_c"]))
        assert ran(mark, "guest_c")
        Config(tiny_config(tmp_path / "none", tmp_path / "copy.yml", imports=["guest_c"]))
        assert ran(mark, "guest_c")

    def test_a_path_through_the_working_directory_does_not_count_as_inside(self, here: Path, tmp_path: Path) -> None:
        mark = guest(here / "guest_d.py")
        tiny_config(tmp_path / "none", tmp_path / "config.yml", imports=["guest_d"])
        with pytest.raises(InputError, match="outside the working directory"):
            Config(here / ".." / "config.yml")
        tiny_config(tmp_path / "none", here / "child.yml", _base_="../config.yml")
        with pytest.raises(InputError, match="outside the working directory"):
            Config(here / "child.yml")
        assert not ran(mark, "guest_d")

    def test_a_flag_is_the_users_own_word(self, here: Path, tmp_path: Path, capsys) -> None:
        guests = [guest(here / name / "__init__.py") for name in ("guest_h", "guest_i")]
        path = tiny_config(tmp_path / "none", tmp_path / "config.yml", imports=["guest_h"])
        flags = ["--opts", "imports=[guest_i]", "model={type: GuestNet}"]
        code = "from segkit.registry import MODELS\n@MODELS.register\nclass GuestNet:\n"
        guest(here / "guest_i" / "__init__.py", CODE + code + "    def __init__(self, num_classes: int): ...\n")
        assert main(["config", str(path), "--check", *flags]) == 0
        assert [ran(mark, mark.parent.name) for mark in guests] == [False, True]
        assert Config(path, ["imports=[]"]).data["imports"] == []
        with pytest.raises(InputError, match=r"config\.yml:\d+: imports: this config lies outside"):
            Config(path, ["iters=3"])
        with pytest.raises(InputError, match=r"--opts imports=\[guest_j\]: imports: there is no module 'guest_j'"):
            Config(path, ["imports=[guest_j]"])
        assert not ran(guests[0], "guest_h")

    def test_any_file_of_a_package_counts(self, here: Path, tmp_path: Path) -> None:
        mark = guest(here / "guest_e" / "__init__.py")
        guest(here / "guest_e" / "inner" / "part.py", "value = 1\n")
        path = tiny_config(tmp_path / "none", tmp_path / "config.yml", imports=["guest_e.inner.part"])
        for text in ("value = 1\n", "value = 2\n"):
            guest(here / "guest_e" / "inner" / "part.py", text)
            with pytest.raises(InputError, match=r"would run the code of guest_e\.inner\.part \(.*part\.py\)"):
                Config(path)
            assert not ran(mark, "guest_e")
            Config(path, trust=True)
            assert ran(mark, "guest_e")
            Config(path)
            assert ran(mark, "guest_e")
        with pytest.raises(InputError, match=r"there is no module 'guest_e\.nowhere'"):
            Config(tiny_config(tmp_path / "none", tmp_path / "config.yml", imports=["guest_e.nowhere"]))

    def test_a_home_that_cannot_be_written_only_asks_again(self, here: Path, tmp_path: Path, monkeypatch) -> None:
        mark = guest(here / "guest_f.py")
        (tmp_path / "file").touch()
        monkeypatch.setenv("SEGKIT_HOME", str(tmp_path / "file"))
        path = tiny_config(tmp_path / "none", tmp_path / "config.yml", imports=["guest_f"])
        Config(path, trust=True)
        assert ran(mark, "guest_f")
        with pytest.raises(InputError, match="--trust"):
            Config(path)

    def test_a_model_s_folder_below_the_working_directory_is_no_own_config(self, here: Path, tmp_path: Path) -> None:
        """A download unpacked there is below it, too. Folders of runs that trained here are remembered."""
        import segkit

        mark = guest(here / "guest_k" / "best_model" / "evil.py")
        path = tiny_config(tmp_path / "none", mark.with_name("config.yml"), imports=["guest_k.best_model.evil"])
        path.with_name("model.pdparams").touch()
        for argv in (["val", "--model_path", str(path.parent)], ["predict", "--model_path", "guest_k", "--image_path", "x"],
                     ["export", "--model_path", str(path.with_name("model.pdparams"))], ["report", "guest_k"]):  # fmt: skip
            assert main(argv) == 2, argv
        with pytest.raises(InputError, match=r"this config came with weights and would run the code of guest_k\.best"):
            segkit.load(path.parent)
        assert not ran(mark, "guest_k")
        Config(path)  # the user names the file itself, as for training: from then on it is known
        assert ran(mark, "guest_k")
        Config.from_model_path(path.parent)
        assert ran(mark, "guest_k")

    def test_whatever_python_would_run_counts(self, here: Path, tmp_path: Path) -> None:
        """Compiled modules are taken before the source of the same name, and bytecode beside it instead of it."""
        import importlib.machinery
        import py_compile

        mark = guest(here / "guest_l" / "__init__.py")
        path = tiny_config(tmp_path / "none", tmp_path / "config.yml", imports=["guest_l"])
        Config(path, trust=True)
        assert ran(mark, "guest_l")
        other = guest(tmp_path / "other.py", "raise RuntimeError('not what was looked at')\n").with_name("other.py")
        cached = importlib.util.cache_from_source(str(here / "guest_l" / "__init__.py"))
        py_compile.compile(str(other), cached, invalidation_mode=py_compile.PycInvalidationMode.UNCHECKED_HASH)
        Config(path)
        assert ran(mark, "guest_l")
        (here / "guest_l" / f"part{importlib.machinery.EXTENSION_SUFFIXES[0]}").write_bytes(b"compiled")
        with pytest.raises(InputError, match=r"would run the code of guest_l"):
            Config(path)
        (here / "guest_l" / f"__init__{importlib.machinery.EXTENSION_SUFFIXES[0]}").write_bytes(b"compiled")
        with pytest.raises(InputError, match=r"would run the code of guest_l \(.*__init__\..*so\)"):
            Config(path)
        assert not ran(mark, "guest_l")


def test_yaml_is_only_read_by_safe_loaders() -> None:
    for path in (*(ROOT / "segkit").rglob("*.py"), *(ROOT / "tools").rglob("*.py"), *(ROOT / "deploy").rglob("*.py")):
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            name = ast.unparse(node.func) if isinstance(node, ast.Call) else ""
            if name in ("yaml.load", "yaml.load_all"):
                loader = [ast.unparse(word.value) for word in node.keywords if word.arg == "Loader"]
                assert loader == ["_Loader"] and path.name == "source.py", f"{path}:{node.lineno}"
            assert "unsafe" not in name and "full_load" not in name, f"{path}:{node.lineno}"
    import yaml

    from segkit.config.source import _Loader

    assert issubclass(_Loader, yaml.SafeLoader)


def test_yaml_tags_that_would_run_code_are_refused(tmp_path: Path, capsys) -> None:
    from segkit.deploy.spec import DeploySpec

    bomb = "!!python/object/apply:os.system ['touch ran']"
    (tmp_path / "c.yml").write_text(f"iters: 1\nmodel: {bomb}\n", encoding="utf-8")
    assert main(["config", str(tmp_path / "c.yml")]) == 2
    assert (
        "c.yml:2: this is not valid YAML: the tag tag:yaml.org,2002:python/object/apply:os.system is not known here"
        in capsys.readouterr().err
    )
    (tmp_path / "deploy.yaml").write_text(f"Deploy: {bomb}\n", encoding="utf-8")
    with pytest.raises(InputError, match=r"deploy\.yaml:1: this is not valid YAML"):
        DeploySpec.load(tmp_path)
    path = tiny_config(tmp_path / "none", tmp_path / "d.yml")
    assert main(["config", str(path), "--opts", f"iters={bomb}"]) == 2
    assert "the value is not valid YAML" in capsys.readouterr().err
    assert not list(tmp_path.rglob("ran")) and not Path("ran").exists()


STRANGE = [
    ("2024-13-45", "'2024-13-45' is no timestamp"),
    ("1" * 5000, "'1111111111111111111111111111111111111111' is too large a whole number"),
    ("1" * 30, "too large a whole number"),
    ("!!int abc", "'abc' is no int"),
    ("!!bool x", "'x' is no bool"),
    ("!!timestamp x", "'x' is no timestamp"),
    ("!!float {}", "is not known here"),
    ("{? [a] : 1}", "a key that is a list or a mapping"),
    ("{<<: {? [a] : 1}}", "a key that is a list or a mapping"),
    ("[" * 1200, "over 50 levels of lists and mappings"),
    ("{a: " * 1200, "over 50 levels of lists and mappings"),
    ("[&a [1,1,1,1,1,1,1,1,1,1], " + "".join(f"&{b} [{','.join(['*' + a] * 10)}], " for a, b in zip("abcdefgh", "bcdefghi")) + "1]",
     "over 100,000 values, aliases written out"),
    ("{x: &a {k: 1}, " + "".join(f"{b}: &{b} {{<<: [{','.join(['*' + a] * 10)}]}}, " for a, b in zip("abcdefgh", "bcdefghi")) + "}",
     "over 100,000 values, aliases written out"),
    ("&m [*m]", "a value that contains itself"),
]  # fmt: skip


@pytest.mark.parametrize(("value", "said"), STRANGE, ids=[text[:12] for text, _ in STRANGE])
def test_strange_yaml_is_refused_with_its_line_and_soon(tmp_path: Path, value: str, said: str) -> None:
    from segkit.deploy.spec import DeploySpec

    begin = time.process_time()
    (tmp_path / "c.yml").write_text(f"iters: 1\nseed: {value}\n", encoding="utf-8")
    with pytest.raises(InputError, match=r"c\.yml:\d: this is not valid YAML: .*" + re.escape(said)) as refused:
        Config(tmp_path / "c.yml")
    assert len(str(refused.value)) < 500
    (tmp_path / "deploy.yaml").write_text(f"Deploy:\n  threshold: {value}\n", encoding="utf-8")
    with pytest.raises(InputError, match=r"deploy\.yaml:\d: this is not valid YAML: .*" + re.escape(said)):
        DeploySpec.load(tmp_path)
    path = tiny_config(tmp_path / "none", tmp_path / "d.yml")
    with pytest.raises(InputError, match=r"--opts iters=.*: the value is not valid YAML.*Put quotes round it"):
        Config(path, [f"iters={value}"])
    assert time.process_time() - begin < 5


def test_a_long_wrong_value_is_cut_in_the_message(tmp_path: Path) -> None:
    from segkit.deploy.spec import DeploySpec

    (tmp_path / "deploy.yaml").write_text(f"Deploy: {{transforms: [], palette: {[1] * 30_000}}}", encoding="utf-8")
    with pytest.raises(InputError, match=r"Deploy\.palette: got \[1, 1, .*\.\.\., expected a list of") as refused:
        DeploySpec.load(tmp_path)
    assert len(str(refused.value)) < 500


def test_a_file_of_very_many_keys_is_read_soon(tmp_path: Path) -> None:
    begin = time.process_time()
    (tmp_path / "c.yml").write_text("".join(f"key{n}: 1\n" for n in range(20_000)), encoding="utf-8")
    with pytest.raises(InputError, match="problems:"):
        Config(tmp_path / "c.yml")
    assert time.process_time() - begin < 30


def test_paths_of_strangers_stay_in_the_output_folder(tmp_path: Path) -> None:
    """Lists for predict and annotation files name photos with .. and absolute paths; results go below the folder."""
    from segkit.data.convert import _unique
    from segkit.deploy.inputs import collect

    data = make_data(tmp_path / "data", train=2, val=1)
    (tmp_path / "lists").mkdir()
    text = f"../data/images/000.png\n{data / 'images' / '001.png'}\n../../../../../../..{data / 'images' / '002.png'}\n"
    (tmp_path / "lists" / "l.txt").write_text(text, encoding="utf-8")
    names = [item.name for item in collect(str(tmp_path / "lists" / "l.txt"), str(tmp_path / "out"))]
    assert names == ["000", "001", "002"]
    for name in _unique(["../../evil", "/etc/passwd", "a/../../b", "..", ".", "C:\\x\\..\\y", ""]):
        assert (tmp_path / name).resolve().is_relative_to(tmp_path) and not name.endswith("/") and name


def test_an_exported_folder_names_its_own_files_only(tmp_path: Path) -> None:
    from segkit.deploy.spec import DeploySpec

    (tmp_path / "secret").touch()
    folder = tmp_path / "exported"
    folder.mkdir()
    (folder / "model.pdiparams").touch()
    for name in ("../secret", str(tmp_path / "secret")):
        (folder / "deploy.yaml").write_text(
            f"Deploy: {{model: {name}, params: model.pdiparams, transforms: []}}", encoding="utf-8"
        )
        with pytest.raises(InputError, match=r"deploy\.yaml: Deploy\.model: got '.*secret', expected a file name"):
            DeploySpec.load(folder)
