"""Who calls, and whether it may: bearer tokens, OpenID Connect, and how often. Knows nothing of routes."""
