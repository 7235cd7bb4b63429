"""The report as data (`document`, `facts`) and its views: markdown, HTML, terminal."""
