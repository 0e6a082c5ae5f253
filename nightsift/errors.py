"""The ways in which an image can end early.

A stage raises one of these; whoever runs the stage turns it into the image's status. Every other exception is a bug.
`Unavailable` and `Unreadable` are no verdicts on the image: it waits.
"""


class Stopped(Exception):
    """The stage and those after it have nothing to do for this image; the message is the reason.

    Attributes
    ----------
    warnings : tuple of str
        What the stage would have warned of.
    """

    warnings: tuple[str, ...] = ()


class Rejected(Stopped):
    """The data do not allow what the stage is for, or what it made must not be trusted."""


class NotAsked(Stopped):
    """The configuration does not ask for this stage."""


class Unavailable(Exception):
    """What a stage needs from outside cannot be had now; the message says what and why. The next run asks again."""


class Unreadable(Exception):
    """A file that is there cannot be read; the message names it. The next run tries again, or makes a product again."""

    def __init__(self, path, problem: object):
        lines = str(getattr(problem, "strerror", None) or problem).strip().splitlines()
        super().__init__(f"{path} cannot be read ({lines[0] if lines else type(problem).__name__})")
        self.path = path


class CampaignError(ValueError):
    """The configuration or the sample sheet cannot be used; the message says what to change."""
