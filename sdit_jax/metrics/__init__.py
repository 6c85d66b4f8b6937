"""Floor 5, metrics: samples against real images; every number with its protocol.

features/     feature extractors: small classifiers, the Inception network of FID
reference     real images by split, and their feature statistics, memoized on disk
frechet       the Frechet distance between two sets of features
scores        kernel distance, Inception Score, precision and recall
yardsticks    perturbed real images that calibrate a metric
compare       all scores by one extractor against one reference, and those of the yardsticks
evaluate      all extractors and references: records with their protocol
neighbours    nearest training images
"""
