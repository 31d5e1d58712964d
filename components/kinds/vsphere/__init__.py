"""vSphere (a vCenter) as the outer host.

Its own files: `api` (its SOAP API), `machine` (a machine in the provider's words), `hardware` (a
machine as the API shows it).
"""
