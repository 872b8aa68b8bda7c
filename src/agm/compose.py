"""`agm compose`: write `params.yaml` from Hydra's groups, byte for byte as `dvc exp run -S` does."""

from pathlib import Path

from agm.config.load import PARAMS_FILE, check, read
from agm.errors import AgmError
from agm.files import replacing

GROUPS = Path("params")


def compose(overrides: list[str], target: Path = PARAMS_FILE, groups: Path = GROUPS) -> None:
    """Compose `groups` under Hydra `overrides` into `target`; an invalid result leaves `target` as it was.

    Raises:
        AgmError: for an unknown group or key, or a combination that the schema refuses.
    """
    # DVC's own function, so that its bytes are ours. Imported late, as the methods are: together they take seconds.
    from dvc.utils.hydra import compose_and_dump
    from hydra.errors import HydraException
    from omegaconf.errors import OmegaConfBaseException

    from agm import methods

    if not (groups / "config.yaml").exists():
        raise AgmError("There are no Hydra groups", where=groups.absolute(), fix="run from the project's root")
    with replacing(target) as temporary:
        try:
            compose_and_dump(str(temporary), str(groups.absolute()), None, "config", "", overrides)
            said = " ".join(["agm compose", *overrides])
            methods.check(check(read(temporary), said), said)
        except (HydraException, OmegaConfBaseException) as error:
            cause = f"{error}" if error.__cause__ is None else f"{error}: {error.__cause__}"
            raise AgmError(
                f"Hydra cannot compose this: {cause}",
                where=" ".join(overrides),
                fix="see the folders of params/",
            ) from None
