"""Makes the engine's package importable: it is installed in its image, not beside the service."""

import sys
from pathlib import Path

ENGINE = Path(__file__).resolve().parents[3] / "engines" / "opencompass"

if str(ENGINE) not in sys.path:
    sys.path.insert(0, str(ENGINE))
