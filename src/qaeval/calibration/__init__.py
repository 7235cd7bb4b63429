"""What do the judge's probabilities tell that its letters hide? Scores, calibration, and which items a second judge should grade."""
