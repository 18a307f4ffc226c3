"""Look at a trained model in the browser: a page that a local server keeps up to date, or one file."""
