"""Finding, fetching and loading models, and saying what their files hold. Importing it loads no torch."""
