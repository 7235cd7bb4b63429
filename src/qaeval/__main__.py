"""`python -m qaeval`."""

from qaeval.cli import main

if __name__ == "__main__":
    main()
