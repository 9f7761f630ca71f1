"""Sealing of secrets at rest: Fernet (AES-128-CBC with HMAC-SHA256) with rotating keys."""

import json
from pathlib import Path

from cryptography.fernet import Fernet, InvalidToken, MultiFernet
from pydantic import BaseModel, ConfigDict, SecretStr

from budeval.commons.errors import SecretsUnreadable
from budeval.commons.settings import setting

_MAKE_A_KEY = "make one: python -c 'from cryptography.fernet import Fernet; print(Fernet.generate_key().decode())'"


class EvaluationSecrets(BaseModel):
    """What an evaluation must keep secret. Lives sealed in the record until the evaluation ends."""

    model_config = ConfigDict(frozen=True)

    api_key: SecretStr = SecretStr("")
    """Key of the model's endpoint; may be empty."""
    kubeconfig: SecretStr | None = None
    """kubeconfig of the evaluation's own cluster; none: the service's cluster."""

    @property
    def kubeconfig_text(self) -> str | None:
        """The kubeconfig in clear, for the activity that needs it."""
        return None if self.kubeconfig is None else self.kubeconfig.get_secret_value()


class Sealer:
    """Seals with the first key and opens with any: put a new key first to rotate."""

    def __init__(self, keys: list[str]) -> None:
        """Raises ``ValueError``, which shows no key, when there is none or one is no Fernet key."""
        if not keys:
            raise ValueError(f"there is no key to seal secrets with; {_MAKE_A_KEY}")
        self._fernet = MultiFernet([_fernet(number, key) for number, key in enumerate(keys, start=1)])

    @classmethod
    def from_settings(cls, keys: SecretStr | None, keys_file: Path | None) -> "Sealer":
        """Reads the keys from the environment or from a file. Raises :class:`StartRefused`."""
        given = {"BUDEVAL_SEALING_KEYS": keys, "BUDEVAL_SEALING_KEYS_FILE": keys_file}
        with setting(" and ".join(name for name, value in given.items() if value is not None) or " or ".join(given)):
            text = keys.get_secret_value() if keys is not None else ""
            if keys_file is not None:
                text += "\n" + keys_file.read_text(encoding="utf-8", errors="replace")
            return cls(text.split())

    def seal(self, secrets: EvaluationSecrets) -> bytes:
        """Encrypts ``secrets``; the answer may be stored anywhere."""
        plain = {"api_key": secrets.api_key.get_secret_value(), "kubeconfig": secrets.kubeconfig_text}
        return self._fernet.encrypt(json.dumps(plain).encode())

    def open(self, sealed: bytes) -> EvaluationSecrets:
        """Raises :class:`SecretsUnreadable` when no key at hand fits."""
        try:
            return EvaluationSecrets.model_validate_json(self._fernet.decrypt(sealed))
        except InvalidToken as error:
            raise SecretsUnreadable(
                "the secrets of this evaluation were sealed with a key that is not configured any more; "
                "put the old key back behind the new one, or start the evaluation again"
            ) from error


def _fernet(number: int, key: str) -> Fernet:
    try:
        return Fernet(key)
    except ValueError:
        raise ValueError(f"key {number} is no Fernet key (32 bytes in URL-safe base64); {_MAKE_A_KEY}") from None
