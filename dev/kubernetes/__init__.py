"""A real single-node Kubernetes on 127.0.0.1."""
