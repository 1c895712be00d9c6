# A host's own view of the folders that both programs insist on, in a mount namespace of its own.
set -e
dir=@dir@
hostname @node@
mount --rbind /run/netns $dir/run/netns
mount --rbind $dir/run /run
mount --bind $dir/etc-corosync /etc/corosync
mount --bind $dir/lib-corosync /var/lib/corosync
mount --bind $dir/lib-pacemaker /var/lib/pacemaker
mount --bind $dir/log /var/log
mount -t tmpfs -o mode=1777 shm /dev/shm
mount -t overlay -o lowerdir=$dir/usr:/usr overlay /usr
mkdir -p /run/lock /run/crm
chown hacluster:haclient /run/crm
corosync -f &
until corosync-quorumtool -s >/dev/null 2>&1; do sleep 0.1; done
export PCMK_logfile=$dir/cluster.log PCMK_logfacility=none
exec pacemakerd
