"""Microsoft Hyper-V.

Its own files: `powershell` (how a program is sent), `cmdlets` (what is asked and done by cmdlets),
`objects` (what they give back), `facts` (what the host has), `settings` (what is wrong with a guest), `names` (whose things are).
"""
