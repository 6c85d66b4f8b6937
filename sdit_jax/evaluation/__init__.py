"""Floor 5, evaluation: samples against real images; every number with its protocol.

features/     what images are compared by: small classifiers, the Inception network of FID
subject       what is evaluated, and the real images it is held against
reference     a split's moments and features, kept on disk
frechet       the distance of two clouds of features
scores        kernel distance, Inception Score, precision and recall
yardsticks    real images, changed as a person can imagine
compare       one ruler, one reference: all scores, and those of the yardsticks
evaluate      all rulers and references: records with their protocol
evaluators    the same while a network trains
energy        operations and joules, layer by layer
probe         losses, firing rates and spikes by noise level; from noise to image
neighbours    whether samples are copies
portrait      all of it for the report
report/       one page, complete in itself
"""
