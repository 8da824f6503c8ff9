#!/bin/sh
# What the guest's DHCP client runs with the lease it got, or without one: then a link-local address follows from the card's own.
case "$1" in
    deconfig) ip link set "$interface" up ;;
    bound | renew)
        ip address flush dev "$interface"
        ip address add "$ip/${mask:-24}" dev "$interface"
        [ -n "$router" ] && ip route replace default via "$router"
        [ -n "$hostname" ] && hostname "$hostname"
        echo "LEASE ip=$ip hostname=$hostname domain=$domain interface=$interface" >/dev/console
        ;;
    leasefail)
        ip address show dev "$interface" | grep -q 'inet ' && exit 0
        IFS=: read -r _ _ _ _ high low <"/sys/class/net/$interface/address"
        case $high in 00 | ff) high=01 ;; esac # those are reserved
        own=$(printf '169.254.%d.%d' "0x$high" "0x$low")
        ip address add "$own/16" dev "$interface"
        arping -q -A -c 2 -I "$interface" "$own"
        echo "LINK-LOCAL ip=$own interface=$interface" >/dev/console
        ;;
esac
