"""The package's own configurations are found by name from anywhere; a file here goes first."""

import subprocess
import sys
import tarfile
import venv
import zipfile
from pathlib import Path

import pytest

from mlx_yoda.config.parse import load_config
from mlx_yoda.config.shipped import FOLDER, find, shipped
from mlx_yoda.errors import UserError

ROOT = Path(__file__).resolve().parents[2]


def test_there_is_one_copy_of_them():
    assert FOLDER.resolve() == ROOT / "configs"
    assert shipped() == sorted(path.stem for path in (ROOT / "configs").iterdir())
    assert "demo" in shipped()


@pytest.mark.parametrize("name", shipped())
@pytest.mark.parametrize("suffix", ["", ".yaml"])
def test_each_is_found_by_name_from_any_folder(tmp_path, monkeypatch, name, suffix):
    monkeypatch.chdir(tmp_path)
    config = load_config(Path(name + suffix))
    assert config == load_config(ROOT / "configs" / f"{name}.yaml")
    assert config.train.output_dir.startswith("outputs/")


def test_a_file_that_is_here_goes_first_and_a_folder_hides_nothing(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    Path("demo").mkdir()
    assert find(Path("demo")) == FOLDER / "demo.yaml"
    Path("demo.yaml").write_text("lora: {r: 3}\n")
    assert load_config(Path("demo.yaml")).lora.r == 3
    assert load_config(Path("demo")).lora.r == 8
    Path("demo").rmdir()
    Path("demo").write_text("lora: {r: 4}\n")
    assert load_config(Path("demo")).lora.r == 4


@pytest.mark.parametrize("name", ["elsewhere/demo", "configs/demo.yaml", "demo.yml", "", "Demo"])
def test_only_a_bare_name_means_the_package_s(tmp_path, monkeypatch, name):
    monkeypatch.chdir(tmp_path)
    with pytest.raises(UserError, match=r"no configuration file|is a folder") as refused:
        load_config(Path(name))
    if name:
        assert "those of the package are demo, mac-8gb, notebook" in str(refused.value)


def test_a_line_of_the_package_s_is_named_in_full(tmp_path, monkeypatch):
    monkeypatch.setattr("mlx_yoda.config.shipped.FOLDER", tmp_path)
    (tmp_path / "mine.yaml").write_text("lora: {r: x}\n")
    with pytest.raises(UserError, match=rf"{tmp_path}/mine\.yaml:1: lora\.r must be"):
        load_config(Path("mine"))


@pytest.mark.slow
def test_wheel_and_source_distribution_bring_them(tmp_path):
    """Built and installed as a user's pip does, into an environment of its own, offline."""
    build = (
        "import sys, setuptools.build_meta as b\n"
        "out = sys.argv[1]  # setuptools writes its own arguments there\n"
        "b.build_wheel(out); b.build_sdist(out)"
    )
    copy = tmp_path / "clone"
    subprocess.run(["git", "clone", "-q", "--shared", ROOT, copy], check=True)
    out = tmp_path / "dist"
    out.mkdir()
    subprocess.run(
        [sys.executable, "-c", build, out], cwd=copy, check=True, stdout=subprocess.DEVNULL
    )
    [wheel], [sdist] = out.glob("*.whl"), out.glob("*.tar.gz")
    packed = {name for name in zipfile.ZipFile(wheel).namelist() if name.endswith(".yaml")}
    assert packed == {f"mlx_yoda/configs/{name}.yaml" for name in shipped()}
    with tarfile.open(sdist) as archive:
        inside = {member.name.partition("/")[2] for member in archive if member.isfile()}
    assert {f"mlx_yoda/configs/{name}.yaml" for name in shipped()} <= inside
    home = tmp_path / "home"
    venv.create(home)
    [site] = (home / "lib").glob("python*/site-packages")
    zipfile.ZipFile(wheel).extractall(site)  # all that pip does with a wheel without programs
    # The rest of what it needs is this environment's.
    (site / "rest.pth").write_text("\n".join(p for p in sys.path if "site-packages" in p))
    code = "from mlx_yoda.config.shipped import *; print(FOLDER, *shipped())"
    done = subprocess.run(
        [home / "bin" / "python", "-c", code],
        cwd=tmp_path, capture_output=True, text=True, check=True,
    )  # fmt: skip
    assert done.stdout.split() == [str(site / "mlx_yoda" / "configs"), *shipped()]
