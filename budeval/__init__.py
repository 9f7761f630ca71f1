"""budeval: durable LLM evaluations on Kubernetes."""

__version__ = "0.1.0"
