"""One server under more and more load: prompts, closed loops, and the documents of what they showed."""
