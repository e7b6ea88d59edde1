"""``python -m lonc`` is the ``lonc`` command."""

from lonc.cli.main import main

if __name__ == "__main__":
    main()
