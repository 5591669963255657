package layer

import "errors"

var (
	// ErrIndex says that an index is malformed or not in its canonical form.
	ErrIndex = errors.New("malformed index")
	// ErrRoot says that a block is not a layer root.
	ErrRoot = errors.New("malformed layer root")
	// ErrTarSplit says that a tar-split does not fit its layer.
	ErrTarSplit = errors.New("malformed tar-split")
	// ErrViews says that parts of a layer contradict each other.
	ErrViews = errors.New("parts of the layer contradict each other")
	// ErrImage says that an image record is malformed.
	ErrImage = errors.New("malformed image record")
	// ErrProfile says that a profile is malformed.
	ErrProfile = errors.New("malformed profile")
	// ErrDirectory says that a block is not a UnixFS directory.
	ErrDirectory = errors.New("malformed directory")
	// ErrTooLarge says that something exceeds a limit of the format.
	ErrTooLarge = errors.New("exceeds a limit of the layer format")
	// ErrXattr says that a path carries an extended attribute that would steer the mount.
	ErrXattr = errors.New("forbidden extended attribute")
	// ErrPath says that a path of a tar leaves the root.
	ErrPath = errors.New("path leaves the root")
	// ErrHardlink says that the target of a hard link is not in its layer.
	ErrHardlink = errors.New("hard link target is not in this layer")
	// ErrTar says that a tar is malformed, or holds what containerd would refuse as well.
	ErrTar = errors.New("malformed tar")
)
