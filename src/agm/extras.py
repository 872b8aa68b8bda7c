"""Optional packages: how they are imported, and what a user reads when one is not installed.

The distribution needs torch and numpy. Everything else belongs to an extra of it: `pip install "agm-multimodal[flow]"`.
"""

import sys
from importlib import import_module
from types import ModuleType

DISTRIBUTION = "agm-multimodal"
"""The name on the package index, where `agm` is another program. The import name and the command are `agm`."""


class MissingExtra(ImportError):
    """A package is not installed because it belongs to an extra of this distribution.

    Args:
        module: the module that cannot be imported.
        extra: the extra that brings it.

    Attributes:
        what: what is wrong, in one sentence.
        where: the Python environment that lacks the package.
        fix: the command that installs it.
    """

    def __init__(self, module: str, extra: str) -> None:
        self.module, self.extra = module, extra
        self.what = f"The Python module '{module}' is needed here and is not installed"
        self.where = sys.prefix
        self.fix = f'pip install "{DISTRIBUTION}[{extra}]"'
        super().__init__(f"{self.what}\n  where: {self.where}\n  fix:   {self.fix}", name=module)

    def __reduce__(self) -> tuple[type["MissingExtra"], tuple[str, str]]:
        # Worker processes send their errors to their parent.
        return type(self), (self.module, self.extra)


def require(module: str, extra: str) -> ModuleType:
    """Import a module of an optional package.

    Call it inside the function that uses the module. An ordinary `import` may follow, from which a type checker learns
    what the module contains.

    Args:
        module: the module's full name, such as "sklearn.cluster".
        extra: the extra of this distribution that brings the package, such as "metrics".

    Raises:
        MissingExtra: when the package is not installed.
        ModuleNotFoundError: when the package is installed, and something that it imports itself is not.
    """
    try:
        return import_module(module)
    except ModuleNotFoundError as error:
        package = module.partition(".")[0]
        if error.name != package:
            raise
        raise MissingExtra(package, extra) from None
