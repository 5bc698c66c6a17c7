"""`python -m unirl` is the command `unirl`."""

from unirl.cli.main import main

if __name__ == "__main__":
    main()
