"""An identity provider on a real port, with real keys."""

import json
import threading
import time
from contextlib import suppress
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import jwt
from cryptography.hazmat.primitives.asymmetric import ec, rsa
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat
from jwt.algorithms import ECAlgorithm, RSAAlgorithm

AUDIENCE = "budeval"


def rsa_key():
    return rsa.generate_private_key(public_exponent=65537, key_size=2048)


RSA_KEY, OTHER_KEY, EC_KEY = rsa_key(), rsa_key(), ec.generate_private_key(ec.SECP256R1())


def public_text(key):
    return key.public_key().public_bytes(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo)


def published(kid, key, **more):
    algorithm = RSAAlgorithm if isinstance(key, rsa.RSAPrivateKey) else ECAlgorithm
    return {**json.loads(algorithm.to_jwk(key.public_key())), "kid": kid, "use": "sig", **more}


class Provider:
    """Publishes ``keys``; ``status`` other than 200 is what it answers to everything."""

    def __init__(self):
        self.keys = [published("one", RSA_KEY), published("curve", EC_KEY)]
        self.status = 200
        self.body = None
        self.delay = 0.0
        self.asked = []
        outer = self

        class Handler(BaseHTTPRequestHandler):
            def do_GET(self):
                outer.asked.append(self.path)
                time.sleep(outer.delay)
                body = outer._answer(self.path) if outer.body is None else outer.body
                self.send_response(outer.status)
                self.send_header("Content-Length", str(len(body)))
                self.end_headers()
                with suppress(BrokenPipeError):
                    self.wfile.write(body)

            def log_message(self, *arguments):
                """Says nothing."""

        self._server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self._thread = threading.Thread(target=self._server.serve_forever, kwargs={"poll_interval": 0.02})
        self._thread.start()
        self.issuer = f"http://127.0.0.1:{self._server.server_port}/realms/test"
        self.discovered = {"issuer": self.issuer, "jwks_uri": self.jwks_url}

    @property
    def jwks_url(self):
        return f"{self.issuer}/keys"

    def _answer(self, path):
        document = self.discovered if path.endswith("/openid-configuration") else {"keys": self.keys}
        return json.dumps(document).encode()

    def close(self):
        self._server.shutdown()
        self._server.server_close()
        self._thread.join(timeout=5)

    def claims(self, **changes):
        """Good claims; a change to None takes a claim away."""
        now = int(time.time())
        claims = {
            "iss": self.issuer,
            "aud": AUDIENCE,
            "sub": "user-1",
            "iat": now,
            "exp": now + 300,
            "roles": ["budeval-operator"],
            **changes,
        }
        return {name: value for name, value in claims.items() if value is not None}

    def token(self, key=RSA_KEY, kid="one", algorithm="RS256", headers=None, **changes):
        """A token signed by ``key``."""
        # Not jwt.encode, which refuses claims that no honest provider makes.
        given = {"typ": "JWT", **({"kid": kid} if kid else {}), **(headers or {})}
        return jwt.api_jws.encode(json.dumps(self.claims(**changes)).encode(), key, algorithm, given)
