"""`python -m infra.cli` is `everlong`."""

from infra.cli import main

if __name__ == "__main__":
    main()
