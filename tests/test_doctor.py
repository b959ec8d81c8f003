"""The doctor tells what is missing, what does not fit, and the mend."""

import subprocess
import sys
from pathlib import Path

import packaging
import pytest

from emokd_utils.cli import doctor

ROOT = Path(__file__).resolve().parent.parent


def test_a_version_in_its_range_passes():
    check = doctor.check_dependency("packaging", ">=20")
    assert str(check).split() == ["[ok]", "packaging", packaging.__version__, "wanted", ">=20"]


def test_a_version_that_imports_but_does_not_fit_is_a_fail():
    check = doctor.check_dependency("packaging", ">=900,<901")
    assert check.passed is False
    assert packaging.__version__ in str(check)
    assert 'pip install "packaging>=900,<901"' in str(check)


def test_a_distribution_that_is_not_installed_is_a_fail():
    check = doctor.check_dependency("no-such-distribution", ">=1,<2")
    assert check.passed is False
    assert "not installed" in str(check)
    assert 'pip install "no-such-distribution>=1,<2"' in str(check)


def test_a_build_with_a_local_version_fits(monkeypatch):
    monkeypatch.setattr(doctor.importlib.metadata, "version", lambda name: "2.14.1+cpu")
    assert doctor.check_dependency("packaging", ">=2.9,<2.16").passed


def test_a_version_that_fits_but_does_not_import_is_a_fail(tmp_path, monkeypatch):
    broken = "raise RuntimeError('operator torchvision::nms does not exist')"
    (tmp_path / "broken_build.py").write_text(broken)
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.setitem(doctor.IMPORT_NAMES, "packaging", "broken_build")
    check = doctor.check_dependency("packaging", ">=20")
    assert check.passed is False
    assert "RuntimeError: operator torchvision::nms does not exist" in str(check)
    assert "install --force-reinstall" in str(check)


def test_the_dependencies_are_those_of_pyproject(tmp_path):
    (tmp_path / "pyproject.toml").write_text(
        '[project]\ndependencies = ["packaging>=20,<900", "no-such-distribution>=1,<2"]'
    )
    found = [
        (check.name, check.wanted, check.passed) for check in doctor.check_dependencies(tmp_path)
    ]
    assert found == [("packaging", ">=20,<900", True), ("no-such-distribution", ">=1,<2", False)]


def test_a_package_apart_from_its_project_is_told_so(tmp_path):
    (check,) = doctor.check_dependencies(tmp_path)
    assert check.passed is False
    assert "pyproject.toml" in str(check)


def test_nothing_installed_is_one_fail_and_no_trace(tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "packaging.requirements", None)
    (check,) = doctor.check_dependencies(tmp_path)
    assert check.passed is False
    assert "pip install --editable ." in str(check)


@pytest.mark.parametrize(("version", "passed"), [((3, 10), False), ((3, 11), True), ((4, 0), True)])
def test_python_is_compared_as_numbers(version, passed):
    assert doctor.check_python(version).passed is passed


def test_shipped_files_must_be_there_and_not_empty(tmp_path):
    path = "data/objects.png"
    assert not doctor.check_file(tmp_path, "sprite sheet", path).passed
    (tmp_path / "data").mkdir()
    (tmp_path / path).touch()
    check = doctor.check_file(tmp_path, "sprite sheet", path)
    assert not check.passed
    assert "git checkout -- data/objects.png" in str(check)
    (tmp_path / path).write_bytes(bytes(2000))
    assert "(2 kB)" in str(doctor.check_file(tmp_path, "sprite sheet", path))


def test_results_can_be_written_where_the_folder_can_be_made(tmp_path):
    assert doctor.check_runs(tmp_path / "runs").passed
    assert list(tmp_path.iterdir()) == [], "the check leaves nothing behind"


def test_results_need_a_folder_that_can_be_written(tmp_path, monkeypatch):
    def refuse(dir):
        raise PermissionError(13, "Permission denied", str(dir))

    monkeypatch.setattr(doctor.tempfile, "TemporaryFile", refuse)
    check = doctor.check_runs(tmp_path / "runs")
    assert check.passed is False
    assert "Permission denied" in str(check)


def test_too_little_space_is_a_fail():
    check = doctor.check_space("free disk", 1.9e9, 2e9, "remove files")
    assert check.passed is False
    assert str(check).split()[-2:] == ["remove", "files"]
    assert "1.9 GB" in str(check)
    assert ">=2 GB" in str(check)
    assert doctor.check_space("free disk", 2e9, 2e9, "remove files").passed


def test_free_memory_on_linux_counts_what_can_be_reclaimed():
    report = "MemTotal: 8000000 kB\nMemFree:   100000 kB\nMemAvailable:    4000000 kB\n"
    assert doctor.meminfo_available(report) == 4_000_000 * 1024
    assert doctor.meminfo_available("") is None


def test_free_memory_on_macos_counts_what_can_be_reclaimed():
    report = (
        "Mach Virtual Memory Statistics: (page size of 16384 bytes)\n"
        "Pages free:                  100.\nPages active:                900.\n"
        "Pages inactive:              50.\nPages speculative:           25.\n"
    )
    assert doctor.vm_stat_available(report) == 175 * 16384
    assert doctor.vm_stat_available("") is None


def test_free_memory_is_known_here():
    assert doctor.free_memory() is None or doctor.free_memory() > 0


def test_the_exit_code_tells_whether_anything_failed(monkeypatch, capsys):
    good, bad = doctor.Check("torch", "2.14.1"), doctor.Check("timm", "0.9", passed=False)
    told = doctor.Check("device", "cpu", passed=None)
    monkeypatch.setattr(doctor, "checks", lambda root: [good, told])
    assert doctor.main() == 0
    assert "All 1 passed" in capsys.readouterr().out
    monkeypatch.setattr(doctor, "checks", lambda root: [good, bad, told])
    assert doctor.main() == 1
    assert "1 of 2 failed" in capsys.readouterr().out


@pytest.mark.slow
def test_the_command_reports_on_this_machine():
    run = subprocess.run(
        [sys.executable, "-m", "emokd_utils", "doctor"], cwd=ROOT, capture_output=True, text=True
    )
    assert run.returncode == int("[fail]" in run.stdout)
    assert run.stderr == ""
    lines = run.stdout.splitlines()
    assert max(map(len, lines)) <= 80
    names = [line.split()[1] for line in lines if line.startswith("[")]
    assert {"Python", "torch", "torchvision", "scikit-learn", "results", "device"} <= set(names)
