#!/bin/sh
# The only program of the sandbox's guest: loads the drivers, says that it is up, then beats once a second.
# Each network card asks DHCP for an address, and does with a link-local one as long as it gets none.
# On the kernel's command line: tashi.ip=ADDRESS/PREFIX sets eth0's address.
export PATH=/bin
mount -t proc proc /proc
mount -t sysfs sysfs /sys
mount -t devtmpfs devtmpfs /dev 2>/dev/null
exec >/dev/console 2>&1
for module in $(cat /lib/order); do insmod "/lib/$module" 2>/dev/null; done
echo "GUEST-UP uptime=$(cut -d' ' -f1 /proc/uptime) kernel=$(uname -r)"

ip link set lo up
for card in /sys/class/net/eth*; do
    [ -e "$card" ] || continue
    card=${card##*/}
    ip link set "$card" up
    address=$(sed -n 's/.*tashi\.ip=\([^ ]*\).*/\1/p' /proc/cmdline)
    if [ "$card" = eth0 ] && [ "$address" ]; then
        ip address add "$address" dev eth0
        arping -q -A -c 2 -I eth0 "${address%/*}" &
    else
        udhcpc -b -t 3 -T 1 -i "$card" -s /etc/lease.sh >/dev/null 2>&1 &
    fi
done

# the power button: acpid runs the script of that name
mkdir -p /etc/acpi/PWRF
printf '#!/bin/sh\necho ACPI-SHUTDOWN >/dev/console\nsync\npoweroff -f\n' >/etc/acpi/PWRF/00000080
chmod +x /etc/acpi/PWRF/00000080
acpid -c /etc/acpi -l /dev/null 2>/dev/null

disk_size() { [ -b /dev/vda ] && blockdev --getsize64 /dev/vda; }
(
    beat=0
    while :; do
        beat=$((beat + 1))
        memory=$(awk '/MemTotal/ { print $2 }' /proc/meminfo)
        echo "HB $beat up=$(cut -d' ' -f1 /proc/uptime) mem=$memory cpus=$(nproc) disk=$(disk_size)"
        for cpu in /sys/devices/system/cpu/cpu[1-9]*; do # what was hot-plugged starts offline
            [ -e "$cpu/online" ] && grep -q 0 "$cpu/online" && echo 1 >"$cpu/online"
        done
        for block in /sys/devices/system/memory/memory*; do
            grep -q offline "$block/state" 2>/dev/null && echo online >"$block/state"
        done
        sleep 1
    done
) &
exec setsid sh -c 'exec sh </dev/ttyS0 >/dev/ttyS0 2>&1'
