# What is changed in LXC's template busybox. Its init waits in the foreground for a DHCP lease, first
# dropping the address that the container's configuration gave, and hears no lxc-stop meanwhile (28 s).
s,^/bin/udhcpc$,/bin/ip -4 -o addr show dev eth0 scope global | /bin/grep -q inet || /bin/udhcpc -f \&,
# 400 links by one program instead of 400.
s|xargs -n1 ln -s busybox|perl -lne 'symlink "busybox", $_'|
