"""Where instances should be: pure functions from a snapshot of the cluster to a plan, and the check of any plan.

problems = check(plan := policy(snapshot), snapshot)
"""
