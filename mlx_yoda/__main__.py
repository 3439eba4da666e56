"""`python -m mlx_yoda` is `mlx-yoda`."""

from mlx_yoda.cli import main

if __name__ == "__main__":
    main()
