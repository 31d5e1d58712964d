"""How a network of the outer host reaches outside: a bridge on a NIC, a VLAN, macvtap, proxy ARP over Wi-Fi.

`host` asks a machine with Linux about its NICs, by iproute2's JSON; `checks` judges what it said, in words;
`steps` works out which commands make a bridge and which take it back; `trial` has them done there, tried first,
and taken back by themselves unless they are confirmed; `proxy` is what stands in for a bridge on Wi-Fi.
"""
