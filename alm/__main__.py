"""`python -m alm`, which is how torchrun starts it."""

from alm.cli.main import main

if __name__ == "__main__":
    main()
