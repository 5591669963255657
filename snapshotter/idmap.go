//go:build linux

package snapshotter

import (
	"fmt"
	"math"
	"strings"

	"github.com/containerd/containerd/v2/core/snapshots"
)

// mappedRoot returns whom the labels of a snapshot map root to, if they map it. As with
// the overlay snapshotter without remap_ids, that is all that is done with a mapping.
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
