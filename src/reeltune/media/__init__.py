"""Media in and out: MP4 files and what is embedded in them."""
