"""The doctor tells what is missing, what does not fit, and the mend."""

import packaging
from packaging.requirements import Requirement

from emokd_utils.cli import doctor


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
    assert doctor.check_folder("results", tmp_path / "runs", "").passed
    assert list(tmp_path.iterdir()) == [], "the check leaves nothing behind"
    (tmp_path / "file").touch()
    check = doctor.check_folder("results", tmp_path / "file" / "runs", "run --runs DIR")
    assert check.passed is False and "run --runs DIR" in str(check)


def test_a_proxy_that_cannot_be_used_is_told(monkeypatch):
    monkeypatch.setenv("HTTP_PROXY", "http://proxy:3128")
    assert [check.passed for check in doctor.check_proxies()] == [True]
    monkeypatch.setenv("HTTP_PROXY", "foo://proxy")
    (check,) = doctor.check_proxies()
    assert check.passed is False and "foo://proxy" in check.mend and "unset" in check.mend
