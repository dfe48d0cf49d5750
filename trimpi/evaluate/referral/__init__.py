"""Policy Referral: how faithfully reasoning cites the policy, 0 to 10 (paper, setting 4).

The completions of `no_policy` are judged, by an exact judge where rules have ids, or by a model.
"""
