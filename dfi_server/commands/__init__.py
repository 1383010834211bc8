"""The ways in from a shell: `dfi edit`, `batch`, `strip`, `setup`, `serve`, `bench`."""
