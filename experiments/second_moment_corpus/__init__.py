"""Whether the scores of edits depend on the text that the second moment of the keys is taken over."""
