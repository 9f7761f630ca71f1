"""The local stack: every real part the service needs, on one machine and on 127.0.0.1 only."""
