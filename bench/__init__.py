"""Side-by-side benchmarks: regproxy beside real peers, on one core each.

``python -m bench`` runs all cases, ``python -m bench NAME ...`` some of them. A case is one
module in :mod:`bench.cases`; a server that is measured is one in :mod:`bench.peers`.
"""
