#!/bin/sh
# Fence agent: the power switch of the lab. It does what a power loss does: the host is off the wire, every process is killed,
# no address is left. It says so only when nothing lives there any more.
action=off
while read -r line; do
    case "$line" in
    action=*) action=${line#*=} ;;
    port=* | plug=*) port=${line#*=} ;;
    nodename=*) name=${line#*=} ;;
    esac
done
case "$1" in
-o) action=$2 ;;
--action=*) action=${1#*=} ;;
esac
port=${port:-$name}
case "$action" in
metadata)
    cat <<END
<?xml version="1.0"?>
<resource-agent name="fence_lab" shortdesc="The power switch of the lab">
<parameters>
<parameter name="action" required="1"><content type="string" default="off"/></parameter>
<parameter name="port" required="0"><content type="string"/></parameter>
</parameters>
<actions>
<action name="off"/>
<action name="on"/>
<action name="reboot"/>
<action name="status"/>
<action name="monitor"/>
<action name="metadata"/>
</actions>
</resource-agent>
END
    ;;
off | reboot)
    ip -n @prefix@-sw link set "$port" down || exit 1
    while pids=$(ip netns pids @prefix@-"$port") && [ -n "$pids" ]; do
        kill -9 $pids 2>/dev/null
        sleep 0.02
    done
    ip -n @prefix@-"$port" address flush dev @interface@
    ;;
on | status | monitor) ;;
*) exit 1 ;;
esac
exit 0
