"""`python -m budeval_engine`: the process that the container runs."""

import sys

from budeval_engine.supervisor import main

sys.exit(main())
