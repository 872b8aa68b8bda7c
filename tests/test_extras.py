"""Optional packages: each belongs to an extra, and a feature without its package says which extra brings it."""

import pickle
import sys
from pathlib import Path

import pytest

from agm.extras import DISTRIBUTION, MissingExtra, require


def test_a_module_that_is_installed_is_returned() -> None:
    import json.decoder

    assert require("json.decoder", "pipeline") is json.decoder


@pytest.mark.parametrize("module", ["no_such_package", "no_such_package.inside"])
def test_a_missing_package_names_the_command_that_installs_it(module: str) -> None:
    with pytest.raises(ImportError) as caught:
        require(module, "flow")
    what, where, fix = str(caught.value).splitlines()
    assert what == "The Python module 'no_such_package' is needed here and is not installed"
    assert where == f"  where: {sys.prefix}"
    assert fix == f'  fix:   pip install "{DISTRIBUTION}[flow]"'


def test_a_package_whose_own_import_fails_is_not_called_missing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "incomplete_package.py").write_text("import no_such_package\n")
    monkeypatch.syspath_prepend(tmp_path)
    with pytest.raises(ModuleNotFoundError, match="no_such_package") as caught:
        require("incomplete_package", "flow")
    assert not isinstance(caught.value, MissingExtra)


def test_the_error_crosses_a_process_boundary() -> None:
    error = pickle.loads(pickle.dumps(MissingExtra("cv2", "flow")))
    assert (error.module, error.extra, str(error)) == ("cv2", "flow", str(MissingExtra("cv2", "flow")))
