"""Train, sweep and evaluate from the command line: `python run.py --help`."""

from vaezoo.cli import main

if __name__ == "__main__":
    main()
