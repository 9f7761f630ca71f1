"""The HTTP border: routes, schemas, problem+json, health and metrics."""
