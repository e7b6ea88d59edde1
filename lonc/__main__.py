"""``python -m lonc`` is the ``lonc`` command."""

from lonc.cli import main

if __name__ == "__main__":
    main()
