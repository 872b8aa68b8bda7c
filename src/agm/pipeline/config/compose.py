"""`agm compose`: write `params.yaml` from Hydra's groups: the one way to choose a study, a data set or another group.

`dvc exp run -S` changes single parameters of the file that was composed, and keeps everything else.
"""

from collections.abc import Iterator, Sequence
from itertools import accumulate
from pathlib import Path
from typing import Any

from agm.pipeline.config.load import PARAMS_FILE, check, parse
from agm.pipeline.config.overrides import check_form, composed, mistake, readable
from agm.pipeline.config.schema.params import lists_of_methods
from agm.pipeline.errors import AgmError
from agm.pipeline.io.files import replacing

GROUPS = Path("params")


def compose(overrides: list[str], target: Path = PARAMS_FILE, groups: Path = GROUPS) -> None:
    """Compose `groups` under Hydra `overrides` into `target`; an invalid result leaves `target` as it was.

    Raises:
        AgmError: for an unknown group or key, a combination that the schema refuses, or what the raw data are known not
            to have.
    """
    # Imported late, as the methods are: together they take seconds.
    from hydra.errors import HydraException
    from omegaconf import OmegaConf
    from omegaconf.errors import OmegaConfBaseException

    from agm.pipeline.config import methods
    from agm.pipeline.steps.ingest.adapters import foresee

    if not (groups / "config.yaml").exists():
        raise AgmError("There are no Hydra groups", where=groups.absolute(), fix="run from the project's root")
    check_form(overrides, groups)
    given = [readable(override) for override in overrides]
    try:
        content = composed(given, groups)
        OmegaConf.resolve(content)
        chosen = content.study.methods
        # What is no list is told by the check below.
        if isinstance(chosen, Sequence):
            OmegaConf.update(content, "dvc", lists_of_methods(chosen, content.methods), force_add=True)
    except (HydraException, OmegaConfBaseException, ValueError) as error:  # ValueError: an integer of 5,000 digits
        raise mistake(given, groups, error) from None
    text = OmegaConf.to_yaml(content)
    said = " ".join(["agm compose", *overrides])
    params = check(parse(text, said), said)
    _check_settings(params.study.settings, groups, said)
    methods.check(params, said)
    foresee(params.dataset)
    with replacing(target) as temporary:
        temporary.write_text(text, encoding="utf-8")


def _check_settings(settings: dict[str, Any], groups: Path, said: str) -> None:
    """Refuse a setting that no file of params/method takes: it would be ignored without a word."""
    for method, parameters in settings.items():
        path = groups / "method" / f"{method}.yaml"
        text = path.read_text(encoding="utf-8") if path.is_file() else ""
        for name in _leaves(parameters):
            key = f"study.settings.{method}.{name}"
            # A mapping as a whole may be what is taken.
            if not any(f"{{oc.select:{part}," in text for part in accumulate(key.split("."), "{}.{}".format)):
                raise AgmError(
                    f"{key} is taken by no method: {path} does not read it",
                    where=said,
                    fix=f"set methods.{method}.{name}",
                )


def _leaves(parameters: dict[str, Any]) -> Iterator[str]:
    """The full names of the values in nested parameters."""
    for name, value in parameters.items():
        if isinstance(value, dict):
            yield from (f"{name}.{rest}" for rest in _leaves(value))
        else:
            yield name
