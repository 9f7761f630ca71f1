"""How every evaluation ends, whoever ends it: its workflow, a cancellation in the queue, or the pulse."""

from budeval.evals.attempts import ending
from budeval.evals.notifications import last_words
from budeval.record.record import EndRules

END_RULES = EndRules(verdict=ending, last_words=last_words)
"""As the results and the earlier attempts say, and told as the wire contract says."""
