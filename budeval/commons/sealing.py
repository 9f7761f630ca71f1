"""Sealing of secrets at rest: Fernet (AES-128-CBC with HMAC-SHA256) with rotating keys."""

import json
from pathlib import Path

from cryptography.fernet import Fernet, InvalidToken, MultiFernet
from pydantic import BaseModel, ConfigDict, SecretStr

from budeval.commons.errors import SecretsUnreadable


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
        """Raises ``ValueError`` when there is no key or one is no Fernet key."""
        if not keys:
            raise ValueError("no sealing key: set BUDEVAL_SEALING_KEYS or BUDEVAL_SEALING_KEYS_FILE")
        self._fernet = MultiFernet([Fernet(key) for key in keys])

    @classmethod
    def from_settings(cls, keys: SecretStr | None, keys_file: Path | None) -> "Sealer":
        """Reads the keys from the environment or from a file."""
        text = keys.get_secret_value() if keys is not None else ""
        if keys_file is not None:
            text += "\n" + keys_file.read_text(encoding="ascii")
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
