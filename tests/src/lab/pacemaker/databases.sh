#!/bin/sh
# OCF agent ocf:lab:databases: MariaDB and Redis of this host as one role. Unpromoted: both follow, or refuse writes.
# What it does on promotion is what keepalived's notify script does in the same lab.
dir=@dir@
success=0 generic=1 unimplemented=3 stopped=7 promoted=8

sql() { timeout 2 mariadb --no-defaults --batch --skip-column-names --socket=$dir/mysql.sock --user=root "$@"; }
kv() { timeout 2 redis-cli -s $dir/redis.sock "$@"; }
lives() { [ -n "$1" ] && [ -d "/proc/$1" ] && ! grep -q '^State:.Z' "/proc/$1/status" 2>/dev/null; }
mysqld() { cat $dir/mysql.pid 2>/dev/null; }

meta_data() {
    cat <<END
<?xml version="1.0"?>
<resource-agent name="databases" version="1">
<version>1.0</version>
<longdesc lang="en">MariaDB and Redis of a host as one role</longdesc>
<shortdesc lang="en">MariaDB and Redis</shortdesc>
<parameters/>
<actions>
<action name="start" timeout="60s"/>
<action name="stop" timeout="20s"/>
<action name="monitor" role="Promoted" interval="1s" timeout="5s"/>
<action name="monitor" role="Unpromoted" interval="2s" timeout="5s"/>
<action name="promote" timeout="20s"/>
<action name="demote" timeout="20s"/>
<action name="notify" timeout="20s"/>
<action name="meta-data" timeout="5s"/>
</actions>
</resource-agent>
END
}

monitor() {
    closed=$(sql -e 'SELECT @@global.read_only' 2>/dev/null)
    role=$(kv role 2>/dev/null | head -n 1)
    if [ -z "$closed" ] && [ -z "$role" ] && ! lives "$(mysqld)"; then return $stopped; fi
    if [ -z "$closed" ] || [ -z "$role" ]; then return $generic; fi
    if [ "$closed" = 0 ] && [ "$role" = master ]; then return $promoted; fi
    return $success
}

start() {
    lives "$(mysqld)" || sh $dir/mysql-start
    [ "$(kv ping 2>/dev/null)" = PONG ] || setsid redis-server $dir/redis.conf </dev/null >/dev/null 2>&1 &
    until monitor; do sleep 0.2; done
    follow "$OCF_RESKEY_CRM_meta_notify_promoted_uname $OCF_RESKEY_CRM_meta_notify_master_uname"
}

stop() {
    redis=$(kv info server 2>/dev/null | sed -n 's/^process_id:\([0-9]*\).*/\1/p')
    mysql=$(mysqld)
    for pid in $redis $mysql; do kill "$pid" 2>/dev/null; done
    for pid in $redis $mysql; do
        tries=15
        while lives "$pid"; do
            # One that is frozen does not hear a polite word.
            tries=$((tries - 1))
            if [ $tries = 0 ]; then kill -9 "$pid"; fi
            sleep 0.2
        done
    done
    return $success
}

promote() {
    kv replicaof no one
    kv config set min-replicas-to-write 0
    received=$(sql -E -e 'SHOW SLAVE STATUS' | sed -n 's/^ *Gtid_IO_Pos: //p')
    [ -z "$received" ] || timeout 15 mariadb --no-defaults --socket=$dir/mysql.sock --user=root \
        -e "SELECT MASTER_GTID_WAIT('$received', 10)"
    sql -e 'SET GLOBAL rpl_semi_sync_master_wait_no_slave=0; SET GLOBAL rpl_semi_sync_master_enabled=1'
    sql -e 'SET GLOBAL read_only=0' || return $generic
    sql -e 'STOP SLAVE' &
    return $success
}

demote() {
    # Nobody is followed yet, and a replica takes no writes.
    kv replicaof 127.0.0.1 1
    kv client kill type normal
    # A dead server is closed; one that lives and does not obey is for `stop`.
    sql -e 'SET GLOBAL read_only=1' || ! lives "$(mysqld)"
}

follow() {
    set -- $1
    if [ -z "$1" ] || [ "$1" = "$(uname -n)" ]; then return $success; fi
    case "$1" in db1) address=@db1@ ;; *) address=@db2@ ;; esac
    kv replicaof $address 6379
    sql -e "SET GLOBAL rpl_semi_sync_master_enabled=0; SET GLOBAL read_only=1; STOP SLAVE; CHANGE MASTER TO MASTER_HOST='$address', MASTER_USER='repl', MASTER_PASSWORD='@password@', MASTER_USE_GTID=slave_pos, MASTER_CONNECT_RETRY=1; START SLAVE"
}

notify() {
    if [ "$OCF_RESKEY_CRM_meta_notify_type-$OCF_RESKEY_CRM_meta_notify_operation" = post-promote ]; then
        follow "$OCF_RESKEY_CRM_meta_notify_promote_uname"
    fi
    return $success
}

# The description is asked for by a user who may not write here.
[ "$1" = meta-data ] || exec 2>>$dir/databases.log
[ "$1" = meta-data ] || [ "$1" = monitor ] || echo "$(date +%s.%N) $1" >&2
case "$1" in
meta-data) meta_data ;;
monitor) monitor ;;
start) start ;;
stop) stop ;;
promote) promote ;;
demote) demote ;;
notify) notify ;;
validate-all) ;;
*) exit $unimplemented ;;
esac
