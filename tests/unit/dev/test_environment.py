"""The file that a shell sources."""

import subprocess

from cryptography.fernet import Fernet

from dev import environment
from dev.runtime import Runtime
from dev.settings import Settings


def runtime(settings: Settings) -> Runtime:
    return Runtime(settings.cache / "bin", settings.ports.placement, settings.ports.scheduler, settings.ports.redis)


def test_the_file_is_private_and_a_shell_reads_the_values_as_they_are(settings: Settings) -> None:
    values = {"PLAIN": "1", "HOSTILE": "a b'c\"$(touch /tmp/x)`y`"}
    environment.write_environment(settings, values, [settings.cache / "bin"], settings.state / "dapr")
    path = settings.state / "env"

    script = f'. {path} && printf "%s|%s|%s|%s" "$PLAIN" "$HOSTILE" "$PATH" "$BUDEVAL_SERVER"'
    shown = subprocess.run(["bash", "-c", script], capture_output=True, text=True, check=True).stdout.split("|")

    assert path.stat().st_mode & 0o777 == 0o600
    assert shown[:2] == list(values.values())
    assert shown[2].startswith(f"{settings.cache / 'bin'}:/")
    assert shown[3] == f"http://127.0.0.1:{settings.ports.service}"


def test_tokens_and_keys_are_made_once_and_private(settings: Settings) -> None:
    first = environment.sidecar_environment(settings, runtime(settings))
    service = environment.service_environment(settings, {})

    assert environment.sidecar_environment(settings, runtime(settings)) == first
    assert service["APP_API_TOKEN"] == first["APP_API_TOKEN"]
    assert first["APP_API_TOKEN"] != first["DAPR_API_TOKEN"]
    Fernet((settings.state / "sealing.keys").read_bytes().strip())
    assert (settings.state / "sealing.keys").stat().st_mode & 0o777 == 0o600


def test_the_engine_image_may_be_another_one(settings: Settings) -> None:
    values = environment.service_environment(settings, {"BUDEVAL_ENGINE_IMAGE": "registry.example/engine:1"})

    assert values["BUDEVAL_ENGINE_IMAGE"] == "registry.example/engine:1"


def test_access_is_off_by_a_word_and_on_loopback_alone(settings: Settings) -> None:
    values = environment.service_environment(settings, {})

    assert (values["BUDEVAL_ACCESS"], values["BUDEVAL_HOST"]) == ("off", "127.0.0.1")
    assert set(environment.TOKENS) <= set(values)
    assert set(environment.TOKENS) <= set(environment.sidecar_environment(settings, runtime(settings)))
