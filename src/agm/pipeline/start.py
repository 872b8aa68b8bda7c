"""Where the command `agm` starts: also where the library is installed without the runner, which it then says."""

import sys

from agm.extras import MissingExtra


def main() -> int:
    """Run the command line.

    Returns:
        The exit status.
    """
    try:
        # Here, because it needs the packages of the runner.
        from agm.pipeline import cli

        return cli.main()
    except ModuleNotFoundError as error:
        package = (error.name or "agm").partition(".")[0]
        if package == "agm":
            raise
        print(f"error: {MissingExtra(package, 'pipeline')}", file=sys.stderr)
        return 1
