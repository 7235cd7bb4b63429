"""The regression gate: is a run worse than its baseline, and is that certain?"""
