"""The one exception that a person is meant to read."""


class AgmError(Exception):
    """Something the user can put right.

    Args:
        what: what is wrong, in one sentence.
        where: the file, row or parameter concerned.
        fix: what to do about it.
    """

    def __init__(self, what: str, *, where: object = None, fix: str | None = None) -> None:
        self.what, self.where, self.fix = what, where, fix
        lines = [what]
        if where is not None:
            lines.append(f"  where: {where}")
        if fix is not None:
            lines.append(f"  fix:   {fix}")
        super().__init__("\n".join(lines))
