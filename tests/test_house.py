"""The house: the library imports no part of the pipeline, and loads nothing before it is used."""

import subprocess
import sys
import textwrap

import grimp
import pytest

NEVER_AT_IMPORT = (
    "torch",
    "numpy",
    "pyarrow",
    "polars",
    "pydantic",
    "hydra",
    "omegaconf",
    "snakemake",
    "dvc",
    "sklearn",
    "scipy",
    "torchvision",
    "torchaudio",
    "transformers",
    "agm.pipeline",
)
"""What `import agm` must not load."""
OF_THE_PIPELINE = tuple(name for name in NEVER_AT_IMPORT if name not in ("torch", "numpy"))
"""What the names of the library must not load either; a few functions import scikit-learn or SciPy when called."""
TOUCH_EVERYTHING = """
    import agm
    for name in agm.__all__:
        getattr(agm, name)
    for module in (agm.methods, agm.fusion, agm.metrics, agm.models, agm.models.encoders):
        for name in module.__all__:
            getattr(module, name)
    import agm.attribution, agm.distributed, agm.extras, agm.models.mmtm, agm.models.tokens
"""


def printed_by(code: str) -> list[str]:
    """The words that this code prints in a new process, and then the modules that it has loaded."""
    script = f"{textwrap.dedent(code)}\nimport sys\nprint(*sorted(sys.modules))"
    ran = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True)
    return ran.stdout.split()


def test_the_library_imports_no_part_of_the_pipeline() -> None:
    """Anywhere: at the top of a module, within a function, for a type checker."""
    graph = grimp.build_graph("agm", exclude_type_checking_imports=False, cache_dir=None)
    library = [name for name in graph.modules if not name.startswith("agm.pipeline")]
    assert {"agm", "agm.attribution", "agm.methods.agm", "agm.metrics.competition"} <= set(library)
    wrong = []
    for name in library:
        for imported in graph.find_modules_directly_imported_by(name):
            if imported.startswith("agm.pipeline"):
                wrong.append(f"{name} imports {imported}")
    assert not wrong


def test_there_are_pipeline_modules_to_keep_apart() -> None:
    """The graph sees them: what the test above looks for can be found."""
    graph = grimp.build_graph("agm", exclude_type_checking_imports=False, cache_dir=None)
    importers = graph.find_modules_that_directly_import("agm.methods.method")
    assert any(name.startswith("agm.pipeline") for name in importers)


def test_importing_the_package_loads_nothing() -> None:
    assert not set(printed_by("import agm")).intersection(NEVER_AT_IMPORT)


@pytest.fixture(scope="module")
def touched() -> tuple[set[str], float]:
    """The modules that a process has loaded which touched every public name, and the processor time beside torch's."""
    code = f"""
import time
import torch, numpy
began = time.process_time()
{textwrap.dedent(TOUCH_EVERYTHING)}
print(time.process_time() - began)
"""
    seconds, *loaded = printed_by(code)
    return set(loaded), float(seconds)


def test_every_public_name_loads_no_package_of_the_pipeline(touched: tuple[set[str], float]) -> None:
    loaded, _ = touched
    assert "torch" in loaded
    assert not loaded.intersection(OF_THE_PIPELINE)


def test_the_whole_library_is_imported_in_little_time(touched: tuple[set[str], float]) -> None:
    """Measured: 0.07 s of processor time (docs/library.md); a busy machine may need more."""
    _, seconds = touched
    assert seconds < 1
