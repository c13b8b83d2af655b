"""Entry point of `python -m alm`, with which torchrun starts the ranks."""

from alm.cli.main import main

if __name__ == "__main__":
    main()
