"""`python -m attnsearch` is the command line."""

from attnsearch.cli import main

if __name__ == "__main__":
    main()
