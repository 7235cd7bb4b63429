"""The local pages: labels and runs in a browser, served on the loopback interface."""
