"""``python -m budeval.cli`` is the command ``budeval``."""

from budeval.cli.app import main

if __name__ == "__main__":
    main()
