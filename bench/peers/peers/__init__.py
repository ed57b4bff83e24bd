# SPDX-License-Identifier: Apache-2.0
"""One module a peer; each lists its peers in PEERS (see harness/peer.py)."""
