"""Who may do what, as three roles that each include the ones before."""

from enum import StrEnum


class Role(StrEnum):
    """What a caller may do."""

    VIEWER = "viewer"
    """Read everything that is not secret."""
    OPERATOR = "operator"
    """Also start, retry and cancel evaluations."""
    ADMIN = "admin"
    """Also delete them."""

    def includes(self, other: "Role") -> bool:
        """Whether this role may do all that ``other`` may."""
        ranks = list(Role)
        return ranks.index(self) >= ranks.index(other)
