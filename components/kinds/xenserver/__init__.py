"""XCP-ng and XenServer.

Its own files: `xe` (its command), `facts` (what XAPI has, at one look), `names` (whose things are).
"""
