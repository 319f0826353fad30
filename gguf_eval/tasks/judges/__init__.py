"""Pure functions that judge an answer: text in, `Judgement` out."""
