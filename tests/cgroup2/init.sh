#!/bin/busybox sh
# Builds the guest's file systems, and hands over to guest.py in the host's tree. If a step fails,
# this ends, and with it, as process 1, the machine.
set -e
bb=/bin/busybox
$bb mount -t devtmpfs dev /dev
exec </dev/console >/dev/console 2>&1
for module in $($bb cat /order); do $bb insmod "/modules/$module"; done

# Nobody changes the host's files meanwhile, or does not mind: what was read is kept.
$bb mount -t 9p -o ro,trans=virtio,version=9p2000.L,cache=loose,msize=512000 host /host
$bb mount -t tmpfs over /over
$bb mkdir /over/upper /over/work
$bb mount -t overlay -o lowerdir=/host,upperdir=/over/upper,workdir=/over/work root /new

cd /new
$bb mount -t proc -o nosuid,nodev,noexec proc proc
$bb mount -t sysfs -o nosuid,nodev,noexec sys sys
# As systemd mounts it.
$bb mount -t cgroup2 -o nosuid,nodev,noexec,nsdelegate,memory_recursiveprot cgroup2 sys/fs/cgroup
for controller in $($bb cat sys/fs/cgroup/cgroup.controllers); do
  echo "+$controller" >sys/fs/cgroup/cgroup.subtree_control
done
$bb mount -t devtmpfs dev dev
$bb mkdir -p dev/pts dev/shm
$bb mount -t devpts -o gid=5,mode=620,ptmxmode=666 devpts dev/pts
$bb ln -sf /proc/self/fd dev/fd
for number in 0:stdin 1:stdout 2:stderr; do
  $bb ln -sf "/proc/self/fd/${number%:*}" "dev/${number#*:}"
done
$bb mount -t tmpfs -o mode=1777,nosuid,nodev shm dev/shm
$bb mount -t tmpfs -o mode=755,nosuid,nodev run run
# A tree that is kept in /tmp has to be seen; the overlay can be written, too.
case $($bb cat /start) in
  */tmp/*) ;;
  *) $bb mount -t tmpfs -o mode=1777,nosuid,nodev tmp tmp ;;
esac
$bb ifconfig lo 127.0.0.1 up
$bb hostname guest
$bb stty -onlcr
$bb cp /job run/job
# shellcheck disable=SC2046
exec $bb switch_root /new $($bb cat /start)
