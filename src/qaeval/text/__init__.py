"""Words, sentences, numbers and names of a text, English and German, without a model."""
