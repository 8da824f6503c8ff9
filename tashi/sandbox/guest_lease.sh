#!/bin/sh
# What the guest's DHCP client runs with the lease it got.
case "$1" in
    deconfig) ip link set "$interface" up ;;
    bound | renew)
        ip address flush dev "$interface"
        ip address add "$ip/${mask:-24}" dev "$interface"
        [ -n "$router" ] && ip route replace default via "$router"
        [ -n "$hostname" ] && hostname "$hostname"
        echo "LEASE ip=$ip hostname=$hostname domain=$domain" >/dev/console
        ;;
esac
