"""Problems made by rule from a seed: as many as wanted, in no training set, each with one right answer."""
