"""The doctor tells what is missing, what does not fit, and the mend."""

import subprocess
import sys
from types import SimpleNamespace

import packaging
import psutil
import pytest
from packaging.requirements import Requirement

from emokd_utils.cli import doctor
from emokd_utils.profiles import project_root


def test_a_version_in_its_range_passes_and_what_is_missing_or_of_another_has_a_mend(monkeypatch):
    check = doctor.check_dependency(Requirement("packaging>=20"))
    assert str(check).split() == ["[ok]", "packaging", packaging.__version__, "wanted", ">=20"]
    missing = {"packaging>=900,<901": packaging.__version__, "no-such-thing>=1,<2": "not installed"}
    for wanted, found in missing.items():
        check = doctor.check_dependency(Requirement(wanted))
        assert check.passed is False and check.found == found
        assert f'pip install "{wanted}"' in str(check)
    monkeypatch.setattr(doctor.importlib.metadata, "version", lambda name: "2.14.1+cpu")
    assert doctor.check_dependency(Requirement("packaging>=2.9,<2.16")).passed


def test_a_version_that_fits_but_does_not_import_is_a_fail(tmp_path, monkeypatch):
    broken = "raise RuntimeError('operator torchvision::nms does not exist')"
    (tmp_path / "broken_build.py").write_text(broken)
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.setitem(doctor.IMPORT_NAMES, "packaging", "broken_build")
    check = doctor.check_dependency(Requirement("packaging>=20"))
    assert check.passed is False and "install --force-reinstall" in str(check)
    assert "RuntimeError: operator torchvision::nms does not exist" in str(check)


def test_dependencies_are_those_of_pyproject_and_shipped_files_not_empty(tmp_path):
    text = '[project]\ndependencies = ["packaging>=20,<900", "no-such-thing>=1"]'
    (tmp_path / "pyproject.toml").write_text(text)
    checks = [(check.wanted, check.passed) for check in doctor.check_dependencies(tmp_path)]
    assert checks == [(">=20,<900", True), (">=1", False)]
    (tmp_path / "data" / "emoscenes").mkdir(parents=True)
    (tmp_path / "data" / "emoscenes" / "objects.png").touch()
    (tmp_path / "data" / "emoscenes" / "objects.csv").write_bytes(bytes(2000))
    checks = {check.name: check for check in doctor.checks(tmp_path)}
    assert checks["objects"].passed and "(2 kB)" in str(checks["objects"])
    for name in ("sprite sheet", "TinyVLM weights"):
        assert checks[name].passed is False and "git checkout -- data/" in str(checks[name])


def test_results_need_a_folder_that_can_be_written_or_made(tmp_path):
    assert doctor.check_runs(tmp_path / "runs").passed
    assert list(tmp_path.iterdir()) == [], "the check leaves nothing behind"
    (tmp_path / "file").touch()
    check = doctor.check_runs(tmp_path / "file" / "runs")
    assert check.passed is False and "run --runs DIR" in str(check)


def test_memory_is_what_is_available_but_at_most_what_the_container_may_have(tmp_path, monkeypatch):
    monkeypatch.setattr(psutil, "virtual_memory", lambda: SimpleNamespace(available=4e9))
    monkeypatch.setattr(doctor, "CONTAINER_LIMIT", tmp_path / "memory.max")
    for limit, found in ((None, "4.0 GB"), ("max", "4.0 GB"), ("1900000000", "1.9 GB")):
        if limit:
            doctor.CONTAINER_LIMIT.write_text(f"{limit}\n")
        check = list(doctor.check_machine())[-1]
        assert (check.found, check.wanted) == (found, ">=3 GB")
        assert check.passed is (found == "4.0 GB")


@pytest.mark.slow
def test_the_command_reports_on_this_machine_and_its_exit_code_tells_of_fails():
    command = [sys.executable, "-m", "emokd_utils", "doctor"]
    run = subprocess.run(command, cwd=project_root(), capture_output=True, text=True)
    assert run.returncode == int("[fail]" in run.stdout) and run.stderr == ""
    lines = run.stdout.splitlines()
    assert max(map(len, lines)) <= 80 and ("passed." in lines[-1]) is (run.returncode == 0)
    names = [line.split()[1] for line in lines if line.startswith("[")]
    assert {"Python", "torch", "torchvision", "scikit-learn", "results", "device"} <= set(names)
