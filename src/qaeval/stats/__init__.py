"""Statistics of agreement, rates and comparisons: arrays in, a number or a frozen dataclass out.

Nothing here reads a file, draws from a hidden random state or knows what a rubric is. Every interval and
test treats the cluster (the chunk or document that items share) as the unit that was sampled. A value that
does not exist is NaN with a reason in its `Estimate`, never 0.

========================  ====================================================================
`estimate`                `Estimate`: value, interval, method, counts and the reason for a NaN
`intervals`               intervals of rates, means and ratios, plain and clustered
`resampling`              jackknife and bootstrap over clusters
`paired`                  paired difference, exact sign-flip test, Holm
`reliability`             agreement of two raters, by items and clusters
`coefficients`            kappa and its relatives from tables of counts
`multirater`              Krippendorff's alpha, Fleiss' kappa and relatives for many raters
`bounds`                  what a coefficient can reach given the marginals
`published`               can the numbers printed in a paper or a blog be true?
`homogeneity`             do two raters use the letters at the same rates? plain and clustered
`margins`                 non-inferiority and equivalence
`sequential`              bounds of a mean that hold however often one looks, by betting
`ranking`                 Bradley-Terry
`power`                   how many chunks are needed, and what a run could have seen
========================  ====================================================================
"""
