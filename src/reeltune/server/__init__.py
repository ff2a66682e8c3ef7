"""The HTTP server of the page and the API: who may reach it, its port and its connections."""
