"""``python -m budeval`` starts the service."""

from budeval.main import main

if __name__ == "__main__":
    main()
