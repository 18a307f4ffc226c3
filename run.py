"""Train, sweep and evaluate from the command line: `python run.py --help`."""

from vaezoo.run import main

if __name__ == "__main__":
    main()
