"""How far the judge can be trusted: its letters against those of people, and raters against each other."""
