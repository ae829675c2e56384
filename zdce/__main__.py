"""``python -m zdce`` is the ``zdce`` command."""

from zdce.cli import main

if __name__ == "__main__":
    main()
