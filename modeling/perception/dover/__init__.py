"""DOVER (Wu et al., ICCV 2023, arXiv 2211.04894) for released weights.

Written from the paper and from facts about the released files; no released weights are part of
the project, and theirs are for non-commercial use.
"""
