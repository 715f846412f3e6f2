"""Models as a service: `openlepton serve`, a class of your own as endpoints, and the client that talks to both."""
