//go:build linux

package snapshotter

import (
	"crypto/sha256"
	"encoding/hex"
	"fmt"
	"math"
	"strings"

	"github.com/containerd/containerd/v2/core/mount"
	"github.com/containerd/containerd/v2/core/snapshots"
	"github.com/containerd/errdefs"
	"golang.org/x/sys/unix"
)

// A mapping says what the ids of a container with a user namespace are outside of it, each
// as "container:host:size[,...]". The zero value maps nothing.
type mapping struct{ uids, gids string }

// mappingOf returns what the labels of a snapshot on these parents, top first, want mapped.
// That is nothing where containerd has given the tree other owners before, as it does for
// snapshotters without the capability remap-ids: its labels are the same then, but the parent
// belongs to whom root is mapped to.
func (s *Snapshotter) mappingOf(labels map[string]string, links []link) (mapping, error) {
	uid, gid, ok, err := mappedRoot(labels)
	if !ok || err != nil || len(links) == 0 {
		return mapping{}, err
	}
	if uid != 0 {
		owner, err := s.owner(links[0])
		if err != nil {
			return mapping{}, err
		}
		if owner == [2]int{uid, gid} {
			return mapping{}, nil
		}
	}
	return mapping{labels[snapshots.LabelSnapshotUIDMapping], labels[snapshots.LabelSnapshotGIDMapping]}, nil
}

// owner returns whom the directory of a snapshot belongs to.
func (s *Snapshotter) owner(l link) ([2]int, error) {
	var st unix.Stat_t
	if err := unix.Stat(s.upperPath(l.id), &st); err != nil {
		return [2]int{}, fmt.Errorf("look at the directory of parent snapshot %s: %w", l.name, err)
	}
	return [2]int{int(st.Uid), int(st.Gid)}, nil
}

func (m mapping) isSet() bool { return m != mapping{} }

// options have containerd map the ids of the lower directories when it mounts them.
func (m mapping) options() []string {
	if !m.isSet() {
		return nil
	}
	return []string{"uidmap=" + m.uids, "gidmap=" + m.gids}
}

// nameLength is how much of a hash names a mount; the options of an overlay hold the names.
const nameLength = 16

// name names a mapping, applied to a directory or to several.
func (m mapping) name(dirs ...string) string {
	h := sha256.Sum256(fmt.Appendf(nil, "%q %q %q", m.uids, m.gids, dirs))
	return hex.EncodeToString(h[:nameLength])
}

// mapLower puts mounts with mapped ids in the place of the directories that an overlay takes
// owners from. containerd could not: it splits lowerdir at every colon. Objects need none,
// since nothing but their bytes counts. The overlay's own directory is not mapped: its
// owners are those outside.
func (s *Snapshotter) mapLower(key string, l *lower, m mapping) error {
	if s.support.ids != nil {
		return fmt.Errorf("%w; take remap-ids out of the capabilities of this snapshotter in containerd's configuration, and containerd copies the tree for each mapping: %w",
			s.support.ids, errdefs.ErrFailedPrecondition)
	}
	ns, err := mount.GetUsernsFD(m.uids, m.gids)
	if err != nil {
		return fmt.Errorf("make a user namespace with %s and %s: %w", m.uids, m.gids, err)
	}
	defer ns.Close()
	for i, from := range l.dirs {
		to, err := s.mapped.ensure(m.name(from), key, []string{from}, func(dir string) error { return mapIDs(from, dir, int(ns.Fd())) })
		if err != nil {
			return err
		}
		l.dirs[i] = to
	}
	return nil
}

// mapIDs mounts a directory on another, with its ids mapped as in a user namespace.
func mapIDs(from, to string, ns int) error {
	if err := mount.IDMapMountWithAttrs(from, to, ns, unix.MOUNT_ATTR_RDONLY, 0); err != nil {
		return fmt.Errorf("mount %s with mapped ids: %w", from, err)
	}
	return nil
}

// mappedRoot returns whom the labels of a snapshot map root to, if they map it.
func mappedRoot(labels map[string]string) (uid, gid int, ok bool, err error) {
	uids, hasUIDs := labels[snapshots.LabelSnapshotUIDMapping]
	gids, hasGIDs := labels[snapshots.LabelSnapshotGIDMapping]
	if !hasUIDs && !hasGIDs {
		return 0, 0, false, nil
	}
	if uid, err = hostRoot(uids); err != nil {
		return 0, 0, false, err
	}
	gid, err = hostRoot(gids)
	return uid, gid, err == nil, err
}

// hostRoot finds what 0 is mapped to in "container:host:size[,...]".
func hostRoot(mappings string) (int, error) {
	for mapping := range strings.SplitSeq(mappings, ",") {
		var container, host, size uint32
		if n, err := fmt.Sscanf(mapping, "%d:%d:%d", &container, &host, &size); err != nil || n != 3 || host == math.MaxUint32 {
			return 0, invalid("mapping of user or group ids %q is not container:host:size", mapping)
		}
		if container == 0 && size > 0 {
			return int(host), nil
		}
	}
	return 0, invalid("mapping of user or group ids %q does not map 0", mappings)
}
