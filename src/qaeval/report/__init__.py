"""The parts of every report and view: facts, measures, numbers as text, tables, charts, pages."""
