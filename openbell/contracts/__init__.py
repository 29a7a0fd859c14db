"""The messages that services exchange. This package imports nothing else of ours."""
