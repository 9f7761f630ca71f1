"""Kubernetes knowledge without Kubernetes: pure functions from plain values to plain values."""
