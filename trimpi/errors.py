"""The one error that a user is meant to read."""


class UserError(Exception):
    """Something that the user can mend: one line that names the place, the fault and the cure.

    The command line prints it without a traceback and exits with code 2. Several problems found
    in one pass are joined, one a line, so that they can be mended together.
    """

    @classmethod
    def join(cls, problems: list[str]) -> "UserError":
        """One error out of several problem lines."""
        return cls("\n".join(problems))
