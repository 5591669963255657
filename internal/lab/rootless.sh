# Makes of this mount namespace a host with a user who has no root rights, and holds it.
# Arguments: the user's number, a folder that becomes the user's home, a file that is made when
# all is there, and programs.
set -eu
id=$1 home=$2 ready=$3
shift 3
umask 022
mount -t tmpfs -o mode=755 tmpfs /home
mkdir /home/etc /home/user /home/run /home/bin
cp -a /etc/. /home/etc/
echo "user:x:$id:$id::/home/user:/bin/sh" >>/home/etc/passwd
echo "user:x:$id:" >>/home/etc/group
echo "user:300000:65536" >/home/etc/subuid
echo "user:300000:65536" >/home/etc/subgid
mount --bind /home/etc /etc
# Everybody may open it, as on ordinary hosts.
mknod -m 666 /home/fuse c 10 229
mount --bind /home/fuse /dev/fuse
mount --bind "$home" /home/user
chown "$id:$id" /home/run
for program; do
	touch "/home/bin/${program##*/}"
	mount --bind "$program" "/home/bin/${program##*/}"
done
touch "$ready"
exec sleep infinity
