"""What every part stands on: paths, files written whole, worker processes, compiled functions, the terminal."""
