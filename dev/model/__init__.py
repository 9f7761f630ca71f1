"""A real small model behind an OpenAI-compatible endpoint: SmolLM2-135M-Instruct on llama.cpp's own server, on the CPU.

Both come inside Python packages and live in an environment of their own. `model_command(settings)` is what a supervisor
runs; `ready(port)` tells when it answers.
"""

from dev.model.endpoint import MODEL_NAME, ensure_model_venv, model_command, ready

__all__ = ["MODEL_NAME", "ensure_model_venv", "model_command", "ready"]
